"""Reranking by a cross-encoder, which reads question and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from sentence_transformers import CrossEncoder
from torch.nn import Sigmoid

from openrag_core.errors import CheckpointError
from openrag_core.records import Passage
from openrag_core.reranking.scored import best_first, split
from openrag_core.weights import checkpoint_folder, quietly
from openrag_core.words import well_formed


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder; satisfies the `Reranker` port.

    Args:
        path_or_name: A folder, or a name on a model hub.
        min_relevance: The score, in [0, 1], from which a passage counts as relevant.
        device: Such as "cpu" or "cuda".

    Raises:
        CheckpointError: The model cannot be loaded.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        min_relevance: float = 0.5,
        device: str | None = None,
    ) -> None:
        folder = checkpoint_folder(path_or_name, otherwise="maxsim, reflection, cohere or none")
        try:
            with quietly():
                self._model = CrossEncoder(
                    str(folder), device=device, activation_fn=Sigmoid(), num_labels=1
                )
        except Exception as error:  # a damaged file makes the libraries raise anything
            raise CheckpointError(f"no cross-encoder in {folder}: {error}") from error
        self.min_relevance = min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first."""
        pairs = [
            (well_formed(question), well_formed(passage.titled_text))
            for question, own in zip(questions, passages, strict=True)
            for passage in own
        ]
        scores = self._model.predict(pairs, show_progress_bar=False).tolist() if pairs else []
        each = zip(passages, split(scores, passages), strict=True)
        return [best_first(own, theirs, top_k) for own, theirs in each]
