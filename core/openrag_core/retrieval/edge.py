"""The embedded home: Qdrant Edge, the real engine in this process, on disk.

The engine holds the GIL while it works and allows one owner at a time. Below about 200,000 points
exact search is as fast as an index over them, so none is built.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakValueDictionary, finalize

import psutil
from filelock import FileLock, Timeout
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    Fusion,
    MatchValue,
    Modifier,
    Prefetch,
    QueryBatchRequest,
    QueryRequest,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)
from qdrant_edge import Point as EdgePoint
from qdrant_edge import Query as EdgeQuery
from qdrant_edge import SparseVector as EdgeSparseVector

from openrag_core.errors import IndexLockedError, IndexMismatchError, PassageIndexError
from openrag_core.retrieval.store import (
    DENSE,
    PAGE,
    PREFETCH,
    SPARSE,
    Hit,
    Point,
    Query,
    best_first,
    whole_documents,
)

_Result = TypeVar("_Result")


class EdgeStore:
    """Points in a folder.

    The folder holds `index.json` (what the index was made with; written last, so that a creation
    that was interrupted does not count), `points` (the engine's own files), `lock` (held while it
    is open) and `owner` (the process that has it open). Stores of one process on one folder share
    the open engine.

    Args:
        folder: Made when something is stored.

    Raises:
        IndexLockedError: Another process has it open.
        PassageIndexError: The folder's files are damaged.
    """

    local = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "index.json"
        self._engine: _Engine | None = None
        self.address = str(folder)
        self.description: Mapping[str, Any] | None = None
        if self._file.is_file():
            self._engine = _engine(folder, lambda: EdgeShard.load(str(folder / "points")))
            self.description = self._read()

    def create(self, description: Mapping[str, Any], dimension: int) -> None:
        """Make an empty shard for dense vectors of this length.

        Where another store has made one meanwhile, with the same description, it is shared.

        Raises:
            IndexMismatchError: It has another description.
        """
        points = self._folder / "points"
        config = EdgeConfig(
            vectors={DENSE: EdgeVectorParams(size=dimension, distance=Distance.Cosine)},
            sparse_vectors={SPARSE: EdgeSparseVectorParams(modifier=Modifier.Idf)},
            wal_enabled=True,
        )

        def opening() -> EdgeShard:
            if self._file.is_file():
                return EdgeShard.load(str(points))
            shutil.rmtree(points, ignore_errors=True)  # left over from an interrupted creation
            points.mkdir()
            return EdgeShard.create(str(points), config)

        engine = _engine(self._folder, opening)
        if not self._file.is_file():
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(json.dumps(dict(description), indent=2), encoding="utf-8")
            temporary.replace(self._file)
        elif self._read() != description:
            raise IndexMismatchError(
                f"{self._file} was made meanwhile with other settings than {dict(description)}: "
                "run the command again"
            )
        self._engine, self.description = engine, description

    def upsert(self, points: Sequence[Point]) -> None:
        """Add or replace points, all or none."""
        batch = [
            EdgePoint(
                id=point.id,
                vector={
                    DENSE: point.dense,
                    SPARSE: EdgeSparseVector(point.sparse.indices, point.sparse.values),
                },
                payload=dict(point.payload),
            )
            for point in points
        ]
        self._update(UpdateOperation.upsert_points(batch))

    def delete_stale(self, document: str, content_hash: str) -> None:
        """Delete the document's points that are of another content hash."""
        stale = Filter(
            must=[FieldCondition(key="doc_id", match=MatchValue(document))],
            must_not=[FieldCondition(key="content_hash", match=MatchValue(content_hash))],
        )
        self._update(UpdateOperation.delete_points_by_filter(stale))

    def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        """The best hits of each query, best first; ties by id."""
        requests = QueryBatchRequest([self._request(query, limit) for query in queries])
        results = self._call("query_batch", requests)
        return [best_first(points) for points in results]

    def documents(self) -> dict[str, str]:
        """Content hash of each document that is there as a whole."""
        if self._engine is None:
            return {}
        first = Filter(must=[FieldCondition(key="chunk", match=MatchValue(0))])

        def page(offset: Any) -> Any:  # noqa: ANN401  (as the engine gives it)
            request = ScrollRequest(
                limit=PAGE, offset=offset, filter=first, with_payload=["doc_id", "content_hash"]
            )
            return self._call("scroll", request)

        return whole_documents(page)

    def count(self) -> int:
        """How many points there are."""
        if self._engine is None:
            return 0
        return int(self._call("count", CountRequest(exact=True)))

    def close(self) -> None:
        """Give the folder free for other processes, unless another store here has it open."""
        self._engine = None

    def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401  (as the engine gives it)
        """Call a method of the open shard."""
        if self._engine is None:
            raise PassageIndexError(f"the index {self.address} is closed: open it again")
        return _guarded(self._folder, getattr(self._engine.shard, method), *args)

    def _update(self, operation: UpdateOperation) -> None:
        self._call("update", operation)
        self._call("flush")

    def _read(self) -> Mapping[str, Any]:
        try:
            return dict(json.loads(self._file.read_text(encoding="utf-8")).items())
        except (ValueError, AttributeError) as error:
            self.close()
            raise PassageIndexError(
                f"{self._file} is damaged ({error}): delete {self.address} and index again"
            ) from error

    @staticmethod
    def _request(query: Query, limit: int) -> QueryRequest:
        sparse = EdgeSparseVector(query.sparse.indices, query.sparse.values)
        return QueryRequest(
            limit=limit,
            query=Fusion.Dbsf(),  # type: ignore[arg-type]  # a Fusion, which its stub does not say
            prefetches=[
                Prefetch(
                    limit=PREFETCH,
                    query=EdgeQuery.Nearest(query.dense, using=DENSE),
                    params=SearchParams(exact=True),
                ),
                Prefetch(limit=PREFETCH, query=EdgeQuery.Nearest(sparse, using=SPARSE)),
            ],
            with_payload=True,
        )


class _Engine:
    """An open shard and the lock on its folder, let go when the last store that uses it is gone."""

    def __init__(self, shard: EdgeShard, lock: FileLock, owner: Path) -> None:
        self.shard = shard
        owner.write_text(str(os.getpid()), encoding="utf-8")
        finalize(self, _release, shard, lock, owner)


_engines: WeakValueDictionary[Path, _Engine] = WeakValueDictionary()
_opening = Lock()


def _engine(folder: Path, opening: Callable[[], EdgeShard]) -> _Engine:
    """The engine that this process has on the folder; opened if there is none yet."""
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
            shard = _guarded(folder, opening)
        except BaseException:
            lock.release()
            raise
        engine = _engines[folder.resolve()] = _Engine(shard, lock, owner)
        return engine


def _release(shard: EdgeShard, lock: FileLock, owner: Path) -> None:
    shard.close()
    owner.unlink(missing_ok=True)
    lock.release()


def _guarded(folder: Path, call: Callable[..., _Result], *args: object) -> _Result:
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
