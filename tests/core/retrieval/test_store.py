"""The contract of `PointStore`, on every home that is there."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from qdrant_client import QdrantClient

from openrag_core.retrieval import EdgeStore, PointStore, ServerStore
from openrag_core.retrieval.store import Point, Query, SparseVector

DESCRIPTION = {"schema": 1, "encoder": "hand"}
HOMES = ["edge", "memory", "server"]


@pytest.fixture(params=HOMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PointStore]:
    made: PointStore
    if request.param == "edge":
        made = EdgeStore(tmp_path / "index")
    elif request.param == "memory":
        made = ServerStore(QdrantClient(":memory:"), "test")
    else:
        url = os.environ.get("OPENRAG_TEST_QDRANT_URL")
        if not url:
            pytest.skip("no Qdrant server: set OPENRAG_TEST_QDRANT_URL")
        made = ServerStore.connect(url, f"test-{uuid4().hex}")
    yield made
    made.close()


def point(number: int, document: str = "a", content: str = "1", chunk: int = 0) -> Point:
    dense = [1.0 if n == number else 0.1 for n in range(4)]
    payload = {"doc_id": document, "content_hash": content, "chunk": chunk, "text": f"t{number}"}
    return Point(str(UUID(int=number)), dense, SparseVector([number], [1.0]), payload)


def query(dense: int, term: int) -> Query:
    return Query([1.0 if n == dense else 0.0 for n in range(4)], SparseVector([term], [1.0]))


def texts(store: PointStore, *queries: Query, limit: int = 10) -> list[list[str]]:
    return [[hit.payload["text"] for hit in hits] for hits in store.search(queries, limit)]


def test_an_empty_home_says_so(store: PointStore) -> None:
    assert store.description is None
    assert store.documents() == {}
    assert store.count() == 0


def test_what_it_was_made_with_is_kept(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    assert store.description == DESCRIPTION
    assert store.count() == 0


def test_both_kinds_of_search_are_fused(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(n) for n in range(4)])
    both, split = texts(store, query(2, 2), query(1, 3))
    assert both[0] == "t2"
    assert set(split[:2]) == {"t1", "t3"}
    assert texts(store, query(2, 2), limit=1) == [["t2"]]


def test_scores_fall(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(n) for n in range(4)])
    (hits,) = store.search([query(0, 1)], 10)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.id for hit in hits}) == 4


def test_points_are_replaced_by_id(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(1)])
    store.upsert([point(1), point(2)])
    assert store.count() == 2


def test_a_document_counts_by_its_first_chunk(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(0, "a", "1", 0), point(1, "a", "1", 1), point(2, "b", "2", 1)])
    assert store.documents() == {"a": "1"}


def test_what_is_stale_goes_and_nothing_else(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(0, "a", "old"), point(1, "a", "new"), point(2, "b", "old")])
    store.delete_stale("a", "new")
    assert store.documents() == {"a": "new", "b": "old"}


def test_many_documents_are_all_listed(store: PointStore) -> None:
    store.create(DESCRIPTION, 4)
    store.upsert([point(n, f"d{n}") for n in range(2100)])
    assert len(store.documents()) == 2100
