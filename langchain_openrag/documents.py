"""Passages and documents: ours in LangChain's types, and theirs in ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from numbers import Real
from typing import Any

from langchain_core.documents import Document

import openrag_core.retrieval
from openrag_core import Candidate, DocumentError, Passage
from openrag_core.retrieval import document_from_text

_PLACES = ("page", "start_index")


def to_document(passage: Passage, candidate: Candidate | None = None) -> Document:
    """A passage as a document; its scores, and those of the answer from it, are in the metadata."""
    metadata: dict[str, Any] = {
        **passage.metadata,
        "title": passage.title,
        "source": passage.source,
        "retrieval_score": passage.retrieval_score,
        "relevance_score": passage.rank_score if candidate is None else candidate.score.relevance,
    }
    return Document(id=passage.id, page_content=passage.text, metadata=metadata)


def to_passage(document: Document) -> Passage:
    """A document, of whatever retriever, as a passage.

    Args:
        document: Its metadata may name a title, a source, and the score of what found it; without
            an id it is known by its source and its text.
    """
    metadata = dict(document.metadata)
    scores = (metadata.get(key) for key in ("retrieval_score", "relevance_score", "score"))
    return Passage(
        id=document.id or _name(document),
        text=document.page_content,
        title=str(metadata.pop("title", None) or ""),
        source=str(metadata.pop("source", None) or ""),
        metadata=metadata,
        retrieval_score=next((float(one) for one in scores if isinstance(one, Real)), None),
    )


def _name(document: Document) -> str:
    told = f"{document.metadata.get('source')}\n{document.page_content}"
    return sha256(told.encode()).hexdigest()[:32]


def from_documents(documents: Iterable[Document]) -> Iterator[openrag_core.retrieval.Document]:
    """What LangChain's loaders give, for `PassageIndex.add_documents`.

    A document is known by its id; without one, by its source and, where loaders give them, the page
    and the place in it, so that loading it again replaces it. What a source holds no more stays:
    remove it by id.

    Args:
        documents: Such as `loader.lazy_load()` gives; read one at a time. Those without text are
            passed over. Metadata that JSON cannot hold becomes a string.

    Raises:
        DocumentError: One has neither an id nor a source.
    """
    seen: Counter[str] = Counter()
    for document in documents:
        metadata = document.metadata
        source = str(metadata.get("source") or "")
        if not document.id and not source:
            raise DocumentError(
                f"a document has neither id nor metadata['source'], so that it could never be "
                f"replaced: give it one ({document.page_content[:40]!r})"
            )
        places = [f"{key}={metadata[key]}" for key in _PLACES if key in metadata]
        name = document.id or "#".join([source, *places])
        if not document.page_content.strip():
            continue
        seen[name] += 1
        yield document_from_text(
            document.page_content,
            name if seen[name] == 1 else f"{name}#{seen[name]}",
            title=str(metadata.get("title") or ""),
            source=source,
            metadata=json.loads(json.dumps(metadata, default=str)),
        )
