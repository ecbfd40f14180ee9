"""Our passages in LlamaIndex's types, and back."""

from __future__ import annotations

from llama_index.core.schema import NodeWithScore, TextNode

from openrag_core import Candidate, Passage


def to_node(passage: Passage, candidate: Candidate | None = None) -> NodeWithScore:
    """A passage as a node; its score is that of the answer from it, where there is one."""
    node = TextNode(
        id_=passage.id,
        text=passage.text,
        metadata={**passage.metadata, "title": passage.title, "source": passage.source},
        excluded_llm_metadata_keys=list(passage.metadata),  # hashes and dates say nothing to it
        excluded_embed_metadata_keys=list(passage.metadata),
    )
    score = passage.rank_score if candidate is None else candidate.total
    return NodeWithScore(node=node, score=score)


def to_passage(scored: NodeWithScore) -> Passage:
    """A node, of whatever retriever, as a passage."""
    metadata = dict(scored.node.metadata)
    return Passage(
        id=scored.node.node_id,
        text=scored.node.get_content(),
        title=str(metadata.pop("title", None) or ""),
        source=str(metadata.pop("source", None) or metadata.get("file_path", "")),
        metadata=metadata,
        retrieval_score=scored.score,
    )
