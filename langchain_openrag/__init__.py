"""Open-RAG for LangChain (extra: langchain)."""

from openrag_core._extras import need

need("langchain", "langchain_core")

from langchain_openrag.context import chat_model_context  # noqa: E402
from langchain_openrag.documents import from_documents, to_document  # noqa: E402
from langchain_openrag.embeddings import EmbeddingsEncoder, EncoderEmbeddings  # noqa: E402
from langchain_openrag.runnable import OpenRAGRunnable, RunnableOutput  # noqa: E402

__all__ = [
    "EmbeddingsEncoder",
    "EncoderEmbeddings",
    "OpenRAGRunnable",
    "RunnableOutput",
    "chat_model_context",
    "from_documents",
    "to_document",
]
