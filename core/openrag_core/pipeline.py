"""question -> draft -> gate -> retrieve -> rerank -> write one answer per passage -> score -> best.

Source: Islam et al., Open-RAG (arXiv:2410.01782), section 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import perf_counter

from openrag_core.errors import ConfigError, QuestionError
from openrag_core.gate import Gate
from openrag_core.ports import Generator, Reranker, Retriever
from openrag_core.records import Answer, Candidate, Decision, Draft, Passage
from openrag_core.reflection import TRAINED_WEIGHTS, UNTRAINED_WEIGHTS, ScoreWeights
from openrag_core.scoring import rank
from openrag_core.verdict import Minima, conclude

MIN_REL = 0.5  # [Relevant] is likelier than [Irrelevant]
MIN_SUP = 0.25  # halfway between no support and partial support


@dataclass(frozen=True, slots=True)
class OpenRAG:
    """Answers questions from passages, with the evidence for each answer.

    Raises:
        ConfigError: A setting is outside its range, or asks for reflection tokens of a model in
            which they are not trained.
    """

    generator: Generator
    retriever: Retriever
    reranker: Reranker | None = None
    gate: Gate = field(default_factory=Gate)
    """By default every question is looked up: a confident draft about private documents is a
    wrong answer."""
    top_k: int = 5
    """Passages that an answer is written from, one each; >= 1."""
    fetch_k: int = 20
    """Passages that a reranker chooses from; >= top_k. Without one, `top_k` are fetched."""
    weights: ScoreWeights | None = None
    """Of the parts of a candidate's score. By default those of the released code; while the
    model's reflection tokens are untrained, the rank of the passage alone counts."""
    min_relevance: float | None = None
    """A candidate of lower relevance is not believed. By default 0.5 for the model's own
    judgement, in its absence the reranker's minimum, and none for a bare retriever, whose scores
    cannot be compared between questions."""
    min_support: float | None = None
    """The same for support, 0.25 by default; without effect while the model does not judge it."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.fetch_k:
            raise ConfigError(
                f"1 <= top_k <= fetch_k must hold; got top_k={self.top_k}, fetch_k={self.fetch_k}"
            )
        if self.gate.mode == "f_ret" and not self.generator.reflection_trained:
            raise ConfigError(
                'gate "f_ret" needs a model with trained reflection tokens, and this one has none: '
                'use "f_minp", "f_meanp", "always" or "never"'
            )

    def answer(self, question: str) -> Answer:
        """Answer one question; see `answer_many`."""
        return self.answer_many([question])[0]

    async def aanswer(self, question: str) -> Answer:
        """Answer one question in a thread of its own, so that the event loop goes on."""
        return await asyncio.to_thread(self.answer, question)

    def answer_many(self, questions: Sequence[str]) -> list[Answer]:
        """Answer questions together: each stage runs once, for all of them.

        Args:
            questions: None of them blank.

        Returns:
            One answer per question, in their order.

        Raises:
            QuestionError: A question is blank, or longer than the model can hold.
        """
        check_questions(questions)
        clock = _Stopwatch()
        decided = list(zip(questions, self._decide(questions, clock), strict=True))
        reading = [question for question, (decision, _) in decided if decision.retrieve]
        passages = self._find(reading, clock)
        candidates = iter(self._read(reading, passages, clock))
        return [
            conclude(
                question=question,
                decision=decision,
                draft=draft,
                candidates=next(candidates) if decision.retrieve else (),
                minima=self.minima,
                seconds=dict(clock.seconds),
            )
            for question, (decision, draft) in decided
        ]

    def answer_from(self, question: str, passages: Sequence[Passage]) -> Answer:
        """Answer one question from passages that are already found; the gate is not asked.

        The reranker scores them anew, all of them, for scores of other retrievers have no scale.
        """
        check_questions([question])
        clock = _Stopwatch()
        ranked = self._rerank([question], [passages], max(1, len(passages)), clock)
        candidates = self._read([question], ranked, clock)[0]
        decision = Decision(retrieve=True, mode="always")
        return conclude(
            question=question,
            decision=decision,
            draft=None,
            candidates=candidates,
            minima=self.minima,
            seconds=clock.seconds,
        )

    def retrieve(self, question: str) -> list[Passage]:
        """The passages that an answer to the question would be written from, best first."""
        check_questions([question])
        return self._find([question], _Stopwatch())[0]

    @property
    def minima(self) -> Minima:
        """What a candidate must reach to be believed."""
        if self.generator.reflection_trained:
            relevance, support = MIN_REL, MIN_SUP
        else:
            relevance, support = self.reranker.min_relevance if self.reranker else -inf, -inf
        return Minima(
            relevance if self.min_relevance is None else self.min_relevance,
            support if self.min_support is None else self.min_support,
        )

    def _decide(
        self, questions: Sequence[str], clock: _Stopwatch
    ) -> list[tuple[Decision, Draft | None]]:
        """The gate's decision on each question, with the draft where one had to be written."""
        if self.gate.mode == "always":
            return [(Decision(retrieve=True, mode="always"), None) for _ in questions]
        with clock("draft"):
            if self.gate.mode == "f_ret":
                asked = self.generator.request(questions)
                decisions = [self.gate.by_request(logprobs) for logprobs in asked]
                pairs = zip(questions, decisions, strict=True)
                drafts = iter(self.generator.draft([q for q, d in pairs if not d.retrieve]))
                return [(d, None if d.retrieve else next(drafts)) for d in decisions]
            written = self.generator.draft(questions)
            if self.gate.mode == "never":
                return [(Decision(retrieve=False, mode="never"), draft) for draft in written]
            return [(self.gate.by_confidence(draft), draft) for draft in written]

    def _find(self, questions: Sequence[str], clock: _Stopwatch) -> list[list[Passage]]:
        if not questions:
            return []
        with clock("retrieve"):
            top_k = self.fetch_k if self.reranker else self.top_k
            passages = self.retriever.retrieve(questions, top_k)
        return self._rerank(questions, passages, self.top_k, clock)

    def _rerank(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        top_k: int,
        clock: _Stopwatch,
    ) -> list[list[Passage]]:
        if self.reranker is None:
            return [list(own[:top_k]) for own in passages]
        with clock("rerank"):
            return self.reranker.rerank(questions, passages, top_k)

    def _read(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], clock: _Stopwatch
    ) -> list[tuple[Candidate, ...]]:
        """The candidates of each question, best first."""
        if not questions:
            return []
        with clock("write"):
            written = self.generator.write(questions, passages)
        with clock("score"):
            trained = self.generator.reflection_trained
            weights = self.weights or (TRAINED_WEIGHTS if trained else UNTRAINED_WEIGHTS)
            return [rank(own, weights, reflection_trained=trained) for own in written]


def check_questions(questions: Sequence[str]) -> None:
    """Refuse questions that nothing can be answered to.

    Raises:
        QuestionError: One is blank, or holds what is no Unicode character.
    """
    for question in questions:
        if not question.strip():
            raise QuestionError("the question is empty: ask something")
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise QuestionError(
                f"the question {question!r} holds what is no Unicode character: "
                "check the terminal's encoding"
            ) from error


class _Stopwatch:
    """Wall time of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[stage] = perf_counter() - start
