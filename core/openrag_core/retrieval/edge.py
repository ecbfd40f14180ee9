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
from typing import Any

import psutil
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

from openrag_core.errors import IndexLockedError, PassageIndexError
from openrag_core.retrieval.store import DENSE, PREFETCH, SPARSE, Hit, Point, Query

_PAGE = 1000  # points read at once when all are looked at


class EdgeStore:
    """Points in a folder.

    The folder holds `index.json` (what the index was made with; written last, so that a creation
    that was interrupted does not count), `points` (the engine's own files) and `owner` (the
    process that opened it last).

    Args:
        folder: Made when something is stored.

    Raises:
        IndexLockedError: Another process has it open.
        PassageIndexError: The folder's files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shard: EdgeShard | None = None
        self.address = str(folder)
        self.description: Mapping[str, Any] | None = None
        if (file := folder / "index.json").is_file():
            self._open(lambda: EdgeShard.load(str(folder / "points")))
            self.description = self._read(file)

    def create(self, description: Mapping[str, Any], dimension: int) -> None:
        """Make an empty shard for dense vectors of this length."""
        points = self._folder / "points"
        shutil.rmtree(points, ignore_errors=True)  # left over from an interrupted creation
        points.mkdir(parents=True)
        config = EdgeConfig(
            vectors={DENSE: EdgeVectorParams(size=dimension, distance=Distance.Cosine)},
            sparse_vectors={SPARSE: EdgeSparseVectorParams(modifier=Modifier.Idf)},
            wal_enabled=True,
        )
        self._open(lambda: EdgeShard.create(str(points), config))
        temporary = self._folder / "index.json.tmp"
        temporary.write_text(json.dumps(dict(description), indent=2), encoding="utf-8")
        temporary.replace(self._folder / "index.json")
        self.description = description

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
        self._open_shard.update(UpdateOperation.upsert_points(batch))
        self._open_shard.flush()

    def delete_stale(self, document: str, content_hash: str) -> None:
        """Delete the document's points that are of another content hash."""
        stale = Filter(
            must=[FieldCondition(key="doc_id", match=MatchValue(document))],
            must_not=[FieldCondition(key="content_hash", match=MatchValue(content_hash))],
        )
        self._open_shard.update(UpdateOperation.delete_points_by_filter(stale))
        self._open_shard.flush()

    def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        """The best hits of each query, best first; ties by id."""
        results = self._open_shard.query_batch(
            QueryBatchRequest([self._request(query, limit) for query in queries])
        )
        return [
            sorted(
                (Hit(str(point.id), point.score, point.payload or {}) for point in points),
                key=lambda hit: (-hit.score, hit.id),
            )
            for points in results
        ]

    def documents(self) -> dict[str, str]:
        """Content hash of each document whose first chunk, which is stored last, is there."""
        first = Filter(must=[FieldCondition(key="chunk", match=MatchValue(0))])
        found: dict[str, str] = {}
        offset = None
        while self._shard is not None:
            records, offset = self._shard.scroll(
                ScrollRequest(
                    limit=_PAGE,
                    offset=offset,
                    filter=first,
                    with_payload=["doc_id", "content_hash"],
                )
            )
            for record in records:
                payload = record.payload or {}
                found[payload["doc_id"]] = payload["content_hash"]
            if offset is None:
                break
        return found

    def count(self) -> int:
        """How many points there are."""
        return self._shard.count(CountRequest(exact=True)) if self._shard else 0

    def close(self) -> None:
        """Give the folder free for other processes."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
            (self._folder / "owner").unlink(missing_ok=True)

    @property
    def _open_shard(self) -> EdgeShard:
        if self._shard is None:
            raise PassageIndexError(f"the index {self.address} is closed: open it again")
        return self._shard

    def _open(self, opening: Callable[[], EdgeShard]) -> None:
        owner = self._folder / "owner"
        try:
            self._shard = opening()
        except Exception as error:  # the engine raises nothing more special
            if "WouldBlock" in str(error):
                raise IndexLockedError(
                    f"the index {self.address} is in use by {_process(owner)}. Wait until it "
                    "ends, or serve several processes from a Qdrant server (--qdrant-url)"
                ) from error
            raise PassageIndexError(
                f"the index {self.address} cannot be opened: {error}. "
                "If its files are damaged, delete the folder and index again"
            ) from error
        owner.write_text(str(os.getpid()), encoding="utf-8")

    def _read(self, file: Path) -> Mapping[str, Any]:
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            self.close()
            raise PassageIndexError(
                f"{file} is damaged ({error}): delete {self.address} and index again"
            ) from error
        return dict(description)

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


def _process(owner: Path) -> str:
    """The process that wrote the file, as a person would look for it."""
    try:
        process = psutil.Process(int(owner.read_text(encoding="utf-8")))
        command = " ".join(" ".join(process.cmdline()).split())
    except (OSError, ValueError, psutil.Error):
        return "another process"
    return f"process {process.pid} ({command[:120]})"
