"""question -> draft -> gate -> retrieve -> rerank -> write one answer per passage -> score -> best.

Source: Islam et al., Open-RAG (arXiv:2410.01782), section 2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from openrag_core import steps
from openrag_core.calibration import CalibratedGate
from openrag_core.conversation import Condenser, Question
from openrag_core.errors import ConfigError
from openrag_core.events import AnswerEvent, ContextEvent, Event, GateEvent
from openrag_core.gate import Gate
from openrag_core.parts import check_together
from openrag_core.ports import Generator as GeneratorPort
from openrag_core.ports import Reranker, Retriever
from openrag_core.records import (
    Answer,
    Candidate,
    Decision,
    Draft,
    EvidenceMode,
    Hops,
    Passage,
    check_passages,
)
from openrag_core.reflection import TRAINED_WEIGHTS, UNTRAINED_WEIGHTS, ScoreWeights
from openrag_core.stages import Stages
from openrag_core.steps import Start, Steps, Tell
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

    generator: GeneratorPort
    retriever: Retriever
    reranker: Reranker | None = None
    gate: Gate | CalibratedGate = field(default_factory=Gate)
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
    """Of the parts of a candidate's score. By default those of the released code, and half for
    the passage's reciprocal rank (`ScoreWeights()` leaves that out); while the model's reflection
    tokens are untrained, what ranked the passage counts and nothing else."""
    min_relevance: float | None = None
    """A candidate of lower relevance is not believed. By default 0.5 for the model's own
    judgement, in its absence the reranker's minimum, and none for a bare retriever, whose scores
    cannot be compared between questions."""
    min_support: float | None = None
    """The same for support, 0.25 by default; without effect while the model does not judge it."""
    condenser: Condenser | None = None
    """Makes questions of a conversation stand alone; without one, they are refused."""
    speculative: bool | None = None
    """Whether to look a question up while the gate still decides, by the retriever only; in vain
    where it stays shut. By default where that costs nothing: for retrievers with `local`."""

    def __post_init__(self) -> None:
        check_together(self)
        _ = self.minima  # refuses what is no number

    def answer(self, question: Question) -> Answer:
        """Answer one question; see `answer_many`."""
        return self.answer_many([question])[0]

    def answer_many(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions together: each stage runs once, for all of them.

        Args:
            questions: None of them blank; a `Conversation` where one does not stand alone.

        Returns:
            One answer per question, in their order.

        Raises:
            QuestionError: A question is blank, or longer than the model can hold.
            ConfigError: One has a history, and there is no condenser.
            OpenRAGError: A part failed; the message says why.
        """
        return steps.run(self._answer(questions))

    def answer_from(
        self, question: Question, passages: Sequence[Passage], decision: Decision | None = None
    ) -> Answer:
        """Answer one question from passages that are already found; the gate is not asked.

        Args:
            question: Not blank.
            passages: The reranker scores them anew, all of them, for scores of other retrievers
                have no scale. Without one, best first: their order counts.
            decision: Why they were looked for, where the gate had been asked: see `decide`. One
                that does not retrieve is passed over, for they are read.
        """
        return steps.run(self._answer_from(question, passages, decision))

    def from_memory(self, question: str, decision: Decision, draft: Draft | None) -> Answer:
        """What `decide` came to, as an answer, where nothing is to be retrieved."""
        return self._conclude(question, decision, draft, (), {})

    def condense(self, question: Question) -> str:
        """The question as it stands alone.

        Raises:
            ConfigError: It has a history, and there is no condenser.
        """
        return steps.run(self._condense(question))

    def decide(self, question: Question) -> tuple[Decision, Draft | None]:
        """Ask the gate alone.

        Returns:
            Its decision, and the draft where one had to be written; there is one where nothing
            needs to be retrieved.
        """
        return steps.run(self._decide(question))

    def retrieve(self, question: Question) -> list[Passage]:
        """The passages that an answer to the question would be written from, best first."""
        return steps.run(self._retrieve(question))

    def stream(self, question: Question) -> Generator[Event]:
        """Answer one question, and tell what happens as it happens; `AnswerEvent` is the last.

        Closing the generator stops the model.

        Raises:
            OpenRAGError: As `answer_many`.
        """
        return self.stream_many([question], live=True)

    def stream_from(
        self,
        question: Question,
        passages: Sequence[Passage],
        decision: Decision | None = None,
        *,
        live: bool = True,
    ) -> Generator[Event]:
        """As `answer_from`, with what happens as it happens; `live` as in `stream_many`."""
        return steps.told(self._answer_from(question, passages, decision, live=live))

    def stream_many(self, questions: Sequence[Question], *, live: bool = False) -> Generator[Event]:
        """As `answer_many`, with what happens as it happens.

        Args:
            questions: Of which the events give the places.
            live: Whether to show text while it is written, of a single question.

        Raises:
            ConfigError: Several are to be shown live.
        """
        return steps.told(self._answer(questions, live=live))

    async def aanswer(self, question: Question) -> Answer:
        """Answer one question; see `aanswer_many`."""
        return (await self.aanswer_many([question]))[0]

    async def aanswer_many(self, questions: Sequence[Question]) -> list[Answer]:
        """As `answer_many`; the event loop goes on, and cancelling the task stops the model."""
        return await steps.arun(self._answer(questions))

    async def aanswer_from(
        self, question: Question, passages: Sequence[Passage], decision: Decision | None = None
    ) -> Answer:
        """As `answer_from`; the event loop goes on."""
        return await steps.arun(self._answer_from(question, passages, decision))

    async def acondense(self, question: Question) -> str:
        """As `condense`; the event loop goes on."""
        return await steps.arun(self._condense(question))

    async def adecide(self, question: Question) -> tuple[Decision, Draft | None]:
        """As `decide`; the event loop goes on."""
        return await steps.arun(self._decide(question))

    async def aretrieve(self, question: Question) -> list[Passage]:
        """As `retrieve`; the event loop goes on."""
        return await steps.arun(self._retrieve(question))

    def astream(self, question: Question) -> AsyncGenerator[Event]:
        """As `stream`; the event loop goes on, and cancelling the task stops the model."""
        return self.astream_many([question], live=True)

    def astream_from(
        self,
        question: Question,
        passages: Sequence[Passage],
        decision: Decision | None = None,
        *,
        live: bool = True,
    ) -> AsyncGenerator[Event]:
        """As `stream_from`; the event loop goes on."""
        return steps.atold(self._answer_from(question, passages, decision, live=live))

    def astream_many(
        self, questions: Sequence[Question], *, live: bool = False
    ) -> AsyncGenerator[Event]:
        """As `stream_many`; the event loop goes on."""
        return steps.atold(self._answer(questions, live=live))

    @property
    def score_weights(self) -> ScoreWeights:
        """Those that are used, where `weights` leaves it open."""
        trained = self.generator.reflection_trained
        return self.weights or (TRAINED_WEIGHTS if trained else UNTRAINED_WEIGHTS)

    @property
    def minima(self) -> Minima:
        """What a candidate must reach to be believed."""
        if self.generator.reflection_trained:
            relevance, support = MIN_REL, MIN_SUP
        else:
            relevance = -inf if self.judge is None else self.judge.min_relevance
            support = -inf
        return Minima(
            relevance if self.min_relevance is None else self.min_relevance,
            support if self.min_support is None else self.min_support,
        )

    def minima_after(self, amount: int | None) -> Minima:
        """The same, and a fitted gate's target after so many passages."""
        if amount is None or not isinstance(self.gate, CalibratedGate):
            return self.minima
        return replace(self.minima, believed=partial(self.gate.believes, amount))

    @property
    def judge(self) -> Reranker | None:
        """Who scores what answers are written from; of chains, whom the retriever asks."""
        chained = self.hops not in {1, "auto"}
        return getattr(self.retriever, "reranker", None) if chained else self.reranker

    @property
    def _speculates(self) -> bool:
        if self.gate.mode in {"always", "never"}:
            return False
        local = bool(getattr(self.retriever, "local", False))
        return local if self.speculative is None else self.speculative

    def _answer(self, asked: Sequence[Question], *, live: bool = False) -> Steps[list[Answer]]:
        stages = yield from Stages.of(self, asked, live=live)
        everything = list(range(len(stages.questions)))
        ahead = (yield Start(stages.search(everything))) if self._speculates else None
        try:
            decided = yield from stages.decide()
            rows = [row for row, (decision, _) in enumerate(decided) if decision.retrieve]
            if ahead and rows:
                searched = yield ahead
                found = [searched[row] for row in rows]
                yield from stages.found_ahead(rows, found)
            else:
                found = yield from stages.search(rows)
        finally:
            if ahead:
                ahead.cancel()
        chains = yield from stages.chains(rows, found)
        candidates = dict(zip(rows, (yield from stages.read(rows, chains)), strict=True))
        answers = []
        for row, (decision, draft) in enumerate(decided):
            own, asked_alone = candidates.get(row, ()), stages.questions[row]
            amount = stages.amounts.get(row)
            answer = self._conclude(asked_alone, decision, draft, own, stages.seconds, amount)
            answers.append(answer)
            yield Tell(AnswerEvent(row, answer))
        return answers

    def _answer_from(
        self,
        question: Question,
        passages: Sequence[Passage],
        decision: Decision | None,
        *,
        live: bool = False,
    ) -> Steps[Answer]:
        if self.hops != 1:
            raise ConfigError(
                f"single passages are given, and hops={self.hops!r} asks for chains of them: ask "
                "without passages, or set hops=1"
            )
        passages = check_passages(passages)
        stages = yield from Stages.of(self, [question], live=live)
        (ranked,) = yield from stages.rerank([0], [passages], max(1, len(passages)))
        most = max(self.gate.reading) if isinstance(self.gate, CalibratedGate) else None
        chains = [(passage,) for passage in ranked[:most]]
        if decision is None or not decision.retrieve:  # then no gate has asked for what is read
            decision = Decision(retrieve=True, mode="always")
        yield Tell(GateEvent(0, decision))
        yield Tell(ContextEvent(0, tuple(chains)))
        (candidates,) = yield from stages.read_alone([0], [chains])
        amount = stages.amounts.get(0)
        answer = self._conclude(
            stages.questions[0], decision, None, candidates, stages.seconds, amount
        )
        yield Tell(AnswerEvent(0, answer))
        return answer

    def _condense(self, question: Question) -> Steps[str]:
        return (yield from Stages.of(self, [question])).questions[0]

    def _decide(self, question: Question) -> Steps[tuple[Decision, Draft | None]]:
        stages = yield from Stages.of(self, [question])
        (decided,) = yield from stages.decide()
        return decided

    def _retrieve(self, question: Question) -> Steps[list[Passage]]:
        stages = yield from Stages.of(self, [question])
        found = yield from stages.search([0])
        (chains,) = yield from stages.chains([0], found)
        return ContextEvent(0, tuple(chains)).passages

    def _conclude(
        self,
        question: str,
        decision: Decision,
        draft: Draft | None,
        candidates: Sequence[Candidate],
        seconds: Mapping[str, float],
        amount: int | None = None,
    ) -> Answer:
        gate = self.gate
        answer = conclude(
            question=question,
            decision=decision,
            draft=draft,
            candidates=candidates,
            minima=self.minima_after(amount),
            seconds=dict(seconds),
        )
        if not decision.retrieve:
            probability = decision.probability
            if decision.mode == "never" and draft and isinstance(gate, CalibratedGate):
                probability = gate.right(draft)
            return replace(answer, probability=probability)
        if amount is None or not isinstance(gate, CalibratedGate):
            return answer
        # Of an abstention: the best answer that falls short of nothing but the target.
        best = next(filter(self.minima.reached, answer.candidates), None)
        right = None if best is None else gate.reading[amount](gate.worth(best))
        return replace(answer, probability=right)
