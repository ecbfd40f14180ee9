"""LangChain's embeddings as our dense encoder, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

from openrag_core.retrieval.encoders import DenseEncoder, unit_vectors


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


class EncoderEmbeddings(Embeddings):
    """A dense encoder of ours wherever LangChain takes embeddings; async calls use a thread.

    Args:
        encoder: Such as `index.encoder`, to search our index with LangChain's store.
    """

    def __init__(self, encoder: DenseEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of passages."""
        return self.encoder.encode_passages(texts)

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a question."""
        return self.encoder.encode_questions([text])[0]
