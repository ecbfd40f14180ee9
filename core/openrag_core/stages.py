"""The stages of the pipeline, each one call to a part for all questions that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from openrag_core.calibration import CalibratedGate
from openrag_core.conversation import (
    Condenser,
    Conversation,
    Question,
    check_questions,
    question_of,
)
from openrag_core.errors import ConfigError, QuestionError
from openrag_core.events import (
    CandidateEvent,
    CondensedEvent,
    ContextEvent,
    DraftEvent,
    GateEvent,
    Stage,
    StageEnded,
    StageStarted,
    TokenEvent,
)
from openrag_core.ports import Piece, StreamingGenerator, TextStream, ranked_by
from openrag_core.records import Candidate, Decision, Draft, Evidence, Passage, Written
from openrag_core.scoring import best_first, partly_supported, rank, score
from openrag_core.steps import Call, Steps, Tell, lists_of, results_of

if TYPE_CHECKING:
    from openrag_core.pipeline import OpenRAG

Chains = Sequence[Sequence[Evidence]]
Decided = tuple[Decision, Draft | None]


@dataclass(slots=True)
class Stages:
    """One run of the pipeline; questions are named by their places, `rows`."""

    rag: OpenRAG
    questions: list[str]
    live: bool = False
    """Whether somebody watches a single question, so that text is shown while it is written."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage so far."""
    amounts: dict[int, int] = field(default_factory=dict)
    """Of passages that each question's answers were written from, where the gate counts them: the
    least that it was fitted for and that is no less."""

    @classmethod
    def of(cls, rag: OpenRAG, asked: Sequence[Question], *, live: bool = False) -> Steps[Stages]:
        """Begin: questions that are asked in a conversation are made to stand alone.

        Raises:
            QuestionError: One is blank, or no text.
            ConfigError: One has a history and there is no condenser, or none that gives
                questions; or several are live.
        """
        asked = check_questions(asked)
        if live and len(asked) != 1:
            raise ConfigError(f"one question can be shown live, not {len(asked)}")
        stages = cls(rag, [question_of(one) for one in asked], live=live)
        rows = [n for n, one in enumerate(asked) if isinstance(one, Conversation) and one.history]
        if not rows:
            return stages
        if rag.condenser is None:
            raise ConfigError(
                "a question with a history needs a condenser, which makes it stand alone: give "
                "OpenRAG(condenser=ChatCondenser(...)), or ask whole questions"
            )
        told = [asked[row] for row in rows]
        condensed = yield from stages._call("condense", rows, rag.condenser, "condense", told)
        for row, text in zip(rows, condensed, strict=True):
            _check_condensed(rag.condenser, text)
            stages.questions[row] = text
            yield Tell(CondensedEvent(row, text))
        return stages

    def decide(self) -> Steps[list[Decided]]:
        """The gate's decision on each question, with the draft where one had to be written."""
        decided = yield from self._decide(list(range(len(self.questions))))
        for row, (decision, draft) in enumerate(decided):
            if draft is not None:
                yield Tell(DraftEvent(row, draft))
            if self.rag.gate.mode in {"f_minp", "f_meanp"}:  # the others decide beforehand
                yield Tell(GateEvent(row, decision))
        return decided

    def search(self, rows: Sequence[int]) -> Steps[list[list[Passage]]]:
        """What the retriever finds."""
        if not rows:
            return []
        rag = self.rag
        chosen = rag.reranker is not None or rag.hops != 1
        top_k = rag.fetch_k if chosen else rag.top_k
        arguments = (self._asked(rows), top_k)
        found: list[list[Passage]] = yield from self._call(
            "retrieve", rows, rag.retriever, "retrieve", *arguments
        )
        return found

    def found_ahead(self, rows: Sequence[int], found: Sequence[list[Passage]]) -> Steps[None]:
        """Tell of a search that was made while the gate decided."""
        yield Tell(StageStarted("retrieve", tuple(rows)))
        yield Tell(
            StageEnded("retrieve", tuple(rows), self.seconds.get("retrieve", 0.0), tuple(found))
        )

    def rerank(
        self, rows: Sequence[int], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> Steps[list[list[Passage]]]:
        """The best of what was found, best first."""
        passages = [_with_text(own) for own in passages]
        if self.rag.reranker is None or not rows:
            return [list(own[:top_k]) for own in passages]
        reranker = self.rag.reranker
        ranked = yield from self._call(
            "rerank", rows, reranker, "rerank", self._asked(rows), passages, top_k
        )
        return ranked_by(reranker, ranked, len(rows), top_k)

    def chains(self, rows: Sequence[int], passages: Sequence[Sequence[Passage]]) -> Steps[Chains]:
        """What answers are written from: the best passages, or chains that begin with them."""
        rag = self.rag
        chains: Chains
        if rag.hops in {1, "auto"}:
            ranked = yield from self.rerank(rows, passages, rag.top_k)
            chains = [[(passage,) for passage in own] for own in ranked]
        else:
            chains = [[(passage,) for passage in _with_text(own)] for own in passages]
            for hop in range(2, int(rag.hops) + 1):
                chains = yield from self._extend(
                    rows, chains, rag.top_k if hop == rag.hops else rag.fetch_k
                )
        for row, own in zip(rows, chains, strict=True):
            yield Tell(ContextEvent(row, tuple(own)))
        return chains

    def read(self, rows: Sequence[int], chains: Chains) -> Steps[list[tuple[Candidate, ...]]]:
        """The candidates of each question, best first; with another hop where one is asked for."""
        candidates = yield from self.read_alone(rows, chains)
        if self.rag.hops != "auto":
            return candidates
        again = [n for n, own in enumerate(candidates) if own and partly_supported(own[0])]
        if not again:
            return candidates
        asked = [rows[n] for n in again]
        best: Chains = [[own.evidence for own in candidates[n]] for n in again]
        found = yield from self._extend(asked, best, self.rag.top_k)
        longer = [
            [chain for chain in new if chain not in old]
            for new, old in zip(found, best, strict=True)
        ]
        for row, new in zip(asked, longer, strict=True):
            yield Tell(ContextEvent(row, tuple(new)))
        added = yield from self.write(asked, longer)
        for n, own in zip(again, added, strict=True):
            candidates[n] = best_first((*candidates[n], *own))
        return candidates

    def read_alone(self, rows: Sequence[int], chains: Chains) -> Steps[list[tuple[Candidate, ...]]]:
        """As `read`, without another hop; of a calibrated gate, as much as it takes."""
        if isinstance(self.rag.gate, CalibratedGate):
            return (yield from self._read_enough(self.rag.gate, rows, chains))
        return (yield from self.write(rows, chains))

    def _read_enough(
        self, gate: CalibratedGate, rows: Sequence[int], chains: Chains
    ) -> Steps[list[tuple[Candidate, ...]]]:
        """The candidates of so many passages as a target asks for."""
        evidence = dict(zip(rows, chains, strict=True))
        candidates: dict[int, tuple[Candidate, ...]] = dict.fromkeys(rows, ())
        more, before = list(rows), 0
        for amount in gate.amounts:
            unread = [evidence[row][before:amount] for row in more]
            added = yield from self.write(more, unread, first_place=before + 1)
            for row, own in zip(more, added, strict=True):
                candidates[row] = best_first((*candidates[row], *own))
                read = min(amount, len(evidence[row]))
                self.amounts[row] = min(fitted for fitted in gate.reading if fitted >= read)
            minima = self.rag.minima_after(amount)
            more = [
                row
                for row in more
                if len(evidence[row]) > amount and minima.best(candidates[row]) is None
            ]
            before = amount
        return [candidates[row] for row in rows]

    def write(
        self, rows: Sequence[int], chains: Chains, first_place: int = 1
    ) -> Steps[list[tuple[Candidate, ...]]]:
        """Write from the evidence of each question, and put the best answer first.

        The first of the evidence has the place `first_place` in the ranking.
        """
        if not rows:
            return []
        generator = self.rag.generator
        evidence = [self._evidence(own) for own in chains]
        if self.live and isinstance(generator, StreamingGenerator):
            live = self._write_live(generator, rows[0], evidence[0], first_place)
            return [(yield from live)]
        written: list[list[Written]] = yield from self._call(
            "write", rows, generator, "write", self._asked(rows), evidence
        )
        for texts, pieces in zip(written, evidence, strict=True):
            results_of(generator, "write", texts, len(pieces))
        ranked = [self._rank(own, first_place) for own in written]
        for row, own in zip(rows, ranked, strict=True):
            for candidate in own:
                yield Tell(CandidateEvent(row, candidate))
        return ranked

    def _decide(self, rows: list[int]) -> Steps[list[Decided]]:
        gate, generator = self.rag.gate, self.rag.generator
        match gate.mode:
            case "always":
                decision = Decision(retrieve=True, mode="always")
                yield from self._tell([decision] * len(rows))
                return [(decision, None) for _ in rows]
            case "never":
                decision = Decision(retrieve=False, mode="never")
                yield from self._tell([decision] * len(rows))
                return [(decision, draft) for draft in (yield from self._drafts(rows))]
            case "f_ret":
                asked = yield from self._call(
                    "draft", rows, generator, "request", self._asked(rows)
                )
                decisions = [gate.by_request(logprobs) for logprobs in asked]
                yield from self._tell(decisions)
                pairs = zip(rows, decisions, strict=True)
                known = [row for row, decision in pairs if not decision.retrieve]
                drafts = iter((yield from self._drafts(known)))
                return [(d, None if d.retrieve else next(drafts)) for d in decisions]
            case _:
                drafts = yield from self._call(
                    "draft", rows, generator, "draft", self._asked(rows), gate.settled
                )
                return [(gate.by_confidence(draft), draft) for draft in drafts]

    @staticmethod
    def _tell(decisions: Sequence[Decision]) -> Steps[None]:
        for row, decision in enumerate(decisions):
            yield Tell(GateEvent(row, decision))

    def _drafts(self, rows: list[int]) -> Steps[Any]:
        """Drafts that will be the answers."""
        generator = self.rag.generator
        if not rows:
            return []
        if not (self.live and isinstance(generator, StreamingGenerator)):
            return (yield from self._call("draft", rows, generator, "draft", self._asked(rows)))
        drafts: list[object] = []
        started = yield from self._start("draft", rows)
        stream = yield Call(generator, "begin_draft", (self.questions[rows[0]],))
        try:
            while (piece := (yield Call(stream, "next", ()))) is not None:
                if piece.text:
                    yield Tell(TokenEvent(rows[0], piece.text))
                drafts += [] if piece.result is None else [piece.result]
        finally:
            stream.cancel()
        _check_ended(generator, "begin_draft", len(drafts), 1)
        yield from self._end("draft", rows, started, drafts)
        return drafts

    def _write_live(
        self,
        generator: StreamingGenerator,
        row: int,
        evidence: Sequence[Evidence],
        first_place: int,
    ) -> Steps[tuple[Candidate, ...]]:
        """As `write`, of one question; the text is shown if there is one and it is believed."""
        believed: bool | None = None if len(evidence) == 1 and not self._may_read_more else False
        done: dict[int, Written] = {}
        started = yield from self._start("write", [row])
        arguments = (self.questions[row], evidence)
        stream: TextStream[Written] = yield Call(generator, "begin_write", arguments)
        try:
            piece: Piece[Written] | None
            while (piece := (yield Call(stream, "next", ()))) is not None:
                if believed is None:
                    believed = self._relevant(Written(tuple(evidence[0]), "", (piece.token,)))
                if believed and piece.text:
                    yield Tell(TokenEvent(row, piece.text))
                if piece.result is not None:
                    done[piece.place] = piece.result
                    (candidate,) = self._rank([piece.result], first_place + piece.place)
                    yield Tell(CandidateEvent(row, candidate))
        finally:
            stream.cancel()
        _check_ended(generator, "begin_write", len(done), len(evidence))
        written = [done[place] for place in sorted(done)]
        yield from self._end("write", [row], started, [written])
        return self._rank(written, first_place)

    @property
    def _may_read_more(self) -> bool:
        """Whether other passages may be read after the first ones."""
        gate = self.rag.gate
        several = isinstance(gate, CalibratedGate) and len(gate.amounts) > 1
        return several or self.rag.hops == "auto"

    def _relevant(self, begun: Written) -> bool:
        trained = self.rag.generator.reflection_trained
        relevance = score(begun, reflection_trained=trained).relevance
        return relevance >= self.rag.minima.relevance

    def _rank(self, written: Sequence[Written], first_place: int) -> tuple[Candidate, ...]:
        trained = self.rag.generator.reflection_trained
        return rank(
            written,
            self.rag.score_weights,
            reflection_trained=trained,
            first_place=first_place,
        )

    def _extend(self, rows: Sequence[int], chains: Chains, top_k: int) -> Steps[Chains]:
        arguments = (self._asked(rows), chains, top_k)
        longer: Chains = yield from self._call(
            "hops", rows, self.rag.retriever, "extend", *arguments
        )
        return [[chain for chain in own if _with_text(chain) == list(chain)] for own in longer]

    def _evidence(self, chains: Sequence[Evidence]) -> Sequence[Evidence]:
        if self.rag.evidence == "joint":
            return [tuple(ContextEvent(0, tuple(chains)).passages)] if chains else []
        return chains

    def _asked(self, rows: Sequence[int]) -> list[str]:
        return [self.questions[row] for row in rows]

    def _call(
        self, stage: Stage, rows: Sequence[int], part: object, method: str, *arguments: object
    ) -> Steps[Any]:
        started = yield from self._start(stage, rows)
        given = yield Call(part, method, arguments)
        single = stage in {"condense", "draft"}
        results = (results_of if single else lists_of)(part, method, given, len(rows))
        yield from self._end(stage, rows, started, results)
        return results

    def _start(self, stage: Stage, rows: Sequence[int]) -> Steps[float]:
        yield Tell(StageStarted(stage, tuple(rows)))
        return perf_counter()

    def _end(
        self, stage: Stage, rows: Sequence[int], started: float, results: Sequence[object]
    ) -> Steps[None]:
        seconds = perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        yield Tell(StageEnded(stage, tuple(rows), seconds, tuple(results)))


def _check_ended(generator: StreamingGenerator, method: str, results: int, texts: int) -> None:
    if results != texts:
        raise ConfigError(
            f"the stream of {type(generator).__name__}.{method} ended with {results} of {texts} "
            "results: the last piece of each text must bring its own"
        )


def _check_condensed(condenser: Condenser, text: str) -> None:
    try:
        check_questions([text])
    except QuestionError as error:
        raise ConfigError(
            f"{type(condenser).__name__}.condense must give questions that can be asked, not blank "
            f"and of whole characters, if need be the one that it was given; it gave {text!r}"
        ) from error


def _with_text(passages: Sequence[Passage]) -> list[Passage]:
    """Those that say anything: of an empty one a model makes its answer up, and believes it."""
    return [passage for passage in passages if passage.text.strip()]
