"""The folder of an evaluation: what determined the numbers, and one line for each question.

config.json: made first; a run of another configuration is refused.
results.jsonl: appended to, batch by batch, each safe on disk before the next one begins. A last
    line without its end was cut off, and is written again.
summary.json: made when all is done, from the lines.
adaptive.json, adaptive.png: likewise, where questions were answered both ways.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from openrag_core.errors import EvaluationError

CONFIG, RESULTS = "config.json", "results.jsonl"
SUMMARY, CURVES, PICTURE = "summary.json", "adaptive.json", "adaptive.png"
# Where something lies, and what its content is known by: moved, it is the same.
_PLACES = {"data.file": "data.sha256", "settings.index": "settings.index_sha256"}
_NAMED = 3  # of the differences to another configuration
_UNFINISHED = ".unfinished."
_ABSENT = "nothing"
Record = dict[str, Any]


class Results:
    """A folder that an evaluation writes to; see `opened`."""

    def __init__(self, folder: Path, records: list[Record]) -> None:
        self.folder = folder
        self.records = records
        """In the order in which they were written."""

    @property
    def ids(self) -> set[str]:
        """Questions that are done."""
        return {record["id"] for record in self.records}

    def append(self, records: Iterable[Record]) -> None:
        """Write records, and wait until they are safe on disk.

        Raises:
            EvaluationError: They cannot be written.
        """
        added = list(records)
        lines = "".join(_line(record) for record in added)
        try:
            for conclusion in (SUMMARY, CURVES, PICTURE):  # they would not be of all of them
                (self.folder / conclusion).unlink(missing_ok=True)
            with (self.folder / RESULTS).open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self.folder, error) from error
        self.records += added

    def conclude(
        self, summary: Mapping[str, Any], curves: object = None, picture: bytes | None = None
    ) -> None:
        """Write what all the records come to.

        Args:
            summary: See `summarise`.
            curves: The adaptive curve, in plain values; None where there is none.
            picture: The same as PNG.

        Raises:
            EvaluationError: It cannot be written.
        """
        try:
            if curves is not None:
                _write(self.folder / CURVES, _json(curves))
            if picture is not None:
                _write(self.folder / PICTURE, picture)
            _write(self.folder / SUMMARY, _json(summary))
        except OSError as error:
            raise _unusable(self.folder, error) from error


@contextmanager
def opened(folder: Path, config: Mapping[str, Any]) -> Iterator[Results]:
    """Begin an evaluation, or go on with one that was interrupted; nobody else may meanwhile.

    Args:
        folder: Made where it is not there.
        config: Everything that determines the numbers.

    Raises:
        EvaluationError: The folder holds an evaluation of another configuration (the message names
            what differs), or something else; another process writes to it; or it cannot be used.
    """
    config = json.loads(_line(config))  # tuples become lists, as when read
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock", timeout=0))
            if not (folder / CONFIG).is_file():
                _check_empty(folder)
                _write(folder / CONFIG, _json(config))
            _check_same(folder, _config(folder), config)
            _cut_torn_line(folder / RESULTS)
            results = Results(folder, _records(folder))
        except Timeout as error:
            raise EvaluationError(f"{folder}: another process is writing to it") from error
        except OSError as error:
            raise _unusable(folder, error) from error
        yield results  # what fails now may be a model or a retriever


def read(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    """What determined the numbers, and a record for each question.

    Raises:
        EvaluationError: The folder holds no evaluation, or a line of it is broken.
    """
    if not (folder / CONFIG).is_file():
        raise EvaluationError(
            f"{folder}: holds no evaluation ({CONFIG} is missing): make one with openrag eval"
        )
    return _config(folder), _records(folder)


def fingerprint(path: Path, *, without: Collection[str] = ()) -> str:
    """SHA-256 of a file; of a folder, of the names and contents of all its files.

    Args:
        path: The file or folder.
        without: Names of files in the folder that do not count.

    Raises:
        EvaluationError: It cannot be read.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        files = sorted(one for one in path.rglob("*") if one.is_file() and one.name not in without)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error})") from error
    names = (f"{one.relative_to(path)} {fingerprint(one)}\n" for one in files)
    return sha256("".join(names).encode()).hexdigest()


def _unusable(folder: Path, error: OSError) -> EvaluationError:
    return EvaluationError(f"{folder}: cannot be used ({error})")


def _line(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, default=str) + "\n"


def _json(content: object) -> bytes:
    return f"{json.dumps(content, ensure_ascii=False, indent=1, default=str)}\n".encode()


def _write(file: Path, content: bytes) -> None:
    unfinished = file.with_name(f"{_UNFINISHED}{file.name}")
    with unfinished.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(file)


def _check_empty(folder: Path) -> None:
    there = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    if there:
        raise EvaluationError(
            f"{folder}: holds something else ({', '.join(there[:3])}) and no evaluation: "
            "name a folder that is new or empty"
        )


def _check_same(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = dict(_flat(there)), dict(_flat(now))
    different = [
        f"{name}: {old.get(name, _ABSENT)!r} there, {new.get(name, _ABSENT)!r} now"
        for name in {**old, **new}
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        and not (_PLACES.get(name) in old and _PLACES.get(name) in new)
    ]
    if more := different[_NAMED:]:
        different[_NAMED:] = [f"and {len(more)} more"]
    if different:
        raise EvaluationError(
            f"{folder}: holds the results of another configuration ({'; '.join(different)}): "
            "name another folder, or ask as before"
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{folder / CONFIG}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise EvaluationError(f"{folder / CONFIG}: expected an object")
    return config


def _cut_torn_line(file: Path) -> None:
    """Take away what was being written when a run was stopped."""
    if not file.is_file():
        return
    content = file.read_bytes()
    if not content.endswith(b"\n"):
        with file.open("r+b") as out:
            out.truncate(content.rfind(b"\n") + 1)


def _records(folder: Path) -> list[Record]:
    """The whole lines; one that is still being written does not count."""
    file = folder / RESULTS
    if not file.is_file():
        return []
    records: dict[str, Record] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
            name = record["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{where}: no result ({error}): take the line out, and its question is asked again"
            ) from error
        if name in records:
            raise EvaluationError(f"{where}: {name!r} is there twice: take one of the lines out")
        records[name] = record
    return list(records.values())
