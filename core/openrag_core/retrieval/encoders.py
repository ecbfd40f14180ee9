"""Texts -> vectors: dense by a sentence-transformers model, sparse by Qdrant's own BM25."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import file_digest
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import Protocol

import torch
from qdrant_edge import Bm25, Bm25Config
from tokenizers import Tokenizer
from torch import Tensor

from openrag_core.compute import choose_device, choose_dtype
from openrag_core.errors import CheckpointError, ConfigError
from openrag_core.retrieval.store import SparseVector
from openrag_core.weights import checkpoint_folder


class DenseEncoder(Protocol):
    """Texts -> one vector each."""

    @property
    def name(self) -> str:
        """Tells encoders apart: vectors of one must never be searched with another."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Counts the tokens of a text as this encoder does."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        ...


class SentenceTransformerEncoder:
    """A dense encoder from a sentence-transformers model.

    Args:
        path_or_name: A folder, or a name on a model hub.
        name: How the index remembers it; by default the folder's name and a digest of its weights.
        dtype: Of the weights; by default bfloat16 where the device multiplies it natively, at
            equal ranking (cosine to float32 above .9999).
        device: Such as "cpu" or "cuda"; by default the GPU where there is one.

    Raises:
        CheckpointError: The model cannot be loaded.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        name: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | None = None,
    ) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  (takes seconds)

        where = choose_device(device)
        folder = checkpoint_folder(path_or_name)
        try:
            self.model = SentenceTransformer(
                str(folder),
                device=str(where),
                model_kwargs={"dtype": choose_dtype(dtype, where)},
            )
        except Exception as error:  # a damaged file makes the libraries raise anything
            raise CheckpointError(f"no dense encoder in {folder}: {error}") from error
        self.name = name or _name(folder)
        self.dimension: int = self.model.get_embedding_dimension() or 0
        self.tokenizer: Tokenizer = self.model.tokenizer.backend_tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        vectors = self.model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_tensor=True
        )
        return vectors.float().tolist() if texts else []

    def encode_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit vectors of every token; one tensor of shape (tokens, dimension) per text."""
        tokens = self.model.encode(
            list(texts), output_value="token_embeddings", show_progress_bar=False
        )
        return [torch.nn.functional.normalize(matrix.float(), dim=-1) for matrix in tokens]


class Bm25Encoder:
    """Term weights of BM25, as the Qdrant engine computes them; it multiplies by IDF itself.

    Args:
        average_length: Of the corpus' passages, in terms; > 0. See `average_length`.
        language: Of stop words and stemmer, for instance "english".

    Raises:
        ConfigError: The language is not known.
    """

    def __init__(self, average_length: float, language: str = "english") -> None:
        self._model = _bm25(Bm25Config(avg_len=average_length, language=language))

    def encode_passage(self, text: str) -> SparseVector:
        """The weight of each term: f (k + 1) / (f + k (1 - b + b length / average_length)).

        f is the term's frequency in the text; k is 1.2 and b 0.75.
        """
        vector = self._model.embed_document(text)
        return SparseVector(vector.indices, vector.values)

    def encode_question(self, text: str) -> SparseVector:
        """1 for each term."""
        vector = self._model.embed_query(text)
        return SparseVector(vector.indices, vector.values)


def average_length(texts: Sequence[str], language: str = "english") -> float:
    """Mean number of BM25 terms in a text, at least 1."""
    # Without length normalisation and with a huge k, a term's weight is its frequency.
    counter = _bm25(Bm25Config(k=1e6, b=0.0, language=language))
    return max(1.0, round(fmean(sum(counter.embed_document(text).values) for text in texts), 1))


def _bm25(config: Bm25Config) -> Bm25:
    try:
        return Bm25(config)
    except ValueError as error:
        raise ConfigError(f"BM25: {error}") from error


def _name(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        return folder.resolve().name
    with files[0].open("rb") as file:
        return f"{folder.resolve().name}@{file_digest(file, 'sha256').hexdigest()[:12]}"
