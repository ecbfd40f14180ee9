"""Reranking by the generator itself: how likely it calls a passage relevant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from openrag_core.errors import ConfigError
from openrag_core.records import Passage
from openrag_core.reranking.scored import best_first


@runtime_checkable
class Judge(Protocol):
    """A generator that tells relevant passages from others; `TransformersGenerator` is one."""

    @property
    def reflection_trained(self) -> bool:
        """Whether its judgement means anything."""
        ...

    def judge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        """p([Relevant]) of each passage, in [0, 1]."""
        ...

    async def ajudge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        """The same; the event loop goes on."""
        ...


class ReflectionReranker:
    """p([Relevant]) right after the passage, one forward pass each; satisfies `Reranker`.

    Args:
        judge: A generator with trained reflection tokens.
        min_relevance: The score, in [0, 1], from which a passage counts as relevant.

    Raises:
        ConfigError: The generator's reflection tokens are not trained.
    """

    def __init__(self, judge: Judge, *, min_relevance: float = 0.5) -> None:
        if not judge.reflection_trained:
            raise ConfigError(
                'reranker "reflection" needs a model with trained reflection tokens, and this one '
                'has none: use "maxsim"'
            )
        self._judge = judge
        self.min_relevance = min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first."""
        scores = self._judge.judge(questions, passages)
        return [best_first(*pair, top_k) for pair in zip(passages, scores, strict=True)]

    async def arerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The same; the event loop goes on."""
        scores = await self._judge.ajudge(questions, passages)
        return [best_first(*pair, top_k) for pair in zip(passages, scores, strict=True)]
