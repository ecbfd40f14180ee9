"""The open engine of a folder: one in a process, shared by the stores that use it.

Qdrant Edge allows one owner of a folder, but two that create one at once destroy each other's
files: so a lock of ours is held while it is open.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar
from weakref import WeakValueDictionary, finalize

import psutil
from filelock import FileLock, Timeout
from qdrant_edge import EdgeShard

from openrag_core.errors import IndexLockedError, PassageIndexError

_LETTING_GO = 5.0  # seconds; a store of this process may be doing so in another thread
_Result = TypeVar("_Result")


class Engine:
    """An open shard and the lock on its folder, let go when the last store that uses it is gone."""

    def __init__(self, shard: EdgeShard, lock: FileLock, owner: Path) -> None:
        self.shard = shard
        self.process = os.getpid()
        owner.write_text(str(os.getpid()), encoding="utf-8")
        self.release = finalize(self, _release, shard, lock, owner, self.process)


_engines: WeakValueDictionary[Path, Engine] = WeakValueDictionary()
_opening = Lock()


def engine_on(folder: Path, opening: Callable[[], EdgeShard]) -> Engine:
    """The engine that this process has on the folder; opened if there is none yet.

    Args:
        folder: Of the index.
        opening: Loads or makes the shard, with the lock held.

    Raises:
        IndexLockedError: Another process has it open.
        PassageIndexError: The folder cannot be written, or its files are damaged.
    """
    with _opening:
        owner = folder / "owner"
        if (engine := _engines.get(folder.resolve())) is not None:
            if _number(owner) == engine.process:
                return engine
            raise PassageIndexError(
                f"the index {folder} was deleted while this process has it open: close what has "
                "it open (its close()), and index again"
            )
        lock = FileLock(folder / "lock", is_singleton=False, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _acquire(lock, owner)
        except Timeout as error:
            raise IndexLockedError(
                f"the index {folder} is in use by {_process(owner)}. Wait until it ends, or "
                "serve several processes from a Qdrant server (--qdrant-url)"
            ) from error
        except OSError as error:
            raise PassageIndexError(
                f"the index {folder} cannot be written ({error}): reading it needs that too. "
                "Give a folder of your own (--index)"
            ) from error
        try:
            shard = guarded(folder, opening)
        except BaseException:
            lock.release()
            raise
        engine = _engines[folder.resolve()] = Engine(shard, lock, owner)
        return engine


def _acquire(lock: FileLock, owner: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if _number(owner) not in {None, os.getpid()}:
            raise
        lock.acquire(timeout=_LETTING_GO)


def _release(shard: EdgeShard, lock: FileLock, owner: Path, process: int) -> None:
    if process != os.getpid():  # forked: the folder is the parent's
        return
    shard.close()
    owner.unlink(missing_ok=True)
    lock.release()


@atexit.register
def _release_all() -> None:
    """Close, before filelock's handler lets go of the locks: the last one registered runs first."""
    for engine in list(_engines.values()):
        engine.release()


def guarded(folder: Path, call: Callable[..., _Result], *args: object) -> _Result:
    """Call the engine, which raises bare exceptions, and panics that are not even those."""
    try:
        return call(*args)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise PassageIndexError(
            f"the index {folder} cannot be used: {error}. "
            "If its files are damaged, delete the folder and index again"
        ) from error


def _number(owner: Path) -> int | None:
    """Of the process that wrote the file; None where there is none."""
    try:
        return int(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _process(owner: Path) -> str:
    """The process that wrote the file, as a person would look for it."""
    if (number := _number(owner)) is None:
        return "another process"
    try:
        process = psutil.Process(number)
        command = " ".join(" ".join(process.cmdline()).split())
    except (ValueError, psutil.Error):
        return "another process"
    return f"process {process.pid} ({command[:120]})"
