"""Open-RAG for LlamaIndex (extra: llama-index)."""

from openrag_core._extras import need

need("llama-index", "llama_index")

from llamaindex_openrag.embeddings import (  # noqa: E402
    EmbeddingEncoder,
    EncoderEmbedding,
    sparse_doc_fn,
    sparse_query_fn,
)
from llamaindex_openrag.filters import from_metadata_filters, to_metadata_filters  # noqa: E402
from llamaindex_openrag.nodes import from_documents, to_node  # noqa: E402
from llamaindex_openrag.query_engine import OpenRAGQueryEngine  # noqa: E402

__all__ = [
    "EmbeddingEncoder",
    "EncoderEmbedding",
    "OpenRAGQueryEngine",
    "from_documents",
    "from_metadata_filters",
    "sparse_doc_fn",
    "sparse_query_fn",
    "to_metadata_filters",
    "to_node",
]
