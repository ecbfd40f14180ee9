"""Open-RAG for LangChain (extra: langchain); the graph is in `langchain_openrag.graph`."""

from openrag_core._extras import need

need("langchain", "langchain_core")

from langchain_openrag.chat_model import ChatOpenRAG  # noqa: E402
from langchain_openrag.compressor import (  # noqa: E402
    CohereReranker,
    CrossEncoderReranker,
    ReflectionReranker,
    RerankerCompressor,
)
from langchain_openrag.documents import from_documents, to_document, to_passage  # noqa: E402
from langchain_openrag.embeddings import EmbeddingsEncoder, EncoderEmbeddings  # noqa: E402
from langchain_openrag.output import CandidateOutput, RunnableOutput  # noqa: E402
from langchain_openrag.ports import (  # noqa: E402
    LangChainChat,
    LangChainReranker,
    LangChainRetriever,
)
from langchain_openrag.retriever import AdaptiveRetriever, OpenRAGRetriever  # noqa: E402
from langchain_openrag.runnable import OpenRAGRunnable  # noqa: E402
from langchain_openrag.tool import create_openrag_tool  # noqa: E402

__all__ = [
    "AdaptiveRetriever",
    "CandidateOutput",
    "ChatOpenRAG",
    "CohereReranker",
    "CrossEncoderReranker",
    "EmbeddingsEncoder",
    "EncoderEmbeddings",
    "LangChainChat",
    "LangChainReranker",
    "LangChainRetriever",
    "OpenRAGRetriever",
    "OpenRAGRunnable",
    "ReflectionReranker",
    "RerankerCompressor",
    "RunnableOutput",
    "create_openrag_tool",
    "from_documents",
    "to_document",
    "to_passage",
]
