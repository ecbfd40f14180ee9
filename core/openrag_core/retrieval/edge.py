"""The embedded home: Qdrant Edge, the real engine in this process, on disk.

The engine holds the GIL while it works and allows one owner at a time. No graph is built over the
points: up to about 200,000 of them exact search takes some milliseconds, and beyond that a server
is the better home.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    FieldCondition,
    Fusion,
    IsEmptyCondition,
    MatchAny,
    MatchValue,
    Mmr,
    Modifier,
    PayloadSchemaType,
    Prefetch,
    QueryBatchRequest,
    QueryRequest,
    RangeDateTime,
    RangeFloat,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)
from qdrant_edge import (
    Filter as EdgeFilter,
)
from qdrant_edge import Point as EdgePoint
from qdrant_edge import Query as EdgeQuery
from qdrant_edge import SparseVector as EdgeSparseVector

from openrag_core.errors import IndexMismatchError, PassageIndexError
from openrag_core.filters import Filter
from openrag_core.retrieval.edge_engine import Engine, engine_on, guarded
from openrag_core.retrieval.store import (
    DENSE,
    PAGE,
    PAYLOAD_INDEXES,
    Conditions,
    Hit,
    Point,
    Query,
    Schema,
    pages,
    ranked_hits,
    sparse_name,
    stored_point,
)
from openrag_core.search import SearchOptions

_CONDITIONS = Conditions(
    filter=EdgeFilter,
    match=lambda key, value: (
        FieldCondition(key=_TRUTHS, match=MatchValue(_truth(key, value)))
        if isinstance(value, bool)
        else FieldCondition(key=key, match=MatchValue(value))
    ),
    match_any=lambda key, values: FieldCondition(key=key, match=MatchAny(list(values))),
    number=lambda key, **bounds: FieldCondition(key=key, range=RangeFloat(**bounds)),
    time=lambda key, **bounds: FieldCondition(
        key=key, range=RangeDateTime(**{name: time.isoformat() for name, time in bounds.items()})
    ),
    empty=IsEmptyCondition,
)
_TRUTHS = "_truths"
"""Payload key of the truth values as strings: the binding takes True for the number 1."""
_KINDS = {
    "keyword": PayloadSchemaType.Keyword,
    "integer": PayloadSchemaType.Integer,
    "datetime": PayloadSchemaType.Datetime,
}


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
        PassageIndexError: The folder's files are damaged, or it is a file.
    """

    local = True

    def __init__(self, folder: Path) -> None:
        if folder.is_file():
            raise PassageIndexError(f"the index {folder} is a file: name a folder (--index)")
        self._folder = folder
        self._file = folder / "index.json"
        self._engine: Engine | None = None
        self._closed = False
        self.address = str(folder)
        self._description: Mapping[str, Any] | None = None
        self._look()

    @property
    def description(self) -> Mapping[str, Any] | None:
        """What it was made with; None where nothing was created yet, by this store or another."""
        if self._description is None:
            self._check_open()
            self._look()
        return self._description

    def create(self, description: Mapping[str, Any]) -> None:
        """Make an empty shard.

        Where another store has made one meanwhile, with the same description, it is shared.

        Raises:
            IndexMismatchError: It has another description.
        """
        self._check_open()
        schema = Schema.of(description)
        points = self._folder / "points"
        vectors = EdgeVectorParams(size=schema.dimension, distance=Distance.Cosine)
        sparse = EdgeSparseVectorParams(modifier=Modifier.Idf if schema.idf else None)
        config = EdgeConfig(
            vectors={DENSE: vectors}, sparse_vectors={schema.sparse: sparse}, wal_enabled=True
        )

        def opening() -> EdgeShard:
            if self._file.is_file():
                return EdgeShard.load(str(points))
            shutil.rmtree(points, ignore_errors=True)  # left over from an interrupted creation
            points.mkdir()
            shard = EdgeShard.create(str(points), config)
            for field, kind in PAYLOAD_INDEXES.items():
                shard.update(UpdateOperation.create_field_index(field, _KINDS[kind]))
            return shard

        engine = engine_on(self._folder, opening)
        if not self._file.is_file():
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(json.dumps(dict(description), indent=2), encoding="utf-8")
            temporary.replace(self._file)
        elif self._read() != description:
            raise IndexMismatchError(
                f"{self._file} was made meanwhile with other settings than {dict(description)}: "
                "run the command again"
            )
        self._engine, self._description = engine, description

    def upsert(self, points: Sequence[Point]) -> None:
        """Add or replace points, all or none."""
        batch = [
            EdgePoint(
                id=point.id,
                vector={
                    DENSE: point.dense,
                    self._sparse: EdgeSparseVector(point.sparse.indices, point.sparse.values),
                },
                payload={**point.payload, _TRUTHS: list(_truths(point.payload))},
            )
            for point in points
        ]
        self._update(UpdateOperation.upsert_points(batch))

    def delete(self, filter_: Filter) -> None:
        """Delete the points of which it holds."""
        self._update(UpdateOperation.delete_points_by_filter(_CONDITIONS.translate(filter_)))

    def search(
        self, queries: Sequence[Query], limit: int, options: SearchOptions
    ) -> list[list[Hit]]:
        """The best hits of each query, best first; ties by id."""
        requests = [self._request(query, limit, options) for query in queries]
        results = self._call("query_batch", QueryBatchRequest(requests))
        return [
            [
                replace(hit, payload=_without_truths(hit.payload))
                for hit in ranked_hits(points, options)
            ]
            for points in results
        ]

    def scroll(
        self,
        filter_: Filter | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[list[Point]]:
        """Every point, a page at a time."""
        if self.description is None:
            return
        among = None if filter_ is None else _CONDITIONS.translate(filter_)

        def read(offset: Any) -> Any:  # noqa: ANN401  (as the engine gives it)
            request = ScrollRequest(
                limit=PAGE,
                offset=offset,
                filter=among,
                with_payload=True if fields is None else list(fields),
                with_vector=vectors,
            )
            return self._call("scroll", request)

        for records in pages(read):
            points = (stored_point(record, self._sparse) for record in records)
            yield [replace(p, payload=_without_truths(p.payload)) for p in points]

    def count(self, filter_: Filter | None = None) -> int:
        """How many points there are."""
        if self.description is None:
            return 0
        among = None if filter_ is None else _CONDITIONS.translate(filter_)
        return int(self._call("count", CountRequest(exact=True, filter=among)))

    def close(self) -> None:
        """Give the folder free for other processes, unless another store here has it open."""
        self._engine = None
        self._closed = True

    def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401  (as the engine gives it)
        """Call a method of the open shard."""
        self._check_open()
        assert self._engine is not None  # whoever calls has seen the description
        if self._engine.process != os.getpid():  # its threads did not come along: it would hang
            raise PassageIndexError(
                f"the index {self.address} was opened before this process was forked: start "
                "processes by spawn, and open it in one of them"
            )
        return guarded(self._folder, getattr(self._engine.shard, method), *args)

    def _check_open(self) -> None:
        if self._closed:
            raise PassageIndexError(f"the index {self.address} is closed: open it again")

    def _update(self, operation: UpdateOperation) -> None:
        self._call("update", operation)
        self._call("flush")

    def _look(self) -> None:
        if self._file.is_file():
            points = str(self._folder / "points")
            self._engine = engine_on(self._folder, lambda: EdgeShard.load(points))
            self._description = self._read()

    def _read(self) -> Mapping[str, Any]:
        try:
            return dict(json.loads(self._file.read_text(encoding="utf-8")).items())
        except (ValueError, AttributeError) as error:
            self.close()
            raise PassageIndexError(
                f"{self._file} is damaged ({error}): delete {self.address} and index again"
            ) from error

    @property
    def _sparse(self) -> str:
        return sparse_name(self.description)

    def _request(self, query: Query, limit: int, options: SearchOptions) -> QueryRequest:
        among = None if options.filter is None else _CONDITIONS.translate(options.filter)
        exact = SearchParams(exact=True)
        wide = max(options.prefetch, limit)
        sparse = EdgeSparseVector(query.sparse.indices, query.sparse.values)
        nearest = {
            "dense": EdgeQuery.Nearest(query.dense, using=DENSE),
            "sparse": EdgeQuery.Nearest(sparse, using=self._sparse),
        }
        root: dict[str, Any]
        if options.mode == "hybrid":
            root = {
                "query": Fusion.Dbsf()
                if options.fusion == "dbsf"
                else Fusion.Rrf(k=options.rrf_k, weights=list(options.rrf_weights)),
                "prefetches": [
                    Prefetch(limit=wide, query=one, params=exact, filter=among)
                    for one in nearest.values()
                ],
            }
        else:
            root = {"query": nearest[options.mode], "params": exact, "filter": among}
        if options.diversity is not None:
            root = {
                "query": Mmr(query.dense, 1 - options.diversity, wide, using=DENSE),
                "prefetches": [Prefetch(limit=wide, score_threshold=options.min_score, **root)],
            }
            return QueryRequest(limit=limit, with_payload=True, **root)
        return QueryRequest(
            limit=limit, with_payload=True, score_threshold=options.min_score, **root
        )


def _truths(payload: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  (whatever is stored)
    """Every truth value in a payload, with the path to it."""
    if isinstance(payload, bool):
        yield _truth(path, payload)
    elif isinstance(payload, Mapping):
        for key, value in payload.items():
            yield from _truths(value, f"{path}.{key}" if path else key)
    elif isinstance(payload, list):
        for value in payload:
            yield from _truths(value, path)


def _truth(path: str, value: bool) -> str:
    return f"{path}={value}"


def _without_truths(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != _TRUTHS}
