"""Documents, encoders and the Qdrant index (extra: qdrant)."""

from openrag_core._extras import need

need("qdrant", "qdrant_edge", "qdrant_client", "sentence_transformers", "semantic_text_splitter")

from openrag_core.retrieval.edge import EdgeStore  # noqa: E402
from openrag_core.retrieval.encoders import DenseEncoder, SentenceTransformerEncoder  # noqa: E402
from openrag_core.retrieval.index import IndexReport, PassageIndex  # noqa: E402
from openrag_core.retrieval.server import ServerStore  # noqa: E402
from openrag_core.retrieval.store import PointStore  # noqa: E402

__all__ = [
    "DenseEncoder",
    "EdgeStore",
    "IndexReport",
    "PassageIndex",
    "PointStore",
    "SentenceTransformerEncoder",
    "ServerStore",
]
