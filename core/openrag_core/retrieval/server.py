"""The served home: a Qdrant server or cluster, or the client's own store in memory."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from grpc import RpcError, StatusCode
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from openrag_core.errors import ConfigError, IndexNotFoundError, IndexUnreachableError
from openrag_core.filters import Filter
from openrag_core.retrieval.requests import (
    CONDITIONS,
    VectorNames,
    search_request,
    sparse_vector,
)
from openrag_core.retrieval.store import (
    DENSE,
    PAGE,
    PAYLOAD_INDEXES,
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

MEMORY = ":memory:"
OLDEST = (1, 17)  # of servers: collections with metadata, and RRF with weights
_REQUEST = 256  # points written at once: a server takes 32 MB
_turns: WeakKeyDictionary[QdrantClient, Lock] = WeakKeyDictionary()
_BUSY = {429, 500, 502, 503, 504, StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
_REFUSED = {400, 404, 409, 413, 422, StatusCode.INVALID_ARGUMENT}
_REFUSED |= {StatusCode.NOT_FOUND, StatusCode.ALREADY_EXISTS}
"""The server was reached, and the request was wrong."""
_ERRORS = (ApiException, RpcError, QdrantException)
_Result = TypeVar("_Result")


def _busy(error: BaseException) -> bool:
    """Whether the server may do as asked a little later; every call may be repeated."""
    return isinstance(error, ResourceExhaustedResponse) or _status(error) in _BUSY


def _status(error: BaseException) -> object:
    """Of REST or gRPC; None where nobody replied."""
    code = getattr(error, "code", None)
    return getattr(error, "status_code", None) or (code() if callable(code) else None)


_AGAIN: dict[str, Any] = {
    "retry": retry_if_exception(_busy),
    "stop": stop_after_attempt(4),
    "wait": wait_random_exponential(multiplier=0.2, max=5.0),
    "reraise": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Qdrant server or cluster, and how a collection is made on it.

    Raises:
        ConfigError: A number is below 1.
    """

    url: str
    """Such as "http://localhost:6333"; with https:// over TLS."""
    api_key: str | None = None
    """If the server asks for one."""
    timeout: int = 10
    """Longest wait for one reply, in seconds."""
    grpc_port: int | None = None
    """Speak gRPC on this port (usually 6334) instead of REST."""
    shard_number: int | None = None
    """Parts that the collection is cut into; by default one for each node."""
    replication_factor: int | None = None
    """Copies of each part; 2 or more keep the index through the loss of a node."""
    write_consistency_factor: int | None = None
    """Copies that must have confirmed a write before it counts."""

    def __post_init__(self) -> None:
        for name in ("timeout", "shard_number", "replication_factor", "write_consistency_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")

    @property
    def client_arguments(self) -> dict[str, Any]:
        """For `QdrantClient` and its async twin."""
        return {
            "url": self.url,
            "api_key": self.api_key,
            "timeout": self.timeout,
            "prefer_grpc": self.grpc_port is not None,
            "grpc_port": self.grpc_port or 6334,
            "check_compatibility": False,
        }


