"""Passages and documents: ours in LlamaIndex's types, and theirs in ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from openrag_core import Candidate, Passage
from openrag_core.retrieval import Document, document_from_text
from openrag_core.retrieval.payload import FIELDS


def to_node(passage: Passage, candidate: Candidate | None = None) -> NodeWithScore:
    """A passage as a node, the one that it came as; its score is that of the best answer from it.

    Args:
        passage: That answers were written from.
        candidate: The best of these, where there is one.
    """
    score = passage.rank_score if candidate is None else candidate.total
    if isinstance(passage.origin, BaseNode):
        return NodeWithScore(node=passage.origin, score=score)
    named = {"title": passage.title, "source": passage.source}
    own = [key for key in passage.metadata if key in FIELDS]  # hashes say nothing to a model
    node = TextNode(
        id_=passage.id,
        text=passage.text,
        metadata={**passage.metadata, **{key: value for key, value in named.items() if value}},
        excluded_llm_metadata_keys=own,
        excluded_embed_metadata_keys=own,
    )
    if document := passage.metadata.get("doc_id"):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=str(document))
    return NodeWithScore(node=node, score=score)


def to_passage(scored: NodeWithScore) -> Passage:
    """A node, of whatever retriever, as a passage that `to_node` gives back as it was."""
    metadata = dict(scored.node.metadata)
    return Passage(
        id=scored.node.node_id,
        text=scored.node.get_content(),
        title=str(metadata.pop("title", None) or ""),
        source=str(metadata.pop("source", None) or metadata.get("file_path") or ""),
        metadata=metadata,
        retrieval_score=None if scored.score is None else float(scored.score),
        origin=scored.node,
    )


def from_documents(documents: Iterable[BaseNode]) -> Iterator[Document]:
    """What LlamaIndex's readers give, for `PassageIndex.add_documents`.

    A document is known by the file that it was read from, where it names one, since readers give
    new ids whenever they read; otherwise by its id.

    Args:
        documents: Such as `reader.load_data()` gives; read one at a time. Those without text are
            passed over.
    """
    seen: Counter[str] = Counter()
    for document in documents:
        file = str(document.metadata.get("file_path") or "")
        seen[file] += 1
        text = document.get_content(MetadataMode.NONE)
        if not text.strip():
            continue
        yield document_from_text(
            text,
            f"{file}#{seen[file]}" if file else document.node_id,
            title=str(document.metadata.get("title") or ""),
            source=str(document.metadata.get("source") or file),
            metadata=json.loads(json.dumps(document.metadata, default=str)),
        )
