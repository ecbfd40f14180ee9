"""Texts -> sparse vectors: Qdrant's own BM25, or a learned model such as SPLADE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from statistics import fmean
from typing import Any, Protocol

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet

from openrag_core.compute import choose_device
from openrag_core.errors import CheckpointError, ConfigError
from openrag_core.retrieval.encoders import fingerprint
from openrag_core.retrieval.store import SparseVector
from openrag_core.weights import checkpoint_folder
from openrag_core.words import UNSPACED_TEXT

UNSPACED = ("chinese", "japanese", "korean")
"""Languages whose words white space does not tell; they are searched by pairs of characters."""


class SparseEncoder(Protocol):
    """Texts -> the weights of their terms."""

    @property
    def name(self) -> str:
        """Tells encoders apart; what stands before a "/" names the vector in the store."""
        ...

    @property
    def idf(self) -> bool:
        """Whether the engine shall multiply by the terms' inverse document frequency."""
        ...

    def fit(self, sample: Sequence[str]) -> Mapping[str, Any]:
        """Look at the first passages of a new index; what comes back is kept with it."""
        ...

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take up what `fit` gave when the index was made."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text."""
        ...

    def encode_questions(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text."""
        ...


class Bm25Encoder:
    """Term weights of BM25, as the Qdrant engine computes them; it multiplies by IDF itself.

    Vectors are those of the server's own model "qdrant/bm25" with the same settings, but for the
    languages in `UNSPACED`, whose texts are cut into pairs of characters first.

    Args:
        language: Of stop words and stemmer, for instance "english".
        average_length: Of the corpus' passages, in terms; > 0. By default fitted on the first
            passages of an index.

    Raises:
        ConfigError: The language is not known, or the length not above 0.
    """

    idf = True

    def __init__(self, language: str = "english", average_length: float | None = None) -> None:
        self.name = f"bm25/{language}"
        self._language = language
        self._given = average_length
        self._model = self._bm25(avg_len=average_length)

    def fit(self, sample: Sequence[str]) -> Mapping[str, Any]:
        """Take the mean number of terms as the average length, unless one was given; at least 1."""
        length = self._given
        if length is None:
            # Without length normalisation and with a huge k, a term's weight is its frequency.
            counter = self._bm25(k=1e6, b=0.0)
            terms = (sum(counter.embed_document(self._spaced(text)).values) for text in sample)
            length = max(1.0, round(fmean(terms), 1))
        fitted = {"average_length": length}
        self.restore(fitted)
        return fitted

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Use the average length that the index was made with."""
        self._model = self._bm25(avg_len=float(fitted["average_length"]))

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """The weight of each term: f (k + 1) / (f + k (1 - b + b length / average_length)).

        f is the term's frequency in the text; k is 1.2 and b 0.75.
        """
        return [_vector(self._model.embed_document(self._spaced(text))) for text in texts]

    def encode_questions(self, texts: Sequence[str]) -> list[SparseVector]:
        """1 for each term."""
        return [_vector(self._model.embed_query(self._spaced(text))) for text in texts]

    def _spaced(self, text: str) -> str:
        if self._language not in UNSPACED:
            return text
        return UNSPACED_TEXT.sub(lambda run: f" {_pairs(run.group())} ", text)

    def _bm25(self, **settings: Any) -> Bm25:
        if self._language in UNSPACED:
            settings |= {"stopwords": StopwordsSet(custom=set()), "stemmer": DisabledStemmer()}
        else:
            settings |= {"language": self._language}
        try:
            return Bm25(Bm25Config(**settings))
        except ValueError as error:
            raise ConfigError(
                f"BM25: {error}; give a language in English and small letters, such as english, "
                f"german, spanish, russian, {', '.join(UNSPACED)}"
            ) from error


class SpladeEncoder:
    """Learned term weights, from a sentence-transformers sparse model such as SPLADE.

    Args:
        path_or_name: A folder, or a name on a model hub.
        device: Such as "cpu" or "cuda"; by default the GPU where there is one.

    Raises:
        CheckpointError: The model cannot be loaded.
    """

    idf = False  # the weights hold it already

    def __init__(self, path_or_name: str | PathLike[str], *, device: str | None = None) -> None:
        from sentence_transformers import SparseEncoder as Model  # noqa: PLC0415  (takes seconds)

        folder = checkpoint_folder(path_or_name)
        try:
            self._model = Model(str(folder), device=str(choose_device(device)))
        except Exception as error:  # a damaged file makes the libraries raise anything
            raise CheckpointError(f"no sparse encoder in {folder}: {error}") from error
        self.name = f"splade/{fingerprint(folder)}"

    def fit(self, sample: Sequence[str]) -> Mapping[str, Any]:  # noqa: ARG002  (the Protocol's)
        """Nothing depends on the corpus."""
        return {}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Nothing depends on the corpus."""

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text."""
        return self._encode(self._model.encode_document, texts)

    def encode_questions(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text."""
        return self._encode(self._model.encode_query, texts)

    @staticmethod
    def _encode(encode: Any, texts: Sequence[str]) -> list[SparseVector]:  # noqa: ANN401
        if not texts:
            return []
        rows = encode(
            list(texts),
            show_progress_bar=False,
            convert_to_tensor=False,
            convert_to_sparse_tensor=True,
        )
        found = (row.coalesce() for row in rows)
        return [SparseVector(row.indices()[0].tolist(), row.values().tolist()) for row in found]


def _pairs(run: str) -> str:
    return " ".join(run[n : n + 2] for n in range(max(1, len(run) - 1)))


def _vector(vector: Any) -> SparseVector:  # noqa: ANN401  (the stub lacks its properties)
    return SparseVector(vector.indices, vector.values)
