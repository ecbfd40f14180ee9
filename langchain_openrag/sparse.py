"""Our BM25, or SPLADE, in `langchain_qdrant.QdrantVectorStore`; needs langchain-qdrant."""

from __future__ import annotations

from openrag_core._extras import need

need("langchain-qdrant", "langchain_qdrant")

from langchain_qdrant import SparseEmbeddings  # noqa: E402
from langchain_qdrant.sparse_embeddings import SparseVector  # noqa: E402

from openrag_core.retrieval import SparseEncoder  # noqa: E402
from openrag_core.retrieval.store import SparseVector as OurVector  # noqa: E402


class EncoderSparseEmbeddings(SparseEmbeddings):
    """A sparse encoder of ours as LangChain's sparse embeddings; async calls use a thread.

    BM25 counts on the engine to multiply by the inverse document frequency: make a new collection
    with `sparse_vector_params={"modifier": models.Modifier.IDF}`.

    Args:
        encoder: Such as `index.sparse`, which is fitted to the index; or a `Bm25Encoder`, fitted to
            a sample of the texts by its `fit`.
    """

    def __init__(self, encoder: SparseEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """The terms of passages, with their weights."""
        return [_theirs(vector) for vector in self.encoder.encode_passages(texts)]

    def embed_query(self, text: str) -> SparseVector:
        """The terms of a question."""
        return _theirs(self.encoder.encode_questions([text])[0])


def _theirs(vector: OurVector) -> SparseVector:
    return SparseVector(indices=vector.indices, values=vector.values)
