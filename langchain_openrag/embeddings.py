"""Any LangChain embeddings as the dense encoder of an index."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

from openrag_core.retrieval.encoders import unit_vectors


class EmbeddingsEncoder:
    """Satisfies `DenseEncoder`.

    Pieces of documents are cut by characters, four to a token, since embeddings do not tell their
    tokens.

    Args:
        embeddings: Asked once for the length of its vectors.
        name: Of the model; the index remembers it, and refuses to be searched with another.
    """

    tokenizer = None

    def __init__(self, embeddings: Embeddings, *, name: str) -> None:
        self._embeddings = embeddings
        self.name = name
        self.dimension = len(embeddings.embed_query("length"))

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors(self._embeddings.embed_documents(list(texts))) if texts else []

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors([self._embeddings.embed_query(text) for text in texts])
