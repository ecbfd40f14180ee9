"""Qdrant's REST interface over the client's own store in memory: what we send is really read.

It serves what `ServerStore` and the stores of LangChain and LlamaIndex ask for, with the models of
qdrant-client for requests and replies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
Route = Callable[[QdrantClient, str, dict[str, Any]], Any]


def _create(client: QdrantClient, name: str, body: dict[str, Any]) -> bool:
    asked = models.CreateCollection.model_validate(body)
    client.create_collection(
        name,
        vectors_config=asked.vectors,
        sparse_vectors_config=asked.sparse_vectors,
        metadata=asked.metadata,
    )
    return True


def _upsert(client: QdrantClient, name: str, body: dict[str, Any]) -> object:
    if "batch" in body:
        return client.upsert(name, models.PointsBatch.model_validate(body).batch)
    return client.upsert(name, models.PointsList.model_validate(body).points)


def _delete(client: QdrantClient, name: str, body: dict[str, Any]) -> object:
    return client.delete(name, models.FilterSelector.model_validate(body))


def _query_one(client: QdrantClient, name: str, body: dict[str, Any]) -> object:
    (response,) = client.query_batch_points(name, [models.QueryRequest.model_validate(body)])
    return response


def _query(client: QdrantClient, name: str, body: dict[str, Any]) -> object:
    return client.query_batch_points(name, models.QueryRequestBatch.model_validate(body).searches)


def _scroll(client: QdrantClient, name: str, body: dict[str, Any]) -> dict[str, Any]:
    asked = models.ScrollRequest.model_validate(body)
    points, offset = client.scroll(
        name,
        scroll_filter=asked.filter,
        limit=asked.limit or 10,
        offset=asked.offset,
        with_payload=asked.with_payload if asked.with_payload is not None else True,
        with_vectors=asked.with_vector or False,
    )
    return {"points": points, "next_page_offset": offset}


def _count(client: QdrantClient, name: str, body: dict[str, Any]) -> object:
    return client.count(name, models.CountRequest.model_validate(body).filter)


def _field(_: QdrantClient, name: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    models.CreateFieldIndex.model_validate(body)  # the store in memory needs none
    return {"operation_id": 0, "status": "completed"}


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "collections"): lambda client, _, __: client.get_collections(),
    ("GET", "exists"): lambda client, name, _: {"exists": client.collection_exists(name)},
    ("GET", ""): lambda client, name, _: client.get_collection(name),
    ("PUT", ""): _create,
    ("PUT", "index"): _field,
    ("PUT", "points"): _upsert,
    ("POST", "points/query"): _query_one,
    ("POST", "points/query/batch"): _query,
    ("POST", "points/scroll"): _scroll,
    ("POST", "points/count"): _count,
    ("POST", "points/delete"): _delete,
}


@contextmanager
def served(version: str = "1.18.0") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address, and what was asked there: method, path and body of each request."""
    client, turn, asked = QdrantClient(":memory:"), Lock(), list[dict[str, Any]]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            path = self.path.partition("?")[0].strip("/")
            asked.append({"method": self.command, "path": path, "body": body})
            if not path:
                self.reply({"title": "qdrant", "version": version})
                return
            _, _, of_collection = path.partition("/")
            name, _, rest = of_collection.partition("/")
            route = ROUTES[self.command, rest if name else path]
            try:
                with turn:
                    result = route(client, name, body)
            except ValueError as error:
                self.reply({"status": {"error": str(error)}}, 400)
            else:
                self.reply({"result": result, "status": "ok", "time": 0.0})

        do_GET = do_PUT = do_POST = answer  # noqa: N815  (as http.server calls them)

        def reply(self, content: object, status: int = 200) -> None:
            data = ANYTHING.dump_json(content, exclude_none=True)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
            client.close()
