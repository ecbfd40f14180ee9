"""What is stored with a passage, and what a reader gets of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openrag_core.records import Passage
from openrag_core.retrieval.chunking import Chunk
from openrag_core.retrieval.documents import Document

_OWN = ("text", "title", "source")  # fields of a passage; the others are its metadata
_IDENTITY = ("doc_id", "tenant")
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


def readable_by_others(id_: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored with a piece, for LangChain's and LlamaIndex's Qdrant stores too.

    Beside the text come `page_content`, and a LlamaIndex node as JSON with its kind and its
    document's id under the three names that LlamaIndex gives it. `metadata`, which both show, gains
    title, source and page where the document brought none of its own; and its keys stand beside the
    text too, where LlamaIndex looks for them, unless ours have the name.

    Args:
        id_: Of the point.
        payload: From `to_payload`.
    """
    brought = payload["metadata"]
    page = brought.get("page") if payload["page"] is None else payload["page"]
    places = {"title": payload["title"], "source": payload["source"]}
    metadata = {**places, **({} if page is None else {"page": page}), **brought}
    document = payload["doc_id"]
    node = {
        "id_": id_,
        "text": payload["text"],
        "metadata": metadata,
        "relationships": {"1": {"node_id": document, "class_name": "RelatedNodeInfo"}},
        "start_char_idx": payload["start"],
        "end_char_idx": payload["end"],
        "class_name": "TextNode",
    }
    return {
        **brought,
        **payload,
        "page": page,
        "metadata": metadata,
        "page_content": payload["text"],
        "_node_content": json.dumps(node, ensure_ascii=False),
        "_node_type": "TextNode",
        "document_id": document,
        "ref_doc_id": document,
    }


def to_passage(id_: str, payload: Mapping[str, Any], score: float | None) -> Passage:
    """What is stored, as the pipeline knows it: position and document's metadata in one.

    Where a document brought a field of the same name, such as the time when it was created, its own
    is shown; what it is known by stays ours.
    """
    position = {
        key: payload[key] for key in FIELDS if key not in _OWN and payload.get(key) is not None
    }
    identity = {key: position[key] for key in _IDENTITY if key in position}
    brought = payload.get("metadata") or {}
    told = {k: value for k, value in brought.items() if value is not None or k not in position}
    return Passage(
        id=id_,
        text=payload["text"],
        title=payload["title"],
        source=payload["source"],
        metadata={**position, **told, **identity},
        retrieval_score=score,
    )
