"""Files of JSON objects, read with where each stands and written whole or not at all."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Literal

from openrag_core.errors import OpenRAGError
from openrag_core.words import well_formed

Error = type[OpenRAGError]


def read_json_lines(path: str | Path, *, error: Error) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file, each with where it stands.

    Args:
        path: .jsonl, or .json, which holds a list of objects or {"data": the list}; either may end
            in .gz.
        error: What is raised.

    Raises:
        OpenRAGError: The file cannot be read, or a line is no JSON object; of the type `error`.
    """
    path = Path(path)
    try:
        with _open(path, "rt") as file:
            if path.name.removesuffix(".gz").endswith(".json"):
                yield from _listed(path, file.read(), error)
                return
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                if line.strip():
                    yield where, _object(where, _parsed(where, line, error), error)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be read ({reason})") from cause


def write_json_lines(objects: Iterable[Any], file: str | Path, *, error: Error) -> int:
    """Write objects, a line each; the file takes its name when all are there.

    Args:
        objects: Whatever JSON can hold; half a character is written as U+FFFD.
        file: Compressed where its name ends in .gz.
        error: What is raised.

    Returns:
        How many.

    Raises:
        OpenRAGError: The file cannot be written; of the type `error`.
    """
    file = Path(file)
    unfinished = file.with_name(f".unfinished.{file.name}")
    count = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _open(unfinished, "wt") as out:
            for content in objects:
                out.write(_written(content) + "\n")
                count += 1
        unfinished.replace(file)
    except OSError as cause:
        raise error(f"{file}: cannot be written ({cause})") from cause
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return count


def text_field(
    where: str, content: dict[str, Any], name: str, *, default: str | None = None, error: Error
) -> str:
    """A field that must hold text; null is absent.

    Raises:
        OpenRAGError: It does not, or is absent without a default; of the type `error`.
    """
    value = content.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        given = "absent" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        raise error(f"{where}: field {name!r} must be text; it is {given}")
    return value


def check_names(
    where: str, content: dict[str, Any], known: Collection[str], *, error: Error
) -> None:
    """Refuse a field whose name is a slip of a known one that is absent; others are passed over.

    Raises:
        OpenRAGError: There is one; of the type `error`.
    """
    absent = [name for name in known if name not in content]
    for name in content.keys() - set(known):
        if "_" in name:  # such as distractor_ids, which data sets have beside or in place of texts
            continue
        for meant in get_close_matches(name, absent, n=1, cutoff=0.8):
            raise error(f"{where}: there is no field {name!r}: is {meant!r} meant?")


def _listed(path: Path, text: str, error: Error) -> Iterator[tuple[str, dict[str, Any]]]:
    content = _parsed(str(path), text, error)
    if isinstance(content, dict):
        content = content.get("data", content)
    if not isinstance(content, list):
        raise error(f'{path}: expected a list of objects, or {{"data": [...]}}')
    for number, one in enumerate(content, start=1):
        where = f"{path}, row {number}"
        yield where, _object(where, one, error)


def _open(path: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"  # some editors begin a file with a mark
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding=encoding)
    return path.open(mode, encoding=encoding)


def _parsed(where: str, text: str, error: Error) -> object:
    try:
        content = json.loads(text)
        return json.loads(_written(content)) if "\\u" in text else content
    except (ValueError, RecursionError) as cause:
        raise error(f"{where}: no JSON ({cause})") from cause


def _written(content: object) -> str:
    """Without halves of surrogate pairs, which are JSON, and can be stored nowhere."""
    return well_formed(json.dumps(content, ensure_ascii=False))


def _object(where: str, content: object, error: Error) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise error(f"{where}: expected an object; got {type(content).__name__}")
    return content
