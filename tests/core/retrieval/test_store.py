"""The contract of `PointStore`, on every home that is there."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from openrag_core import Field, Filter, SearchOptions
from openrag_core.filters import All, AnyOf, Condition, Not
from openrag_core.retrieval import EdgeStore, PointStore, Server, ServerStore
from openrag_core.retrieval.store import Point, Query, SparseVector
from tests.core.retrieval.rest import served

DESCRIPTION: dict[str, Any] = {
    "schema": 2,
    "encoder": "hand",
    "dimension": 4,
    "sparse": "bm25/english",
    "idf": True,
}
HOMES = ["edge", "memory", "rest", "server"]
HYBRID = SearchOptions()
DENSE = SearchOptions(mode="dense")
SPARSE = SearchOptions(mode="sparse")


@pytest.fixture(params=HOMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PointStore]:
    made: PointStore
    if request.param == "edge":
        made = EdgeStore(tmp_path / "index")
    elif request.param == "memory":
        made = ServerStore(QdrantClient(":memory:"), "test")
    elif request.param == "rest":
        with served() as (url, _):
            made = ServerStore.connect(Server(url=url), "test")
            yield made
            made.close()
        return
    else:
        url = os.environ.get("OPENRAG_TEST_QDRANT_URL", "")
        if not url:
            pytest.skip("no Qdrant server: set OPENRAG_TEST_QDRANT_URL")
        made = ServerStore.connect(Server(url=url), f"test-{uuid4().hex}")
    yield made
    made.close()


def point(
    number: int, document: str = "a", content: str = "1", chunk: int = 0, **more: Any
) -> Point:
    dense = [1.0 if n == number else 0.1 for n in range(4)]
    payload = {
        "doc_id": document,
        "content_hash": content,
        "chunk": chunk,
        "text": f"t{number}",
        **more,
    }
    return Point(str(UUID(int=number)), payload, dense, SparseVector([number], [1.0]))


def query(dense: int, term: int) -> Query:
    return Query([1.0 if n == dense else 0.0 for n in range(4)], SparseVector([term], [1.0]))


def texts(
    store: PointStore, *queries: Query, limit: int = 10, options: SearchOptions = HYBRID
) -> list[list[str]]:
    found = store.search(queries, limit, options)
    return [[hit.payload["text"] for hit in hits] for hits in found]


def payloads(store: PointStore, filter_: Filter | None = None) -> list[Mapping[str, Any]]:
    return [point.payload for page in store.scroll(filter_) for point in page]


def test_an_empty_home_says_so(store: PointStore) -> None:
    assert store.description is None
    assert payloads(store) == []
    assert store.count() == 0


def test_what_it_was_made_with_is_kept(store: PointStore) -> None:
    store.create(DESCRIPTION)
    assert store.description == DESCRIPTION
    assert store.count() == 0


def test_both_kinds_of_search_are_fused(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(4)])
    both, split = texts(store, query(2, 2), query(1, 3))
    assert both[0] == "t2"
    assert set(split[:2]) == {"t1", "t3"}
    assert texts(store, query(2, 2), limit=1) == [["t2"]]


def test_one_kind_of_search_is_enough(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(4)])
    assert texts(store, query(1, 3), options=DENSE)[0][0] == "t1"
    assert texts(store, query(1, 3), options=SPARSE) == [["t3"]]
    (dense,) = store.search([query(1, 3)], 4, DENSE)
    assert dense[0].score == pytest.approx(1 / 1.03**0.5, abs=1e-4)  # the cosine


def test_reciprocal_ranks_are_weighted_as_documented(store: PointStore) -> None:
    """Dense finds t1 before t3, sparse t3 before t1; nothing else is fused."""
    store.create({**DESCRIPTION, "idf": False})
    near = {1: [0.0, 1.0, 0.0, 0.0], 3: [0.0, 0.0, 0.0, 1.0], 2: [0.0, 0.0, 1.0, 0.0]}
    terms = {1: 1.0, 3: 2.0, 2: 0.1}
    store.upsert(
        [
            Point(str(UUID(int=n)), {"text": f"t{n}"}, near[n], SparseVector([7], [terms[n]]))
            for n in near
        ]
    )
    asked = Query([0.0, 1.0, 0.0, 0.5], SparseVector([7], [1.0]))
    options = SearchOptions(fusion="rrf", rrf_k=2, rrf_weights=(9.0, 1.0), prefetch=2)
    (hits,) = store.search([asked], 2, options)
    scores = {hit.payload["text"]: hit.score for hit in hits}
    assert scores == pytest.approx(
        {"t1": 1 / (1 + 1 / 9) + 1 / (1 + 2), "t3": 1 / (1 + 2 / 9) + 1 / (1 + 1)}
    )


def test_only_what_passes_the_filter_is_looked_at(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n, f"d{n % 2}") for n in range(4)])
    for mode in ("hybrid", "dense", "sparse"):
        options = SearchOptions(mode=mode, filter=Field("doc_id") == "d1", prefetch=2)
        found = texts(store, query(0, 1), options=options)[0]
        assert found
        assert set(found) <= {"t1", "t3"}


def test_low_scores_are_left_out(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(4)])
    options = SearchOptions(mode="dense", min_score=0.9)
    assert texts(store, query(1, 3), options=options) == [["t1"]]


def test_diversity_spreads_what_is_found(store: PointStore) -> None:
    store.create(DESCRIPTION)
    near = [
        Point(str(UUID(int=n)), {"text": f"t{n}"}, vector, SparseVector([n], [1.0]))
        for n, vector in enumerate(
            ([1.0, 0.0, 0.0, 0.0], [0.99, 0.1, 0.0, 0.0], [0.6, 0.0, 0.8, 0.0])
        )
    ]
    store.upsert(near)
    alike = texts(store, query(0, 9), limit=2, options=DENSE)
    apart = texts(store, query(0, 9), limit=2, options=SearchOptions(mode="dense", diversity=0.7))
    assert alike == [["t0", "t1"]]
    assert apart == [["t0", "t2"]]
    assert texts(store, query(0, 0), limit=1, options=SearchOptions(diversity=0.5)) == [["t0"]]


def test_scores_fall(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(4)])
    (hits,) = store.search([query(0, 1)], 10, HYBRID)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.id for hit in hits}) == 4


async def test_event_loops_find_the_same(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(4)])
    if not isinstance(store, ServerStore):
        pytest.skip("the embedded engine has no asynchronous calls; the index uses a thread")
    queries = [query(n, 3 - n) for n in range(4)]
    expected = [store.search([one], 4, HYBRID) for one in queries]
    found = await asyncio.gather(*(store.asearch([one], 4, HYBRID) for one in queries))
    assert found == expected


def test_points_are_replaced_by_id(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(1)])
    store.upsert([point(1), point(2)])
    assert store.count() == 2


def test_what_is_deleted_is_gone_and_nothing_else(store: PointStore) -> None:
    store.create(DESCRIPTION)
    store.upsert([point(0, "a", "old"), point(1, "a", "new"), point(2, "b", "old")])
    store.delete((Field("doc_id") == "a") & (Field("content_hash") != "new"))
    assert {p["text"] for p in payloads(store)} == {"t1", "t2"}
    assert store.count(Field("doc_id") == "b") == 1


def test_all_points_come_page_by_page_with_their_vectors(store: PointStore) -> None:
    store.create(DESCRIPTION)
    points = [point(n, f"d{n}") for n in range(2100)]
    store.upsert(points)
    pages = list(store.scroll(fields=["doc_id"]))
    assert len(pages) == 3
    assert {p.payload["doc_id"] for page in pages for p in page} == {f"d{n}" for n in range(2100)}
    assert all(list(p.payload) == ["doc_id"] for page in pages for p in page)
    (page,) = store.scroll(Field("doc_id") == "d2", vectors=True)
    assert page[0].sparse == points[2].sparse
    length = sum(value * value for value in points[2].dense) ** 0.5
    assert page[0].dense == pytest.approx([value / length for value in points[2].dense])


STORED: list[dict[str, Any]] = [
    {},
    {"source": "a.md", "page": 1, "metadata": {"year": 1990, "tags": ["x", "y"], "open": True}},
    {"source": "b.md", "page": 2, "metadata": {"year": 2000.5, "tags": [], "open": False}},
    {"source": "b.md", "page": None, "metadata": {"tags": ["y"], "by": {"name": "Ann"}}},
    {"created_at": "2024-05-01T00:00:00+00:00"},
    {"created_at": "2025-05-01T00:00:00Z", "page": 3},
    {"created_at": "2024-06-01T00:00:00", "metadata": {"my key": "x", "a:b": 2, "year": 2000}},
    {"page": 2.0, "metadata": {"tags": [None], "by": [{"name": "Ann"}], "x[0]": "y"}},
]
SPRING = datetime(2025, 1, 1, tzinfo=UTC)
CONDITIONS = [
    Field("source") == "b.md",
    Field("source") != "b.md",
    Field("source").is_in(["a.md", "c.md"]),
    Field("source").not_in(["a.md"]),
    Field("page") == 2,
    Field("page").is_in([1, 3]),
    Field("page") >= 2,
    Field("page") < 2,
    Field("page").exists,
    Condition("page", "$exists", value=False),
    Field("metadata.year") > 1990,
    Field("metadata.year") == 2000.5,
    Field("metadata.tags") == "y",
    Field("metadata.tags") != "x",
    Field("metadata.tags").exists,
    Field("metadata.my key") == "x",
    Field("metadata.a:b") >= 2,
    Field("metadata.x[0]").exists,
    Field("metadata.year") == 2000,
    Field("metadata.year").is_in([1990, 2000]),
    Field("metadata.year").not_in([1990]),
    Field("page") != 2,
    Field("page") != 2**70,
    Field("created_at") == datetime(2024, 6, 1),
    Field("metadata.open") == True,  # noqa: E712  (a condition, no truth value)
    Field("metadata.open") != False,  # noqa: E712
    Field("metadata.by.name") == "Ann",
    Field("created_at") >= SPRING,
    Field("created_at") < SPRING,
]


def stored(store: PointStore) -> PointStore:
    store.create(DESCRIPTION)
    store.upsert([point(n, **payload) for n, payload in enumerate(STORED)])
    return store


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_every_condition_means_the_same_everywhere(store: PointStore, condition: Condition) -> None:
    expected = {f"t{n}" for n, payload in enumerate(STORED) if condition.matches(payload)}
    assert expected
    assert {p["text"] for p in payloads(stored(store), condition)} == expected


FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.sampled_from(CONDITIONS),
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(All, st.lists(parts, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(parts, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PointStore]]:
    stores: list[PointStore] = [
        stored(EdgeStore(tmp_path_factory.mktemp("filters") / "index")),
        stored(ServerStore(QdrantClient(":memory:"), "test")),
    ]
    yield stores
    for one in stores:
        one.close()


def test_one_of_nothing_is_nothing(store: PointStore) -> None:
    """As when somebody in no group asks for the documents of their groups."""
    nothing = AnyOf(())
    assert payloads(stored(store), nothing) == []
    store.delete(nothing)
    assert store.count() == len(STORED)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILTERS)
def test_any_filter_means_what_it_says(embedded: list[PointStore], filter_: Filter) -> None:
    expected = {f"t{n}" for n, payload in enumerate(STORED) if filter_.matches(payload)}
    for store in embedded:
        assert {p["text"] for p in payloads(store, filter_)} == expected
