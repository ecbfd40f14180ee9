"""The open engine of a folder: one in a process, shared by the stores that use it.

Qdrant Edge allows one owner of a folder, but two that create one at once destroy each other's
files: so a lock of ours is held while it is open.
"""

from __future__ import annotations

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

_Result = TypeVar("_Result")


class Engine:
    """An open shard and the lock on its folder, let go when the last store that uses it is gone."""

    def __init__(self, shard: EdgeShard, lock: FileLock, owner: Path) -> None:
        self.shard = shard
        self.process = os.getpid()
        owner.write_text(str(os.getpid()), encoding="utf-8")
        finalize(self, _release, shard, lock, owner, self.process)


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
        if (engine := _engines.get(folder.resolve())) is not None:
            return engine
        owner = folder / "owner"
        lock = FileLock(folder / "lock", is_singleton=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
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


def _release(shard: EdgeShard, lock: FileLock, owner: Path, process: int) -> None:
    if process != os.getpid():  # forked: the folder is the parent's
        return
    shard.close()
    owner.unlink(missing_ok=True)
    lock.release()


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


def _process(owner: Path) -> str:
    """The process that wrote the file, as a person would look for it."""
    try:
        process = psutil.Process(int(owner.read_text(encoding="utf-8")))
        command = " ".join(" ".join(process.cmdline()).split())
    except (OSError, ValueError, psutil.Error):
        return "another process"
    return f"process {process.pid} ({command[:120]})"
