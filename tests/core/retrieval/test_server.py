"""core/openrag_core/retrieval/server.py: a server that is not there, or answers nothing."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from grpc import RpcError, StatusCode
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from openrag_core import ConfigError, IndexUnreachableError
from openrag_core.retrieval import Server, ServerStore, server
from openrag_core.retrieval.store import PAYLOAD_INDEXES
from tests.core.retrieval.rest import served
from tests.core.retrieval.test_store import DESCRIPTION, HYBRID, point, query


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_silent_server_is_given_up_on(silent: int) -> None:
    url = f"http://127.0.0.1:{silent}"
    with pytest.raises(IndexUnreachableError, match=rf"{url} \(collection x\).*timed out"):
        ServerStore.connect(Server(url=url, timeout=1), "x")


def test_a_closed_port_is_named(silent: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert port != silent
    with pytest.raises(IndexUnreachableError, match=f"127.0.0.1:{port}.*refused"):
        ServerStore.connect(Server(url=f"http://127.0.0.1:{port}", timeout=1), "x")


@pytest.mark.parametrize("url", ["localhost:6333:6333", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(IndexUnreachableError):
        ServerStore.connect(Server(url=url, timeout=1), "x")


def test_a_server_that_is_too_old_is_named_with_its_version() -> None:
    with (
        served("1.12.4") as (url, _),
        pytest.raises(IndexUnreachableError, match=r"is version 1.12.4, and 1.17 or newer"),
    ):
        ServerStore.connect(Server(url=url), "x")


def test_a_collection_is_made_as_asked() -> None:
    with served() as (url, asked):
        server = Server(url=url, shard_number=3, replication_factor=2, write_consistency_factor=2)
        store = ServerStore.connect(server, "x")
        store.create(DESCRIPTION)
        (made,) = (one["body"] for one in asked if one["path"] == "collections/x" and one["body"])
        assert (made["shard_number"], made["replication_factor"]) == (3, 2)
        assert made["write_consistency_factor"] == 2
        assert made["sparse_vectors"] == {"bm25": {"modifier": "idf"}}
        indexed = {
            one["body"]["field_name"]: one["body"]["field_schema"]
            for one in asked
            if one["path"] == "collections/x/index"
        }
        assert indexed["tenant"] == {"type": "keyword", "is_tenant": True}
        assert indexed["created_at"] == "datetime"
        store.close()


def test_a_collection_that_was_left_half_made_is_completed() -> None:
    with served() as (url, asked):
        client = QdrantClient(url=url, check_compatibility=False)
        vectors = {"dense": models.VectorParams(size=4, distance=models.Distance.COSINE)}
        sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
        client.create_collection(
            "x", vectors, sparse_vectors_config=sparse, metadata=dict(DESCRIPTION)
        )
        store = ServerStore.connect(Server(url=url), "x")
        assert store.description == DESCRIPTION
        for _ in range(2):  # once is enough
            store.upsert([point(1)])
        indexed = [one["body"]["field_name"] for one in asked if one["path"].endswith("x/index")]
        assert sorted(indexed) == sorted(PAYLOAD_INDEXES)
        client.close()
        store.close()


def test_a_busy_server_is_asked_again_over_grpc_too() -> None:
    class BusyError(RpcError):
        def code(self) -> StatusCode:
            return StatusCode.UNAVAILABLE

    class RefusedError(BusyError):
        def code(self) -> StatusCode:
            return StatusCode.INVALID_ARGUMENT

    assert server._busy(BusyError())
    assert not server._busy(RefusedError())
    assert not server._busy(RpcError())


def test_what_a_server_refuses_is_not_blamed_on_the_address() -> None:
    with served() as (url, _):
        store = ServerStore.connect(Server(url=url), "x")
        store.create(DESCRIPTION)
        with pytest.raises(IndexUnreachableError, match="did not do as asked") as refused:
            store.create(DESCRIPTION)  # it is there
        assert "Check the address" not in str(refused.value)
        store.close()


def test_many_queries_are_one_request() -> None:
    with served() as (url, asked):
        store = ServerStore.connect(Server(url=url), "x")
        store.create(DESCRIPTION)
        store.upsert([point(n) for n in range(4)])
        before = len(asked)
        store.search([query(n, n) for n in range(4)], 2, HYBRID)
        assert [one["path"] for one in asked[before:]] == ["collections/x/points/query/batch"]
        (fusion,) = {str(one["query"]) for one in asked[-1]["body"]["searches"]}
        assert fusion == "{'fusion': 'dbsf'}"
        store.close()


async def test_closing_ends_the_connections_of_event_loops_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[AsyncQdrantClient] = []
    close = AsyncQdrantClient.close

    async def closing(client: AsyncQdrantClient) -> None:
        closed.append(client)
        await close(client)

    monkeypatch.setattr(AsyncQdrantClient, "close", closing)
    with served() as (url, _):
        store = ServerStore.connect(Server(url=url), "x")
        store.create(DESCRIPTION)
        await store.asearch([query(1, 1)], 1, HYBRID)
        store.close()
        await asyncio.sleep(0.05)
        assert len(closed) == 1


async def test_a_server_that_goes_away_is_told_to_event_loops() -> None:
    with served() as (url, _):
        store = ServerStore.connect(Server(url=url, timeout=1), "x")
        store.create(DESCRIPTION)
    with pytest.raises(IndexUnreachableError, match="did not do as asked"):
        await store.asearch([query(1, 1)], 1, HYBRID)
    store.close()


@pytest.mark.parametrize("name", ["timeout", "shard_number", "replication_factor"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        Server(url="http://localhost", **{name: 0})  # type: ignore[arg-type]
