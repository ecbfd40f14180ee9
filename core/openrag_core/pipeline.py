"""question -> draft -> gate -> retrieve -> rerank -> write one answer per passage -> score -> best.

Source: Islam et al., Open-RAG (arXiv:2410.01782), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import get_args

from openrag_core.errors import ConfigError, QuestionError
from openrag_core.gate import Gate
from openrag_core.ports import ChainRetriever, Generator, Reranker, Retriever
from openrag_core.records import (
    Answer,
    Candidate,
    Decision,
    Draft,
    Evidence,
    EvidenceMode,
    Hops,
    Passage,
    Written,
)
from openrag_core.reflection import TRAINED_WEIGHTS, UNTRAINED_WEIGHTS, ScoreWeights
from openrag_core.scoring import partly_supported, rank
from openrag_core.steps import Call, Start, Steps, arun, run
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
    evidence: EvidenceMode = "each"
    """"each": one answer per passage, of which the best is kept. "joint": one answer from all of
    them together, for questions whose facts are spread."""
    hops: Hops = 1
    """Passages in a chain that an answer is written from; >= 1. "auto" adds a second one where the
    model calls its best answer partially supported. Beyond 1 the retriever must find chains."""
    top_k: int = 5
    """Passages, or chains of them, that answers are written from; >= 1."""
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
    speculative: bool | None = None
    """Whether to look a question up while the gate still decides, by the retriever only; in vain
    where it stays shut. By default where that costs nothing: for retrievers with `local`."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.fetch_k:
            raise ConfigError(
                f"1 <= top_k <= fetch_k must hold; got top_k={self.top_k}, fetch_k={self.fetch_k}"
            )
        if self.evidence not in get_args(EvidenceMode):
            raise ConfigError(
                f"evidence must be one of {', '.join(get_args(EvidenceMode))}; "
                f"got {self.evidence!r}"
            )
        self._check_hops()
        if self.gate.mode == "f_ret" and not self.generator.reflection_trained:
            raise ConfigError(
                'gate "f_ret" needs a model with trained reflection tokens, and this one has none: '
                'use "f_minp", "f_meanp", "always" or "never"'
            )

    def _check_hops(self) -> None:
        check_hops(self.hops)
        if self.hops != 1 and not isinstance(self.retriever, ChainRetriever):
            raise ConfigError(
                f"hops={self.hops!r} needs a retriever that finds chains: give "
                "openrag_core.retrieval.MultihopRetriever(retriever, reranker=...)"
            )
        if self.hops == "auto" and not self.generator.reflection_trained:
            raise ConfigError(
                'hops="auto" needs a model with trained reflection tokens, and this one has none: '
                "give a number"
            )

    def answer(self, question: str) -> Answer:
        """Answer one question; see `answer_many`."""
        return self.answer_many([question])[0]

    def answer_many(self, questions: Sequence[str]) -> list[Answer]:
        """Answer questions together: each stage runs once, for all of them.

        Args:
            questions: None of them blank.

        Returns:
            One answer per question, in their order.

        Raises:
            QuestionError: A question is blank, or longer than the model can hold.
            OpenRAGError: A part failed; the message says why.
        """
        return run(self._answer(questions))

    def answer_from(self, question: str, passages: Sequence[Passage]) -> Answer:
        """Answer one question from passages that are already found; the gate is not asked.

        The reranker scores them anew, all of them, for scores of other retrievers have no scale.
        """
        return run(self._answer_from(question, passages))

    def retrieve(self, question: str) -> list[Passage]:
        """The passages that an answer to the question would be written from, best first."""
        return run(self._retrieve(question))

    async def aanswer(self, question: str) -> Answer:
        """Answer one question; see `aanswer_many`."""
        return (await self.aanswer_many([question]))[0]

    async def aanswer_many(self, questions: Sequence[str]) -> list[Answer]:
        """As `answer_many`; the event loop goes on, and cancelling the task stops the model."""
        return await arun(self._answer(questions))

    async def aanswer_from(self, question: str, passages: Sequence[Passage]) -> Answer:
        """As `answer_from`; the event loop goes on."""
        return await arun(self._answer_from(question, passages))

    async def aretrieve(self, question: str) -> list[Passage]:
        """As `retrieve`; the event loop goes on."""
        return await arun(self._retrieve(question))

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

    def _answer(self, questions: Sequence[str]) -> Steps[list[Answer]]:
        check_questions(questions)
        clock = _Stopwatch()
        ahead = (yield Start(self._search(questions, clock))) if self._speculates else None
        try:
            decided = yield from self._decide(questions, clock)
            rows = [row for row, (decision, _) in enumerate(decided) if decision.retrieve]
            reading = [questions[row] for row in rows]
            if ahead and rows:
                everything = yield ahead
                found = [everything[row] for row in rows]
            else:
                found = yield from self._search(reading, clock)
        finally:
            if ahead:
                ahead.cancel()
        chains = yield from self._chains(reading, found, clock)
        candidates = iter((yield from self._read(reading, chains, clock)))
        return [
            conclude(
                question=question,
                decision=decision,
                draft=draft,
                candidates=next(candidates) if decision.retrieve else (),
                minima=self.minima,
                seconds=dict(clock.seconds),
            )
            for question, (decision, draft) in zip(questions, decided, strict=True)
        ]

    def _answer_from(self, question: str, passages: Sequence[Passage]) -> Steps[Answer]:
        check_questions([question])
        clock = _Stopwatch()
        ranked = yield from self._rerank([question], [passages], max(1, len(passages)), clock)
        alone = [[(passage,) for passage in own] for own in ranked]
        candidates = (yield from self._write([question], alone, clock))[0]
        return conclude(
            question=question,
            decision=Decision(retrieve=True, mode="always"),
            draft=None,
            candidates=candidates,
            minima=self.minima,
            seconds=clock.seconds,
        )

    def _retrieve(self, question: str) -> Steps[list[Passage]]:
        check_questions([question])
        clock = _Stopwatch()
        found = yield from self._search([question], clock)
        (chains,) = yield from self._chains([question], found, clock)
        return _flat(chains)

    def _decide(
        self, questions: Sequence[str], clock: _Stopwatch
    ) -> Steps[list[tuple[Decision, Draft | None]]]:
        """The gate's decision on each question, with the draft where one had to be written."""
        gate = self.gate
        if gate.mode == "always":
            return [(Decision(retrieve=True, mode="always"), None) for _ in questions]
        with clock("draft"):
            if gate.mode == "f_ret":
                asked = yield Call(self.generator, "request", (questions,))
                decisions = [gate.by_request(logprobs) for logprobs in asked]
                pairs = zip(questions, decisions, strict=True)
                known = [question for question, decision in pairs if not decision.retrieve]
                drafts = iter((yield Call(self.generator, "draft", (known,))) if known else ())
                return [(d, None if d.retrieve else next(drafts)) for d in decisions]
            if gate.mode == "never":
                written = yield Call(self.generator, "draft", (questions,))
                return [(Decision(retrieve=False, mode="never"), draft) for draft in written]
            written = yield Call(self.generator, "draft", (questions, gate.settled))
            return [(gate.by_confidence(draft), draft) for draft in written]

    @property
    def _speculates(self) -> bool:
        if self.gate.mode in {"always", "never"}:
            return False
        local = bool(getattr(self.retriever, "local", False))
        return local if self.speculative is None else self.speculative

    def _search(self, questions: Sequence[str], clock: _Stopwatch) -> Steps[list[list[Passage]]]:
        if not questions:
            return []
        with clock("retrieve"):
            top_k = self.fetch_k if self.reranker or self.hops != 1 else self.top_k
            found: list[list[Passage]] = yield Call(self.retriever, "retrieve", (questions, top_k))
            return found

    def _rerank(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        top_k: int,
        clock: _Stopwatch,
    ) -> Steps[list[list[Passage]]]:
        if self.reranker is None or not questions:
            return [list(own[:top_k]) for own in passages]
        with clock("rerank"):
            arguments = (questions, passages, top_k)
            ranked: list[list[Passage]] = yield Call(self.reranker, "rerank", arguments)
            return ranked

    def _chains(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        clock: _Stopwatch,
    ) -> Steps[Chains]:
        """What answers are written from: the best passages, or chains that begin with them."""
        if self.hops in {1, "auto"}:
            ranked = yield from self._rerank(questions, passages, self.top_k, clock)
            return [[(passage,) for passage in own] for own in ranked]
        chains: Chains = [[(passage,) for passage in own] for own in passages]
        with clock("hops"):
            for hop in range(2, int(self.hops) + 1):
                kept = self.top_k if hop == self.hops else self.fetch_k
                chains = yield Call(self.retriever, "extend", (questions, chains, kept))
        return chains

    def _read(
        self, questions: Sequence[str], chains: Chains, clock: _Stopwatch
    ) -> Steps[list[tuple[Candidate, ...]]]:
        """The candidates of each question, best first; with another hop where one is asked for."""
        candidates = yield from self._write(questions, chains, clock)
        if self.hops != "auto":
            return candidates
        rows = [row for row, own in enumerate(candidates) if own and partly_supported(own[0])]
        if not rows:
            return candidates
        asked = [questions[row] for row in rows]
        with clock("hops"):
            best: Chains = [[own.evidence for own in candidates[row]] for row in rows]
            found: Chains = yield Call(self.retriever, "extend", (asked, best, self.top_k))
        longer = [
            [chain for chain in new if chain not in old]
            for new, old in zip(found, best, strict=True)
        ]
        added = yield from self._write(asked, longer, clock)
        for row, own in zip(rows, added, strict=True):
            both = sorted((*candidates[row], *own), key=lambda c: (not c.text, -c.total))
            candidates[row] = tuple(both)
        return candidates

    def _write(
        self, questions: Sequence[str], chains: Chains, clock: _Stopwatch
    ) -> Steps[list[tuple[Candidate, ...]]]:
        """Write from the evidence of each question, and put the best answer first."""
        if not questions:
            return []
        evidence = [self._evidence(own) for own in chains]
        with clock("write"):
            written: list[list[Written]] = yield Call(
                self.generator, "write", (questions, evidence)
            )
        with clock("score"):
            trained = self.generator.reflection_trained
            weights = self.weights or (TRAINED_WEIGHTS if trained else UNTRAINED_WEIGHTS)
            return [rank(own, weights, reflection_trained=trained) for own in written]

    def _evidence(self, chains: Sequence[Evidence]) -> Sequence[Evidence]:
        if self.evidence == "joint":
            return [tuple(_flat(chains))] if chains else []
        return chains


Chains = Sequence[Sequence[Evidence]]


def _flat(chains: Sequence[Evidence]) -> list[Passage]:
    """Every passage once, in the order of the chains."""
    return list({passage.id: passage for chain in chains for passage in chain}.values())


def check_hops(hops: Hops) -> None:
    """Refuse what is no number of hops.

    Raises:
        ConfigError: It is neither "auto" nor a whole number >= 1.
    """
    if hops != "auto" and not (isinstance(hops, int) and hops >= 1):
        raise ConfigError(f'hops must be a whole number >= 1, or "auto"; got {hops!r}')


def check_questions(questions: Sequence[str]) -> None:
    """Refuse questions that nothing can be answered to.

    Raises:
        QuestionError: One is blank, or holds what is no Unicode character, or they are no list.
    """
    if isinstance(questions, str):
        raise QuestionError(f"{questions!r} is one question: give a list of them")
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
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start