class ServerStore:
    """Points in a collection.

    Args:
        client: Connected; `QdrantClient(":memory:")` makes an index that lives in this process. It
            stays yours: closing the store does not close it.
        collection: Name of the collection, made when something is stored.
        server: What the client is connected to; None for one in memory.

    Raises:
        IndexUnreachableError: The server does not answer, or refuses.
    """

    def __init__(self, client: QdrantClient, collection: str, server: Server | None = None) -> None:
        self._client = client
        self._server = server
        self.local = server is None
        # The client's own in-memory store breaks when threads use it at the same time.
        self._turn: AbstractContextManager[Any] = (
            _turns.setdefault(client, Lock()) if self.local else nullcontext()
        )
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncQdrantClient] = (
            WeakKeyDictionary()
        )
        self._collection = collection
        self._names: VectorNames | None = None
        self.address = f"{server.url if server else MEMORY} (collection {collection})"
        self._description: Mapping[str, Any] | None = None
        self._payload_indexed = self.local
        self._owns_client = False
        if server is not None:
            self._check_version()

    @property
    def description(self) -> Mapping[str, Any] | None:
        """What it was made with; None where nothing was created yet, by this process or another."""
        if self._description is None and self._call(
            self._client.collection_exists, self._collection
        ):
            made = self._call(self._client.get_collection, self._collection)
            self._description = made.config.metadata or {}
        return self._description

    @classmethod
    def connect(cls, server: Server, collection: str) -> ServerStore:
        """Connect to a server.

        Raises:
            IndexUnreachableError: The server does not answer in time, refuses, or is too old.
        """
        try:
            client = QdrantClient(**server.client_arguments)
        except ValueError as error:
            raise IndexUnreachableError(
                f"{server.url!r} is no address of a server: {error}"
            ) from error
        store = cls(client, collection, server)
        store._owns_client = True
        return store

    def named(self, names: VectorNames) -> ServerStore:
        """The same collection over the same connection, searched by vectors of these names."""
        other = copy.copy(self)
        other._names = names
        return other

    def look(self) -> tuple[models.CollectionParams, Mapping[str, Any]]:
        """How the collection was made, by whomever, and what is stored with one of its points.

        Raises:
            IndexNotFoundError: There is no such collection, or nothing is in it.
        """
        if not self._call(self._client.collection_exists, self._collection):
            there = self._call(self._client.get_collections).collections
            names = ", ".join(sorted(one.name for one in there)) or "none"
            raise IndexNotFoundError(f"there is no collection at {self.address}; there is {names}")
        made = self._call(self._client.get_collection, self._collection)
        points, _ = self._call(self._client.scroll, self._collection, limit=1, with_payload=True)
        if not points:
            raise IndexNotFoundError(f"nothing is stored in {self.address}: fill it first")
        return made.config.params, points[0].payload or {}

    def create(self, description: Mapping[str, Any]) -> None:
        """Make an empty collection, with the payload indexes that filters need."""
        schema, server = Schema.of(description), self._server
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF if schema.idf else None)
        self._call(
            self._client.create_collection,
            self._collection,
            vectors_config={
                DENSE: models.VectorParams(size=schema.dimension, distance=models.Distance.COSINE)
            },
            sparse_vectors_config={schema.sparse: sparse},
            shard_number=server and server.shard_number,
            replication_factor=server and server.replication_factor,
            write_consistency_factor=server and server.write_consistency_factor,
            metadata=dict(description),
        )
        self._index_payload()
        self._description = description

    def upsert(self, points: Sequence[Point]) -> None:
        """Add or replace points."""
        if not self._payload_indexed:
            self._index_payload()  # whoever made the collection may have been stopped before
        batch = [
            models.PointStruct(
                id=point.id,
                vector={DENSE: point.dense, self._sparse: sparse_vector(point.sparse)},
                payload=dict(point.payload),
            )
            for point in points
        ]
        for start in range(0, len(batch), _REQUEST):
            part = batch[start : start + _REQUEST]
            self._call(self._client.upsert, self._collection, part, wait=True)

    def delete(self, filter_: Filter) -> None:
        """Delete the points of which it holds."""
        selector = models.FilterSelector(filter=CONDITIONS.translate(filter_))
        self._call(self._client.delete, self._collection, selector, wait=True)

    def search(
        self, queries: Sequence[Query], limit: int, options: SearchOptions
    ) -> list[list[Hit]]:
        """The best hits of each query, best first; ties by id."""
        requests = self._requests(queries, limit, options)
        responses = self._call(self._client.query_batch_points, self._collection, requests)
        return [ranked_hits(response.points, options) for response in responses]

    async def asearch(
        self, queries: Sequence[Query], limit: int, options: SearchOptions
    ) -> list[list[Hit]]:
        """As `search`; the event loop goes on."""
        if self._server is None:
            return await asyncio.to_thread(self.search, queries, limit, options)
        loop = asyncio.get_running_loop()
        if (client := self._async.get(loop)) is None:  # connections belong to one loop
            client = self._async[loop] = AsyncQdrantClient(**self._server.client_arguments)
        requests = self._requests(queries, limit, options)
        responses = await self._acall(client.query_batch_points, self._collection, requests)
        return [ranked_hits(response.points, options) for response in responses]

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
        among = None if filter_ is None else CONDITIONS.translate(filter_)

        def read(offset: Any) -> Any:  # noqa: ANN401  (as the client gives it)
            return self._call(
                self._client.scroll,
                self._collection,
                scroll_filter=among,
                limit=PAGE,
                offset=offset,
                with_payload=True if fields is None else list(fields),
                with_vectors=vectors,
            )

        for records in pages(read):
            yield [stored_point(record, self._sparse) for record in records]

    def count(self, filter_: Filter | None = None) -> int:
        """How many points there are."""
        if self.description is None:
            return 0
        among = None if filter_ is None else CONDITIONS.translate(filter_)
        return self._call(self._client.count, self._collection, among, exact=True).count

    def close(self) -> None:
        """Close its own connections; those of event loops that still run are closed in there."""
        if self._owns_client:
            self._client.close()
        for loop, client in list(self._async.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(client.close(), loop)
        self._async.clear()

    def _index_payload(self) -> None:
        """Make the payload indexes that are not there."""
        if not self.local:
            made = self._call(self._client.get_collection, self._collection).payload_schema
            for field, kind in PAYLOAD_INDEXES.items():
                how: Any = (
                    models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
                    if field == "tenant"
                    else models.PayloadSchemaType(kind)
                )
                if field not in made:
                    self._call(self._client.create_payload_index, self._collection, field, how)
        self._payload_indexed = True

    def _requests(
        self, queries: Sequence[Query], limit: int, options: SearchOptions
    ) -> list[models.QueryRequest]:
        names = self._names or VectorNames(DENSE, self._sparse)
        return [search_request(query, limit, options, names) for query in queries]

    @property
    def _sparse(self) -> str:
        return sparse_name(self.description)

    def _check_version(self) -> None:
        found = self._call(self._client.info).version
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            raise IndexUnreachableError(
                f"the Qdrant server {self.address} is version {found}, and "
                f"{'.'.join(map(str, OLDEST))} or newer is needed: upgrade it"
            )

    def _call(self, method: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        try:
            for attempt in Retrying(**_AGAIN):
                with attempt, self._turn:
                    return method(*args, **kwargs)
        except _ERRORS as error:
            raise self._failed(error) from error
        raise AssertionError  # the last attempt raises what it met

    async def _acall(
        self, method: Callable[..., Awaitable[_Result]], *args: Any, **kwargs: Any
    ) -> _Result:
        try:
            async for attempt in AsyncRetrying(**_AGAIN):
                with attempt:
                    return await method(*args, **kwargs)
        except _ERRORS as error:
            raise self._failed(error) from error
        raise AssertionError  # the last attempt raises what it met

    def _failed(self, error: Exception) -> IndexUnreachableError:
        understood = _status(error) in _REFUSED
        hint = "" if understood else ". Check the address, the API key and whether the server runs"
        return IndexUnreachableError(
            f"the Qdrant server {self.address} did not do as asked: {error}{hint}"
        )
