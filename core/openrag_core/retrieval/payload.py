"""What is stored with a passage, and what a reader gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openrag_core.records import Passage
from openrag_core.retrieval.chunking import Chunk
from openrag_core.retrieval.documents import Document

_OWN = ("text", "title", "source")  # fields of a passage; the others are its metadata
FIELDS = (
    *_OWN,
    *("page", "start", "end", "doc_id", "chunk", "content_hash", "created_at", "tenant"),
)
"""What can be filtered by, beside "metadata.KEY"."""


def to_payload(
    document: Document, number: int, chunk: Chunk, *, created_at: str, tenant: str | None
) -> dict[str, Any]:
    """What is stored with a piece of a document.

    Args:
        document: That it is a piece of.
        number: Its place in the document, from 0.
        chunk: The piece.
        created_at: In ISO 8601, with its zone.
        tenant: Whose it is.
    """
    return {
        "text": chunk.text,
        "title": chunk.title,
        "source": document.source,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "doc_id": document.id,
        "chunk": number,
        "content_hash": document.content_hash,
        "created_at": created_at,
        "tenant": tenant,
        "metadata": dict(document.metadata),
    }


def to_passage(id_: str, payload: Mapping[str, Any], score: float | None) -> Passage:
    """What is stored, as the pipeline knows it: position and document's metadata in one."""
    position = {
        key: payload[key] for key in FIELDS if key not in _OWN and payload.get(key) is not None
    }
    return Passage(
        id=id_,
        text=payload["text"],
        title=payload["title"],
        source=payload["source"],
        metadata={**(payload.get("metadata") or {}), **position},
        retrieval_score=score,
    )
