"""Training rows in the layout of the published Open-RAG training set.

    {"instruction": "", "conversation": [{"input": QUESTION, "output": RESPONSE}], "corpus": ""}

A row with a `corpus` is plain language modelling. Otherwise its one turn is learned: the reflection
tokens stand in the output as text. Rows of several turns and the field `instruction` are passed
over, as the released training does.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from openrag_core._extras import need
from openrag_core.errors import TrainingDataError
from openrag_core.reflection import TOKENS

_TOKEN = re.compile(f"({'|'.join(map(re.escape, TOKENS))})")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to learn."""

    input: str = ""
    """The question, without template."""
    output: str = ""
    """The response to it, reflection tokens included."""
    corpus: str = ""
    """In place of both: text to learn as it is."""

    def to_dict(self) -> dict[str, Any]:
        """The published layout."""
        turn = {"input": self.input, "output": self.output}
        return {
            "instruction": "",
            "conversation": [] if self.corpus else [turn],
            "corpus": self.corpus,
        }


def read_rows(source: str | Path) -> Iterator[Row]:
    """Rows of a file, or of a dataset on a model hub.

    Args:
        source: A .jsonl or .jsonl.gz file; or NAME or NAME:SUBSET of a dataset, such as
            "shayekh/openrag_train_data:moe", whose split "train" is read (extra: hub).

    Raises:
        TrainingDataError: There is no such file or dataset, or a row is malformed; the message
            names file, line and field.
        MissingExtraError: A dataset is asked for without the extra.
    """
    path = Path(source)
    if path.suffix in {".jsonl", ".gz"} or path.is_file():
        lines: Iterable[tuple[str, Any]] = read_json_lines(path)
    else:
        lines = _read_dataset(str(source))
    for where, content in lines:
        if row := _row(where, content):
            yield row


def write_rows(rows: Iterable[Row], file: Path) -> int:
    """Write rows as JSON lines; the file takes its name when all are there.

    Returns:
        How many.
    """
    return write_json_lines((row.to_dict() for row in rows), file)


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a .jsonl or .jsonl.gz file, each with where it stands.

    Raises:
        TrainingDataError: The file cannot be read, or a line is no JSON object.
    """
    try:
        with _open(path, "rt") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                if line.strip():
                    yield where, _object(where, line)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: cannot be read ({error})") from error


def write_json_lines(objects: Iterable[Any], file: Path) -> int:
    """Write objects, a line each; the file takes its name when all are there.

    Args:
        objects: Whatever JSON can hold.
        file: Compressed where its name ends in .gz.

    Returns:
        How many.

    Raises:
        TrainingDataError: The file cannot be written.
    """
    unfinished = file.with_name(f".unfinished.{file.name}")
    count = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _open(unfinished, "wt") as out:
            for content in objects:
                out.write(json.dumps(content, ensure_ascii=False) + "\n")
                count += 1
        unfinished.replace(file)
    except OSError as error:
        raise TrainingDataError(f"{file}: cannot be written ({error})") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return count


def text_field(
    where: str, content: dict[str, Any], name: str, *, default: str | None = None
) -> str:
    """A field that must hold text.

    Raises:
        TrainingDataError: It does not, or is absent without a default.
    """
    value = content.get(name, default)
    if not isinstance(value, str):
        given = "absent" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        raise TrainingDataError(f"{where}: field {name!r} must be text; it is {given}")
    return value


def split_tokens(text: str) -> list[str]:
    """Reflection tokens, and the stretches of text between them."""
    return [stretch for stretch in _TOKEN.split(text) if stretch]


def _open(path: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8")
    return path.open(mode, encoding="utf-8")


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise TrainingDataError(f"{where}: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise TrainingDataError(f"{where}: expected an object; got {type(content).__name__}")
    return content


def _row(where: str, content: dict[str, Any]) -> Row | None:
    corpus = text_field(where, content, "corpus", default="")
    if corpus:
        return Row(corpus=corpus)
    turns = content.get("conversation")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise TrainingDataError(
            f"{where}: field 'conversation' must be a list of {{'input', 'output'}}; "
            f"got {str(turns)[:80]!r}"
        )
    if len(turns) != 1:
        return None
    turn = f"{where}, conversation"
    return Row(text_field(turn, turns[0], "input"), text_field(turn, turns[0], "output"))


def _read_dataset(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    need("hub", "datasets")
    from datasets import load_dataset  # noqa: PLC0415  (an extra)

    name, _, subset = source.partition(":")
    try:
        dataset = load_dataset(name, subset or None, split="train")
    except Exception as error:  # hubs, proxies and caches fail in many ways
        raise TrainingDataError(
            f"no training rows {source!r}: it is no .jsonl file here, and no hub gave a dataset "
            f"of that name ({type(error).__name__}: {error})"
        ) from error
    for number, content in enumerate(dataset, start=1):
        yield f"{source}, row {number}", content
