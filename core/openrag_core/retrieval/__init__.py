"""Documents, encoders and the Qdrant index (extra: qdrant)."""

from openrag_core._extras import need

need("qdrant", "qdrant_edge", "qdrant_client", "sentence_transformers", "semantic_text_splitter")

from openrag_core.retrieval.cached import CachedEncoder  # noqa: E402
from openrag_core.retrieval.chunking import Chunker  # noqa: E402
from openrag_core.retrieval.collections import QdrantCollection  # noqa: E402
from openrag_core.retrieval.contextual import (  # noqa: E402
    ChatContext,
    Contextualizer,
    NoContext,
    TitleContext,
)
from openrag_core.retrieval.copying import copy_points  # noqa: E402
from openrag_core.retrieval.documents import Document, Section, document_from_text  # noqa: E402
from openrag_core.retrieval.edge import EdgeStore  # noqa: E402
from openrag_core.retrieval.encoders import DenseEncoder, SentenceTransformerEncoder  # noqa: E402
from openrag_core.retrieval.index import PassageIndex  # noqa: E402
from openrag_core.retrieval.ingestion import IndexReport  # noqa: E402
from openrag_core.retrieval.multihop import MultihopRetriever  # noqa: E402
from openrag_core.retrieval.requests import to_qdrant  # noqa: E402
from openrag_core.retrieval.server import Server, ServerStore  # noqa: E402
from openrag_core.retrieval.sparse import Bm25Encoder, SparseEncoder, SpladeEncoder  # noqa: E402
from openrag_core.retrieval.store import PointStore  # noqa: E402

__all__ = [
    "Bm25Encoder",
    "CachedEncoder",
    "ChatContext",
    "Chunker",
    "Contextualizer",
    "DenseEncoder",
    "Document",
    "EdgeStore",
    "IndexReport",
    "MultihopRetriever",
    "NoContext",
    "PassageIndex",
    "PointStore",
    "QdrantCollection",
    "Section",
    "SentenceTransformerEncoder",
    "Server",
    "ServerStore",
    "SparseEncoder",
    "SpladeEncoder",
    "TitleContext",
    "copy_points",
    "document_from_text",
    "to_qdrant",
]
