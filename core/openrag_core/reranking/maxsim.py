"""Reranking by token similarity, with the dense encoder that is there already.

    score = mean over the question's tokens of (max over the passage's tokens of cosine)

Source: late interaction, Khattab and Zaharia, ColBERT (arXiv:2004.12832), section 3.3; the mean
instead of the sum makes questions of any length comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from openrag_core.records import Passage
from openrag_core.reranking.scored import best_first, split

_TOGETHER = 256  # passages whose token vectors are in memory


@runtime_checkable
class TokenEncoder(Protocol):
    """Texts -> one vector per token."""

    def encode_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit vectors; one tensor of shape (tokens, dimension) per text."""
        ...


class MaxSimReranker:
    """Works offline and needs no weights of its own; satisfies the `Reranker` port.

    Args:
        encoder: Gives the vectors of single tokens.
        min_relevance: The score, in [-1, 1], from which a passage counts as relevant. It depends
            on the encoder: the default was chosen for all-MiniLM-L6-v2 (docs/results.md).
    """

    def __init__(self, encoder: TokenEncoder, *, min_relevance: float = 0.55) -> None:
        self._encoder = encoder
        self.min_relevance = min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first."""
        scores = self._scores(questions, passages)
        each = zip(passages, split(scores, passages), strict=True)
        return [best_first(own, theirs, top_k) for own, theirs in each]

    def _scores(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> Iterator[float]:
        """Of all passages, one after the other."""
        asked = self._encoder.encode_tokens(questions)
        pairs = [
            (question, passage.titled_text)
            for question, own in zip(asked, passages, strict=True)
            for passage in own
        ]
        for start in range(0, len(pairs), _TOGETHER):  # a passage takes 400 kB
            part = pairs[start : start + _TOGETHER]
            read = self._encoder.encode_tokens([text for _, text in part])
            for (question, _), passage in zip(part, read, strict=True):
                yield _max_sim(question, passage)


def _max_sim(question: Tensor, passage: Tensor) -> float:
    return (question @ passage.T).amax(dim=-1).mean().item()
