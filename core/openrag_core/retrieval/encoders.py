"""Texts -> dense vectors."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import file_digest
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor

from openrag_core._extras import need
from openrag_core.compute import choose_device, choose_dtype
from openrag_core.errors import CheckpointError, ConfigError, IndexMismatchError
from openrag_core.weights import checkpoint_folder, quietly
from openrag_core.words import well_formed

Backend = Literal["torch", "openvino"]


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
    def tokenizer(self) -> Tokenizer | None:
        """Counts the tokens of a text as this encoder does; None where that is not known."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        ...

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
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
        question_prefix: What the model wants before a question, such as "query: ".
        passage_prefix: What it wants before a passage, such as "passage: ".
        backend: "openvino" (extra: fast) is faster on CPUs, with the same vectors.

    Raises:
        CheckpointError: The model cannot be loaded.
        ConfigError: There is no such backend.
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        name: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | None = None,
        question_prefix: str = "",
        passage_prefix: str = "",
        backend: Backend = "torch",
    ) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  (takes seconds)

        if backend not in get_args(Backend):
            raise ConfigError(
                f"backend must be one of {', '.join(get_args(Backend))}; got {backend!r}"
            )
        if backend == "openvino":
            need("fast", "openvino")
        where = torch.device("cpu") if backend == "openvino" else choose_device(device)
        dtype = torch.float32 if backend == "openvino" else choose_dtype(dtype, where)
        folder = checkpoint_folder(path_or_name)
        try:
            with quietly():
                self.model = SentenceTransformer(
                    str(folder), device=str(where), model_kwargs={"dtype": dtype}
                )
        except Exception as error:  # a damaged file makes the libraries raise anything
            raise CheckpointError(f"no dense encoder in {folder}: {error}") from error
        self.name = name or fingerprint(folder)
        if question_prefix or passage_prefix:
            self.name += f" {question_prefix!r} {passage_prefix!r}"
        self.dimension: int = self.model.get_embedding_dimension() or 0
        self.tokenizer: Tokenizer = self.model.tokenizer.backend_tokenizer
        self.max_tokens: int | None = self.model.max_seq_length
        self._question_prefix, self._passage_prefix = question_prefix, passage_prefix
        if backend == "openvino":
            from openrag_core.retrieval.openvino import compile_encoder  # noqa: PLC0415

            compile_encoder(self.model)

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return self._encode([self._passage_prefix + well_formed(text) for text in texts])

    def encode_questions(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors; shape (len(texts), dimension)."""
        return self._encode([self._question_prefix + well_formed(text) for text in texts])

    def _encode(self, texts: list[str]) -> list[list[float]]:
        if not texts:
            return []
        vectors: Any = self.model.encode(texts, show_progress_bar=False, convert_to_tensor=True)
        return unit_vectors(vectors)  # the model's own option rounds lengths to bfloat16

    def encode_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit vectors of every token; one tensor of shape (tokens, dimension) per text."""
        tokens = self.model.encode(
            list(map(well_formed, texts)),
            output_value="token_embeddings",
            show_progress_bar=False,
        )
        return [torch.nn.functional.normalize(matrix.float(), dim=-1) for matrix in tokens]


def unit_vectors(vectors: Tensor | Sequence[Sequence[float]]) -> list[list[float]]:
    """The same directions, of length 1."""
    rows = torch.as_tensor(vectors).float()
    unit: list[list[float]] = torch.nn.functional.normalize(rows, dim=-1).tolist()
    return unit


def checked_vectors(encoder: DenseEncoder, vectors: list[list[float]]) -> list[list[float]]:
    """The vectors, if they are as long as the encoder says.

    Raises:
        IndexMismatchError: They are not.
    """
    if vectors and len(vectors[0]) != encoder.dimension:
        raise IndexMismatchError(
            f"the encoder {encoder.name!r} gave vectors of length {len(vectors[0])}, and the index "
            f"holds such of length {encoder.dimension}: use the encoder that it was made with"
        )
    return vectors


def fingerprint(folder: Path) -> str:
    """The folder's name, and a digest of (the first file of) its weights."""
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        return folder.resolve().name
    with files[0].open("rb") as file:
        return f"{folder.resolve().name}@{file_digest(file, 'sha256').hexdigest()[:12]}"
