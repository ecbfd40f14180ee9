"""Open-RAG for LangChain (extra: langchain)."""

from openrag_core._extras import need

need("langchain", "langchain_core")

from langchain_openrag.documents import to_document  # noqa: E402
from langchain_openrag.runnable import OpenRAGRunnable, RunnableOutput  # noqa: E402

__all__ = ["OpenRAGRunnable", "RunnableOutput", "to_document"]
