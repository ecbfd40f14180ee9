"""What every reranker does: score the passages of each question, and put the best ones first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import isnan

from openrag_core.records import Passage


def best_first(passages: Sequence[Passage], scores: Iterable[float], top_k: int) -> list[Passage]:
    """The `top_k` best passages with their scores; ties keep their order.

    A score that is no number is the worst.
    """
    pairs = sorted(zip(passages, scores, strict=True), key=lambda pair: (isnan(pair[1]), -pair[1]))
    return [replace(passage, rerank_score=score) for passage, score in pairs[:top_k]]


def split(flat: Iterable[float], like: Sequence[Sequence[Passage]]) -> Iterator[list[float]]:
    """Scores of all passages, one after the other -> those of each question."""
    rest = iter(flat)
    return ([next(rest) for _ in own] for own in like)
