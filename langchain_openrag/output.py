"""What the runnable gives: at once, or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables.utils import AddableDict
from typing_extensions import TypedDict

from langchain_openrag.documents import to_document
from openrag_core import Answer, Candidate
from openrag_core.events import (
    AnswerEvent,
    CandidateEvent,
    CondensedEvent,
    ContextEvent,
    DraftEvent,
    Event,
    GateEvent,
    TokenEvent,
    rest_of,
)


class CandidateOutput(TypedDict):
    """An answer that was written from one piece of evidence."""

    answer: str
    total: float
    """What candidates are ranked by."""
    score: dict[str, float | None]
    """Its parts; see `openrag_core.PassageScore`."""
    context: list[str]
    """Ids of the passages that it was written from."""


class RunnableOutput(TypedDict):
    """What comes back."""

    question: str
    """As it was answered: standing alone."""
    answer: str
    context: list[Document]
    """Every passage that was read, the answer's own first; in a stream, the best passage first."""
    candidates: list[CandidateOutput]
    """Best first; in a stream, as they were finished. Empty where nothing was retrieved."""
    gate: dict[str, Any]
    """Whether passages were retrieved, and why."""
    draft: str | None
    """What the model would say without reading, where the gate asked for it."""
    confidence: float
    probability: float | None
    """That the answer is right, as a calibrated gate knows it; see `Answer.probability`."""
    grounded: bool
    abstained: bool
    truncated: bool
    """Whether the passage was too long for the model, so that only its beginning was read."""


def to_output(answer: Answer) -> RunnableOutput:
    """An answer in LangChain's types."""
    return RunnableOutput(
        question=answer.question,
        answer=answer.text,
        context=list(_context(answer).values()),
        candidates=[_candidate(candidate) for candidate in answer.candidates],
        gate=asdict(answer.decision),
        draft=answer.draft.text if answer.draft else None,
        confidence=answer.confidence,
        probability=answer.probability,
        grounded=answer.grounded,
        abstained=answer.abstained,
        truncated=answer.truncated,
    )


def _context(answer: Answer) -> dict[tuple[str, str], Document]:
    """Every passage once, with the scores of the best answer from it."""
    documents: dict[tuple[str, str], Document] = {}
    for candidate in answer.candidates:
        for passage in candidate.evidence:
            documents.setdefault(passage.key, to_document(passage, candidate))
    return documents


class Pieces:
    """Events -> pieces that add up to an output, but for the order of lists."""

    def __init__(self) -> None:
        self._streamed = ""
        self._given: set[str] = set()
        self._passages: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> Iterator[AddableDict]:
        """What an event adds; nothing is given twice."""
        for piece in self._pieces(event):
            self._given |= piece.keys()
            yield piece

    def _pieces(self, event: Event) -> Iterator[AddableDict]:
        match event:
            case CondensedEvent(text=text):
                yield AddableDict(question=text)
            case DraftEvent(draft=draft):
                yield AddableDict(draft=draft.text)
            case GateEvent(decision=decision):
                yield AddableDict(gate=asdict(decision))
            case ContextEvent(passages=passages):
                new = {p.key: p for p in passages if p.key not in self._passages}
                self._passages |= new.keys()
                yield AddableDict(context=[to_document(passage) for passage in new.values()])
            case TokenEvent(text=text):
                self._streamed += text
                yield AddableDict(answer=text)
            case CandidateEvent(candidate=candidate):
                yield AddableDict(candidates=[_candidate(candidate)])
            case AnswerEvent(answer=answer):
                rest: dict[str, Any] = {
                    "question": answer.question,
                    "draft": None,
                    "context": [],
                    "candidates": [],
                }
                yield AddableDict(
                    {key: value for key, value in rest.items() if key not in self._given},
                    answer=rest_of(answer.text, self._streamed),
                    confidence=answer.confidence,
                    probability=answer.probability,
                    grounded=answer.grounded,
                    abstained=answer.abstained,
                    truncated=answer.truncated,
                )


def _candidate(candidate: Candidate) -> CandidateOutput:
    return CandidateOutput(
        answer=candidate.text,
        total=candidate.total,
        score=asdict(candidate.score),
        context=[passage.id for passage in candidate.evidence],
    )
