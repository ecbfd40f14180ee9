"""Where points live: one small Protocol, whatever the home."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

DENSE, SPARSE = "dense", "bm25"  # the vectors' names
PREFETCH = 100  # hits of each kind that are fused
PAGE = 1000  # points read at once when all are looked at


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
    dense: list[float]
    sparse: SparseVector
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it is searched."""

    dense: list[float]
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that was found."""

    id: str
    score: float
    """Fused from both kinds of search (DBSF); comparable within one result list only."""
    payload: Mapping[str, Any]


class FoundPoint(Protocol):
    """A hit as either engine gives it."""

    @property
    def id(self) -> object:
        """A UUID."""
        ...

    @property
    def score(self) -> float:
        """Fused."""
        ...

    @property
    def payload(self) -> dict[str, Any] | None:
        """As it was stored."""
        ...


def best_first(points: Iterable[FoundPoint]) -> list[Hit]:
    """The engine's hits as ours, ties by id: engines leave their order open."""
    hits = (Hit(str(point.id), point.score, point.payload or {}) for point in points)
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def whole_documents(page: Callable[[Any], tuple[Iterable[Any], Any]]) -> dict[str, str]:
    """Content hash of each document whose first chunk, which is stored last, is there.

    Args:
        page: Gives the first chunks from an offset on, None at first, and the next offset, None
            at the end; their payload holds at least "doc_id" and "content_hash".
    """
    found: dict[str, str] = {}
    offset = None
    while True:
        records, offset = page(offset)
        found |= {r.payload["doc_id"]: r.payload["content_hash"] for r in records}
        if offset is None:
            return found


class PointStore(Protocol):
    """Keeps points and finds the nearest ones, dense and sparse, fused by the engine."""

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
        """What `create` was given; None where nothing was created yet."""
        ...

    def create(self, description: Mapping[str, Any], dimension: int) -> None:
        """Make an empty store for dense vectors of this length."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Add points, or replace those of the same id; durable when it returns."""
        ...

    def delete_stale(self, document: str, content_hash: str) -> None:
        """Delete the document's points that are of another content hash."""
        ...

    def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        """The best hits of each query, best first."""
        ...

    def documents(self) -> dict[str, str]:
        """Content hash of each document that is there as a whole."""
        ...

    def count(self) -> int:
        """How many points there are."""
        ...

    def close(self) -> None:
        """Release what is held; the store is not used afterwards."""
        ...
