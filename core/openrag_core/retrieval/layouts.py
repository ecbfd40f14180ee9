"""How others store a passage in Qdrant: which payload key holds what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openrag_core.errors import FilterError, IndexMismatchError
from openrag_core.filters import Condition, Field, Filter
from openrag_core.records import Passage
from openrag_core.retrieval.payload import to_passage
from openrag_core.retrieval.store import Hit

NODE = "_node_content"  # a whole LlamaIndex node as JSON
_NODE_KEYS = {NODE, "_node_type", "document_id", "doc_id", "ref_doc_id"}
_OURS = {"text", "title", "source", "doc_id", "chunk", "content_hash"}
_SOURCES = ("source", "file_path", "file_name")  # the first that is there counts
_BELOW = "metadata."


@dataclass(frozen=True, slots=True)
class Layout:
    """Where text and metadata lie in a payload, and what our fields are called there."""

    content: str
    """Payload key of the text; `_node_content` holds it inside a node."""
    metadata: str
    """Payload key of the metadata; empty where they lie beside the text."""
    ours: bool = field(default=False)
    """Whether it is the payload of our own indexes."""

    def text(self, hit: Hit) -> str:
        """The text of a point.

        Raises:
            IndexMismatchError: It is not where it should be.
        """
        found = hit.payload.get(self.content)
        if self.content == NODE and isinstance(found, str):
            found = _text_of_node(found)
        if not isinstance(found, str):
            raise IndexMismatchError(
                f"the point {hit.id} has no text under {self.content!r}, as the first one has: its "
                f"payload holds {_named(hit.payload)}. Give content_key, or leave such points out "
                "by a filter"
            )
        return found

    def document(self, hit: Hit) -> str:
        """What the point is a piece of: the document that it names, or else its source."""
        metadata = self._metadata(hit.payload)
        known = hit.payload["doc_id"] if self.ours else metadata.get("doc_id")
        return str(known or _first(metadata, *_SOURCES) or hit.id)

    def passage(self, hit: Hit) -> Passage:
        """The point as the pipeline knows it; its metadata are all there."""
        if self.ours:
            return to_passage(hit.id, hit.payload, hit.score)
        metadata = self._metadata(hit.payload)
        return Passage(
            id=hit.id,
            text=self.text(hit),
            title=str(_first(metadata, "title") or ""),
            source=str(_first(metadata, *_SOURCES) or ""),
            metadata=metadata,
            retrieval_score=hit.score,
        )

    def condition(self, condition: Condition) -> Filter:
        """The condition on our field, of theirs."""
        if self.ours:
            return condition
        if condition.field == "text":
            if self.content == NODE:
                raise FilterError(
                    "LlamaIndex keeps the text of a node inside another field: filter by metadata"
                )
            return _renamed(condition, self.content)
        if condition.field != "source":
            return _renamed(condition, self._key(condition.field.removeprefix(_BELOW)))
        *others, last = (self._key(name) for name in _SOURCES)
        either: Filter = _renamed(condition, last)
        for key in reversed(others):
            there = Field(key).exists
            either = (there & _renamed(condition, key)) | (~there & either)
        return either

    def _key(self, name: str) -> str:
        return f"{self.metadata}.{name}" if self.metadata else name

    def _metadata(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        if self.metadata:
            nested = payload.get(self.metadata)
            return dict(nested) if isinstance(nested, Mapping) else {}
        left_out = _NODE_KEYS if self.content == NODE else {self.content}
        beside = {key: value for key, value in payload.items() if key not in left_out}
        document = payload.get("doc_id") if self.content == NODE else None
        known = {} if document in {None, "None"} else {"doc_id": document}
        return beside | known


OPENRAG = Layout("text", "metadata", ours=True)
LANGCHAIN = Layout("page_content", "metadata")
LLAMAINDEX = Layout(NODE, "")


def find_layout(
    payload: Mapping[str, Any], content: str | None, metadata: str | None, address: str
) -> Layout:
    """The layout of a collection.

    Args:
        payload: Of any point in it.
        content: Payload key of the text, where the user names it.
        metadata: Of the metadata, likewise; empty where they lie beside the text.
        address: Of the collection, for messages.

    Raises:
        IndexMismatchError: It is none that is known, and no key was named; or a key is not there.
    """
    known = _known(payload)
    if content is None and metadata is None and known is not None:
        return known
    content = content or (known.content if known else None)
    if content is None or content not in payload or (metadata and metadata not in payload):
        named = "" if content is None else f", and neither are {content!r} and {metadata!r}"
        raise IndexMismatchError(
            f"the payload in {address} holds {_named(payload)}, which is none of the layouts of "
            f"langchain-qdrant, LlamaIndex and openrag{named}: give content_key, the key of the "
            "text, and metadata_key, that of the metadata ('' where they lie beside the text)"
        )
    if metadata is None:
        metadata = "metadata" if isinstance(payload.get("metadata"), Mapping) else ""
    return Layout(content, metadata)


def _known(payload: Mapping[str, Any]) -> Layout | None:
    if payload.keys() >= _OURS:
        return OPENRAG
    if NODE in payload:
        return LLAMAINDEX
    return LANGCHAIN if "page_content" in payload else None


def _text_of_node(content: str) -> str | None:
    try:
        node = json.loads(content)
        return node.get("text") or (node.get("text_resource") or {}).get("text") or ""
    except (ValueError, AttributeError):
        return None


def _first(metadata: Mapping[str, Any], *names: str) -> Any:  # noqa: ANN401  (whatever is stored)
    """The first of these that is there, as `Field.exists` means it."""
    return next((metadata[name] for name in names if metadata.get(name) not in (None, [])), None)


def _renamed(condition: Condition, key: str) -> Condition:
    return Condition(key, condition.operator, condition.value)


def _named(payload: Mapping[str, Any]) -> str:
    return ", ".join(sorted(payload)) or "nothing"
