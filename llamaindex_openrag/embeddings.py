"""Any LlamaIndex embedding model as the dense encoder of an index."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.embeddings import BaseEmbedding

from openrag_core.retrieval.encoders import unit_vectors


class EmbeddingEncoder:
    """Satisfies `DenseEncoder`.

    Pieces of documents are cut by characters, four to a token, since embedding models do not tell
    their tokens.

    Args:
        embedding: Asked once for the length of its vectors.
        name: The index remembers it, and refuses to be searched with another; by default the
            model's own.
    """

    tokenizer = None

    def __init__(self, embedding: BaseEmbedding, *, name: str | None = None) -> None:
        self._embedding = embedding
        self.name = name or embedding.model_name
        self.dimension = len(embedding.get_query_embedding("length"))

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors(self._embedding.get_text_embedding_batch(list(texts)))

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors([self._embedding.get_query_embedding(text) for text in texts])
