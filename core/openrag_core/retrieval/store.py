"""Where points live: one small Protocol, whatever the home."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from openrag_core.filters import All, AnyOf, Condition, Filter, Not
from openrag_core.search import SearchOptions

DENSE = "dense"  # name of the dense vector; the sparse one's says which encoder made it
PAGE = 1000  # points read at once when all are looked at
PAYLOAD_INDEXES = {
    "doc_id": "keyword",
    "source": "keyword",
    "tenant": "keyword",
    "content_hash": "keyword",
    "chunk": "integer",
    "page": "integer",
    "created_at": "datetime",
}
"""What every home indexes for filters, and as what."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The entries of a vector that are not zero."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A passage as it is stored."""

    id: str
    """A UUID."""
    payload: Mapping[str, Any]
    dense: list[float] = field(default_factory=list, repr=False)
    """Empty where the vectors were not asked for."""
    sparse: SparseVector = field(default_factory=lambda: SparseVector([], []), repr=False)


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it is searched; what the search does not look at may be empty."""

    dense: list[float]
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that was found."""

    id: str
    score: float
    """As the search's mode and fusion give it; comparable within one result list only."""
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Schema:
    """What of an index's description concerns the engine."""

    dimension: int
    """Length of a dense vector."""
    sparse: str
    """Name of the sparse vector."""
    idf: bool
    """Whether the engine multiplies sparse scores by the terms' inverse document frequency."""

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Schema:
        """Read it."""
        return cls(description["dimension"], sparse_name(description), description["idf"])


def sparse_name(description: Mapping[str, Any] | None) -> str:
    """Name of the sparse vector in an index of this description."""
    return str((description or {}).get("sparse", "bm25")).partition("/")[0]


class FoundPoint(Protocol):
    """A hit as either engine gives it."""

    @property
    def id(self) -> object:
        """A UUID."""
        ...

    @property
    def score(self) -> float:
        """As the search gives it."""
        ...

    @property
    def payload(self) -> dict[str, Any] | None:
        """As it was stored."""
        ...


def ranked_hits(points: Iterable[FoundPoint], options: SearchOptions) -> list[Hit]:
    """The engine's hits as ours, ties by id: engines leave their order open.

    With diversity the engine's order stays, which is not that of its scores.
    """
    hits = [Hit(str(point.id), point.score, point.payload or {}) for point in points]
    if options.diversity is not None:
        return hits
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def stored_point(record: Any, sparse: str) -> Point:  # noqa: ANN401  (each engine has its own)
    """An engine's record as ours.

    Args:
        record: With id, payload and, where they were asked for, vectors by name.
        sparse: Name of the sparse vector.
    """
    vectors = record.vector or {}
    terms = vectors.get(sparse)
    return Point(
        id=str(record.id),
        payload=record.payload or {},
        dense=vectors.get(DENSE, []),
        sparse=SparseVector(terms.indices, terms.values) if terms else SparseVector([], []),
    )


def pages(read: Callable[[Any], tuple[Any, Any]]) -> Iterator[Any]:
    """Page after page of an engine that gives the next offset with each, None at the end."""
    offset = None
    while True:
        records, offset = read(offset)
        yield records
        if offset is None:
            return


_NEGATIVE = {"$ne", "$nin"}
_THERE = ("$exists", True)  # engines ask whether a field is empty


class Conditions(NamedTuple):
    """How an engine's Python binding spells its filters."""

    filter: Callable[..., Any]
    """Takes must, should and must_not."""
    match: Callable[[str, Any], Any]
    """A field is this value."""
    match_any: Callable[[str, Sequence[Any]], Any]
    """A field is one of these values."""
    number: Callable[..., Any]
    """A field's number is in a range: gt, gte, lt, lte."""
    time: Callable[..., Any]
    """The same for times."""
    empty: Callable[[str], Any]
    """A field is missing, null or an empty list."""

    def translate(self, filter_: Filter) -> Any:  # noqa: ANN401  (an engine's own filter)
        """The filter in the engine's language."""
        match filter_:
            case All(parts):
                return self.filter(must=[self.translate(part) for part in parts])
            case AnyOf(()):  # it holds of nothing, and engines take it for no condition
                return self.filter(must_not=[self.filter()])
            case AnyOf(parts):
                return self.filter(should=[self.translate(part) for part in parts])
            case Not(part):
                return self.filter(must_not=[self.translate(part)])
            case Condition(key, name, value):
                kind = "must_not" if name in _NEGATIVE or (name, value) == _THERE else "must"
                return self.filter(**{kind: [self._condition(key, name, value)]})

    def _condition(self, key: str, name: str, value: Any) -> Any:  # noqa: ANN401
        match name:
            case "$exists":
                return self.empty(_path(key))
            case "$in" | "$nin":
                if isinstance(value[0], str):
                    return self.match_any(_path(key), list(value))
                return self.filter(should=[self._equal(key, one) for one in value])
            case "$eq" | "$ne":
                return self._equal(key, value)
            case order:
                return self._range(key, **{order.removeprefix("$"): value})

    def _equal(self, key: str, value: object) -> Any:  # noqa: ANN401
        if isinstance(value, bool | str):
            return self.match(_path(key) if isinstance(value, str) else key, value)
        return self._range(key, gte=value, lte=value)  # 1 and 1.0 are the same number

    def _range(self, key: str, **bounds: Any) -> Any:  # noqa: ANN401
        times = any(isinstance(value, datetime) for value in bounds.values())
        return (self.time if times else self.number)(_path(key), **bounds)


def _path(field: str) -> str:
    """The field as engines parse it: a name that is more than one word stands in quotes."""
    return ".".join(
        part if re.fullmatch(r"[\w-]+", part, re.ASCII) else f'"{part}"'
        for part in field.split(".")
    )


class PointStore(Protocol):
    """Keeps points and finds the nearest ones, dense and sparse, fused by the engine.

    A store that is at home in event loops adds `asearch`.
    """

    @property
    def address(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def local(self) -> bool:
        """Whether the points are in this process."""
        ...

    @property
    def description(self) -> Mapping[str, Any] | None:
        """What `create` was given, by whomever; None where nothing was created yet."""
        ...

    def create(self, description: Mapping[str, Any]) -> None:
        """Make an empty store, with payload indexes for `PAYLOAD_INDEXES`.

        Args:
            description: What the index is made with; of it the engine needs `Schema`.
        """
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Add points, or replace those of the same id; durable when it returns."""
        ...

    def delete(self, filter_: Filter) -> None:
        """Delete the points of which it holds."""
        ...

    def search(
        self, queries: Sequence[Query], limit: int, options: SearchOptions
    ) -> list[list[Hit]]:
        """The best hits of each query, best first; of `options` what an engine can do."""
        ...

    def scroll(
        self,
        filter_: Filter | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[list[Point]]:
        """Every point, a page at a time; `fields` names what of the payload is wanted."""
        ...

    def count(self, filter_: Filter | None = None) -> int:
        """How many points there are."""
        ...

    def close(self) -> None:
        """Release what is held; the store is not used afterwards."""
        ...
