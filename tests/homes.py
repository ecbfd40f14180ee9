"""Where collections of others live in tests, and a few texts to fill them with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from qdrant_client import QdrantClient

from openrag_core.retrieval import Bm25Encoder, Server, ServerStore
from tests.core.retrieval.rest import served

TEXTS = [
    "The Velora Bridge opened in 1893.",
    "The ferry to Velora takes 25 minutes.",
    "The lighthouse keeper of Keth retired.",
    "Velora has a water tower.",
    "Minutes of the council of Keth.",
]
QUESTION = "How many minutes does the ferry to Velora take?"
EVERYTHING = len(TEXTS)


class Home(NamedTuple):
    """Somewhere for a collection `c`."""

    client: QdrantClient
    url: str | None
    """None where it is in memory."""

    def store(self) -> ServerStore:
        """Ours."""
        if self.url is None:
            return ServerStore(self.client, "c")
        return ServerStore.connect(Server(url=self.url), "c")

    @property
    def options(self) -> dict[str, Any]:
        """For a client that others make for themselves."""
        if self.url is None:
            return {"location": ":memory:"}
        return {"url": self.url, "check_compatibility": False}


@contextmanager
def home_in(kind: str) -> Iterator[Home]:
    """One in "memory", or behind "rest"."""
    if kind == "memory":
        client = QdrantClient(":memory:")
        yield Home(client, None)
        client.close()
        return
    with served() as (url, _):
        client = QdrantClient(url=url, check_compatibility=False)
        yield Home(client, url)
        client.close()


def bm25() -> Bm25Encoder:
    """Fitted to the texts."""
    encoder = Bm25Encoder()
    encoder.fit(TEXTS)
    return encoder
