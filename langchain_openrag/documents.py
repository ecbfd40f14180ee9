"""Passages, documents and questions: ours in LangChain's types, and theirs in ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

import openrag_core.retrieval
from openrag_core import Candidate, DocumentError, Passage, QuestionError
from openrag_core.retrieval import document_from_text

_PLACES = ("page", "start_index")
QUESTION_KEYS = ("question", "input", "query")


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


def to_question(value: object) -> str:
    """The question in what a chain hands over.

    Args:
        value: A string; a message; a dict with "question", "input", "query" or "messages"; a
            prompt; or a list of messages, of which the last human one counts.

    Raises:
        QuestionError: There is none in it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, BaseMessage):
        return str(value.text)
    if isinstance(value, PromptValue):
        return _last_human(value.to_messages())
    if isinstance(value, Mapping):
        found = [value[key] for key in QUESTION_KEYS if isinstance(value.get(key), str)]
        if found:
            return str(found[0])
        if "messages" in value:
            return _last_human(value["messages"])
        raise QuestionError(
            f"no question in a dict with the keys {sorted(map(str, value))}: "
            f"give one of {', '.join(QUESTION_KEYS)} as a string, or messages"
        )
    if isinstance(value, Sequence):
        return _last_human(value)
    raise QuestionError(f"no question in a {type(value).__name__}: give a string, dict or messages")


def _last_human(messages: Sequence[Any]) -> str:
    try:
        converted = convert_to_messages(list(messages))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise QuestionError(f"what stands under messages are none: {error}") from error
    for message in reversed(converted):
        if isinstance(message, HumanMessage):
            return str(message.text)
    raise QuestionError(f"no human message among {len(messages)} messages: add the question")
