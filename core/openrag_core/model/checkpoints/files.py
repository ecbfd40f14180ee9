"""Checkpoint folders: read with errors that name the file, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError

from openrag_core.errors import CheckpointError, OpenRAGError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that takes its name only when the block ends well.

    Args:
        folder: Must not exist, or be empty.

    Raises:
        CheckpointError: There is something already, or it cannot be written.
    """
    check_new(folder)
    folder = folder.absolute()  # "." has no name to make another from
    try:
        made = folder.with_name(f".{folder.name}.{uuid4().hex}")
        made.mkdir(parents=True)
        try:
            yield made
            for file in made.rglob("*.*"):  # safetensors makes its own unreadable for others
                file.chmod(made.stat().st_mode & 0o666)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OpenRAGError:
        raise
    except (OSError, SafetensorError, ValueError) as error:  # the last is transformers' own
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error


@contextmanager
def readable(where: Path) -> Iterator[None]:
    """Turn whatever the libraries raise over a damaged file into one error that names it.

    Raises:
        CheckpointError: Anything went wrong inside.
    """
    try:
        yield
    except OpenRAGError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{where}: cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def check_new(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        CheckpointError: The folder exists and is not empty, or is none.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already: remove it, or choose another name")


def read_json(file: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        CheckpointError: It is missing, or holds no JSON object.
    """
    if not file.is_file():
        inside = file.parent / "model"  # where a training run leaves its own
        hint = f": its model is {inside}" if (inside / file.name).is_file() else ""
        raise CheckpointError(f"{file}: missing; is {file.parent} a checkpoint?{hint}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as settings: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds no settings")
    return content
