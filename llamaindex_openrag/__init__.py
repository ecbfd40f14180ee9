"""Open-RAG for LlamaIndex (extra: llama-index)."""

from openrag_core._extras import need

need("llama-index", "llama_index")

from llamaindex_openrag.nodes import to_node  # noqa: E402
from llamaindex_openrag.query_engine import OpenRAGQueryEngine  # noqa: E402

__all__ = ["OpenRAGQueryEngine", "to_node"]
