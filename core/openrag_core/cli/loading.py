"""What is named on the command line: files to make, objects of the user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openrag_core.errors import ConfigError


def new_file(option: str, file: Path, name: str, *, read: Iterable[Path] = ()) -> None:
    """Make sure, before anything is computed or paid for, that a file can be written.

    Args:
        option: By which it was named.
        file: What will be written.
        name: Such as the file could have in a folder, for the message.
        read: What the same command reads.

    Raises:
        ConfigError: It is a folder, or what is read.
    """
    if file.is_dir():
        raise ConfigError(f"{option} {file} is a folder: name a file, such as {file / name}")
    if file.exists() and any(one.exists() and file.samefile(one) for one in read):
        raise ConfigError(f"{option} {file} is read by this command: name another file")


def folder_to_fill(option: str, folder: Path) -> None:
    """The same for a folder, which may be there already.

    Raises:
        ConfigError: It is a file.
    """
    if folder.is_file():
        raise ConfigError(f"{option} {folder} is a file: name a folder")


def old_file(option: str, file: Path) -> None:
    """Make sure, before libraries and models are loaded, that a file can be read.

    Args:
        option: By which it was named.
        file: What will be read.

    Raises:
        ConfigError: It is a folder, or is not there.
    """
    if file.is_dir():
        raise ConfigError(f"{option} {file} is a folder: name a file")
    if not file.exists():
        raise ConfigError(f"{option} {file}: cannot be read: there is no such file")


def load_object(option: str, path: str, expected: str) -> Any:  # noqa: ANN401  (a user's)
    """The object that is named by MODULE:NAME.

    Args:
        option: For which it was named.
        path: MODULE:NAME; the module may lie in the current folder, as with `python -m`.
        expected: What it should be, for the message.

    Raises:
        ConfigError: There is none.
    """
    module, _, name = path.partition(":")
    wanted = f"{option} {path!r}: expected MODULE:NAME of {expected}"
    if not (module and name):
        raise ConfigError(wanted)
    sys.path.insert(0, "")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # of the user's own code
        raise ConfigError(
            f"{wanted}; {module} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(imported, name):
        raise ConfigError(f"{wanted}; {module} has no {name!r}")
    return getattr(imported, name)
