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
from llamaindex_openrag.llm import OpenRAGLLM  # noqa: E402
from llamaindex_openrag.nodes import from_documents, to_node  # noqa: E402
from llamaindex_openrag.ports import (  # noqa: E402
    LlamaIndexChat,
    LlamaIndexReranker,
    LlamaIndexRetriever,
)
from llamaindex_openrag.postprocessor import OpenRAGPostprocessor  # noqa: E402
from llamaindex_openrag.query_engine import OpenRAGQueryEngine  # noqa: E402
from llamaindex_openrag.retriever import OpenRAGRetriever  # noqa: E402
from llamaindex_openrag.synthesizer import OpenRAGSynthesizer  # noqa: E402
from llamaindex_openrag.workflow import (  # noqa: E402
    CandidateWrittenEvent,
    DecidedEvent,
    OpenRAGWorkflow,
    QuestionEvent,
    RetrievedEvent,
    TextEvent,
)

__all__ = [
    "CandidateWrittenEvent",
    "DecidedEvent",
    "EmbeddingEncoder",
    "EncoderEmbedding",
    "LlamaIndexChat",
    "LlamaIndexReranker",
    "LlamaIndexRetriever",
    "OpenRAGLLM",
    "OpenRAGPostprocessor",
    "OpenRAGQueryEngine",
    "OpenRAGRetriever",
    "OpenRAGSynthesizer",
    "OpenRAGWorkflow",
    "QuestionEvent",
    "RetrievedEvent",
    "TextEvent",
    "from_documents",
    "from_metadata_filters",
    "sparse_doc_fn",
    "sparse_query_fn",
    "to_metadata_filters",
    "to_node",
]
