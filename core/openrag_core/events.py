"""What happens while a question is answered, as `OpenRAG.stream` tells it.

CondensedEvent, DraftEvent, GateEvent, ContextEvent, TokenEvent ..., CandidateEvent ...,
AnswerEvent, in this order and as far as there are any; where the gate decides before a draft is
written, its event comes first, then the draft's tokens, then the draft. Each stage is between a
`StageStarted` and a `StageEnded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openrag_core.records import Answer, Candidate, Decision, Draft, Evidence, Passage

Stage = Literal["condense", "draft", "retrieve", "rerank", "hops", "write"]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A part of the pipeline begins."""

    stage: Stage
    questions: tuple[int, ...]
    """Places of the questions that it works on, among those that were asked together."""


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A part of the pipeline is done; one that fails has no end."""

    stage: Stage
    questions: tuple[int, ...]
    seconds: float
    """Of wall time."""
    results: tuple[object, ...]
    """Of each question: passages of "retrieve" and "rerank", chains of "hops", `Written` ones of
    "write", a `Draft` (or, of f_ret, the probabilities) of "draft", a question of "condense"."""


@dataclass(frozen=True, slots=True)
class CondensedEvent:
    """A conversation became a question that stands alone."""

    question: int
    text: str


@dataclass(frozen=True, slots=True)
class DraftEvent:
    """What the model says without reading."""

    question: int
    draft: Draft


@dataclass(frozen=True, slots=True)
class GateEvent:
    """Whether passages are retrieved, and why."""

    question: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class ContextEvent:
    """What answers are written from, best first."""

    question: int
    chains: tuple[Evidence, ...]
    """Each a passage, or several that are read together."""

    @property
    def passages(self) -> list[Passage]:
        """Every passage once, in the order of the chains."""
        return list({p.key: p for chain in self.chains for p in chain}.values())


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A piece of the answer's text, as it is written.

    Only where it is certain which text will be the answer: one passage or joint evidence that is
    relevant enough, or a gate that stays shut before a draft is written ("f_ret", "never").
    """

    question: int
    text: str


@dataclass(frozen=True, slots=True)
class CandidateEvent:
    """An answer has been written and scored; in the order in which they are finished."""

    question: int
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """What the user reads."""

    question: int
    answer: Answer


Event = (
    StageStarted
    | StageEnded
    | CondensedEvent
    | DraftEvent
    | GateEvent
    | ContextEvent
    | TokenEvent
    | CandidateEvent
    | AnswerEvent
)


def rest_of(answer: str, streamed: str) -> str:
    """What is still to be shown of an answer.

    Args:
        answer: Its text.
        streamed: What its `TokenEvent`s added up to.

    Returns:
        The rest of it. Where the text that was streamed is not believed after all, since the model
        itself finds no support for it, the whole answer in a paragraph of its own.
    """
    if answer.startswith(streamed):
        return answer[len(streamed) :]
    return f"\n\n{answer}"
