"""LlamaIndex's embedding models as our dense encoder, and our encoders in its stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import BaseEmbedding

from openrag_core import ConfigError
from openrag_core.retrieval import SparseEncoder
from openrag_core.retrieval.encoders import DenseEncoder, unit_vectors
from openrag_core.retrieval.store import SparseVector

SparseFunction = Callable[[list[str]], tuple[list[list[int]], list[list[float]]]]
"""Texts -> the indices of each, and the values of each."""
_BATCH = 64  # texts; an encoder makes its own batches of them


class EmbeddingEncoder:
    """Satisfies `DenseEncoder`.

    Pieces of documents are cut by characters, four to a token, since embedding models do not tell
    their tokens.

    Args:
        embedding: Asked once for the length of its vectors.
        name: The index remembers it, and refuses to be searched with another; by default the
            model's own.

    Raises:
        ConfigError: Neither is there, so that two models could be taken for one.
    """

    tokenizer = None

    def __init__(self, embedding: BaseEmbedding, *, name: str | None = None) -> None:
        self._embedding = embedding
        self.name = name or embedding.model_name
        if self.name in {"", "unknown"}:
            raise ConfigError(
                f"{type(embedding).__name__} does not tell its name, by which an index knows its "
                "vectors: give EmbeddingEncoder(embedding, name=...)"
            )
        self.dimension = len(embedding.get_query_embedding("length"))

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors(self._embedding.get_text_embedding_batch(list(texts)))

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return unit_vectors([self._embedding.get_query_embedding(text) for text in texts])


class EncoderEmbedding(BaseEmbedding):
    """A dense encoder of ours wherever LlamaIndex takes an embedding model.

    Async calls use a thread.

    Args:
        encoder: Such as `index.encoder`, to search our index with LlamaIndex's store.
        **settings: Of `BaseEmbedding`.
    """

    _encoder: DenseEncoder = PrivateAttr()

    def __init__(self, encoder: DenseEncoder, **settings: Any) -> None:
        super().__init__(**{"model_name": encoder.name, "embed_batch_size": _BATCH, **settings})
        self._encoder = encoder

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._encoder.encode_questions([query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._encoder.encode_passages(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def sparse_doc_fn(encoder: SparseEncoder) -> SparseFunction:
    """For `QdrantVectorStore(sparse_doc_fn=...)`: the terms of passages, with their weights.

    BM25 counts on the engine to multiply by the inverse document frequency: make a new collection
    with `sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF)`.

    Args:
        encoder: Such as `index.sparse`, which is fitted to the index; or a `Bm25Encoder`, fitted to
            a sample of the texts by its `fit`.
    """
    return lambda texts: _split(encoder.encode_passages(texts))


def sparse_query_fn(encoder: SparseEncoder) -> SparseFunction:
    """For `QdrantVectorStore(sparse_query_fn=...)`: the terms of questions."""
    return lambda texts: _split(encoder.encode_questions(texts))


def _split(vectors: Sequence[SparseVector]) -> tuple[list[list[int]], list[list[float]]]:
    return [one.indices for one in vectors], [one.values for one in vectors]
