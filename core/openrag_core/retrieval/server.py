"""The served home: a Qdrant server or cluster, through qdrant-client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from openrag_core.errors import IndexUnreachableError
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

MEMORY = ":memory:"
_REQUEST = 256  # points written at once
_INDEXED = {
    "doc_id": models.PayloadSchemaType.KEYWORD,
    "source": models.PayloadSchemaType.KEYWORD,
    "chunk": models.PayloadSchemaType.INTEGER,
}
_Result = TypeVar("_Result")


class ServerStore:
    """Points in a collection.

    Args:
        client: Connected; `QdrantClient(":memory:")` makes an index that lives in this process.
        collection: Name of the collection, made when something is stored.
        address: Of the server, for messages.

    Raises:
        IndexUnreachableError: The server does not answer, or refuses.
    """

    def __init__(self, client: QdrantClient, collection: str, address: str = MEMORY) -> None:
        self._client = client
        self.local = address == MEMORY
        # The client's own in-memory store breaks when threads use it at the same time.
        self._turn: AbstractContextManager[Any] = Lock() if self.local else nullcontext()
        self._collection = collection
        self.address = f"{address} (collection {collection})"
        self.description: Mapping[str, Any] | None = None
        if self._call(client.collection_exists, collection):
            self.description = self._call(client.get_collection, collection).config.metadata or {}

    @classmethod
    def connect(
        cls, url: str, collection: str, *, api_key: str | None = None, timeout: int = 10
    ) -> ServerStore:
        """Connect to a server.

        Args:
            url: Such as "http://localhost:6333".
            collection: Name of the collection.
            api_key: If the server asks for one.
            timeout: Longest wait for one reply, in seconds.

        Raises:
            IndexUnreachableError: The server does not answer in time, or refuses.
        """
        try:
            client = QdrantClient(
                url=url, api_key=api_key, timeout=timeout, check_compatibility=False
            )
        except ValueError as error:
            raise IndexUnreachableError(f"{url!r} is no address of a server: {error}") from error
        return cls(client, collection, url)

    def create(self, description: Mapping[str, Any], dimension: int) -> None:
        """Make an empty collection, with the payload indexes that filters need."""
        self._call(
            self._client.create_collection,
            self._collection,
            vectors_config={
                DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)
            },
            sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata=dict(description),
        )
        for field, kind in _INDEXED.items() if not self.local else ():
            self._call(self._client.create_payload_index, self._collection, field, kind)
        self.description = description

    def upsert(self, points: Sequence[Point]) -> None:
        """Add or replace points."""
        batch = [
            models.PointStruct(
                id=point.id,
                vector={
                    DENSE: point.dense,
                    SPARSE: models.SparseVector(
                        indices=point.sparse.indices, values=point.sparse.values
                    ),
                },
                payload=dict(point.payload),
            )
            for point in points
        ]
        for start in range(0, len(batch), _REQUEST):  # a server takes 32 MB at once
            part = batch[start : start + _REQUEST]
            self._call(self._client.upsert, self._collection, part, wait=True)

    def delete_stale(self, document: str, content_hash: str) -> None:
        """Delete the document's points that are of another content hash."""
        stale = models.Filter(
            must=[_equals("doc_id", document)], must_not=[_equals("content_hash", content_hash)]
        )
        selector = models.FilterSelector(filter=stale)
        self._call(self._client.delete, self._collection, selector, wait=True)

    def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        """The best hits of each query, best first; ties by id."""
        responses = self._call(
            self._client.query_batch_points,
            self._collection,
            [self._request(query, limit) for query in queries],
        )
        return [best_first(response.points) for response in responses]

    def documents(self) -> dict[str, str]:
        """Content hash of each document that is there as a whole."""
        if self.description is None:
            return {}
        first = models.Filter(must=[_equals("chunk", 0)])

        def page(offset: Any) -> Any:  # noqa: ANN401  (as the client gives it)
            return self._call(
                self._client.scroll,
                self._collection,
                scroll_filter=first,
                limit=PAGE,
                offset=offset,
                with_payload=["doc_id", "content_hash"],
            )

        return whole_documents(page)

    def count(self) -> int:
        """How many points there are."""
        if self.description is None:
            return 0
        return self._call(self._client.count, self._collection, exact=True).count

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _call(self, method: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        try:
            with self._turn:
                return method(*args, **kwargs)
        except ApiException as error:
            raise IndexUnreachableError(
                f"the Qdrant server {self.address} did not do as asked: {error}. "
                "Check the address, the API key and whether the server runs"
            ) from error

    @staticmethod
    def _request(query: Query, limit: int) -> models.QueryRequest:
        sparse = models.SparseVector(indices=query.sparse.indices, values=query.sparse.values)
        return models.QueryRequest(
            prefetch=[
                models.Prefetch(query=query.dense, using=DENSE, limit=PREFETCH),
                models.Prefetch(query=sparse, using=SPARSE, limit=PREFETCH),
            ],
            query=models.FusionQuery(fusion=models.Fusion.DBSF),
            limit=limit,
            with_payload=True,
        )


def _equals(field: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))
