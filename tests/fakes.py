"""The smallest parts that satisfy the ports, with everything they were asked on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any, Generic, TypeVar

from openrag_core import Conversation, Draft, Message, Passage, Reply, Token, Written
from openrag_core.ports import Piece, Settled
from openrag_core.records import Evidence

_Result = TypeVar("_Result")


def tokens(*probabilities: float) -> tuple[Token, ...]:
    """Text tokens of these probabilities."""
    return tuple(Token("x", log(p)) for p in probabilities)


def reflected(text: str, **replies: float) -> tuple[Token, ...]:
    """An answer by a trained model: relevance first, then the text, then support and utility.

    Args:
        text: One token of it, of probability 1.
        **replies: `rel`, `sup` (fully) and `use` (five stars): probability of the good reply; the
            rest of the mass goes to the worst one. Without `sup` or `use`, none is emitted.
    """
    rel = replies["rel"]
    relevance = {"[Relevant]": log(rel), "[Irrelevant]": log(1 - rel)}
    written = [Token("[Relevant]", 0.0, special=True, reflections=relevance)]
    written.append(Token(text, 0.0))
    if "sup" in replies:
        sup = replies["sup"]
        support = {
            "[Fully supported]": log(sup),
            "[Partially supported]": float("-inf"),
            "[No support / Contradictory]": log(1 - sup),
        }
        written.append(Token("[Fully supported]", 0.0, special=True, reflections=support))
    if "use" in replies:
        use = replies["use"]
        stars = {f"[Utility:{n}]": float("-inf") for n in range(2, 5)}
        utility = {"[Utility:5]": log(use), "[Utility:1]": log(1 - use), **stars}
        written.append(Token("[Utility:5]", 0.0, special=True, reflections=utility))
    return tuple(written)


@dataclass
class FakeGenerator:
    """Answers by looking up what it was given."""

    drafts: Mapping[str, Draft] = field(default_factory=dict)
    answers: Mapping[str, tuple[Token, ...]] = field(default_factory=dict)
    """Tokens by passage id; by default the passage's text, in one token."""
    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reflection_trained: bool = False
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    settled: list[Settled | None] = field(default_factory=list)

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """The reflection probabilities after each question."""
        self.calls.append(("request", tuple(questions)))
        return [self.requests[question] for question in questions]

    def draft(
        self,
        questions: Sequence[str],
        settled: Settled | None = None,
    ) -> list[Draft]:
        """The draft of each question, complete."""
        self.settled.append(settled)
        self.calls.append(("draft", tuple(questions)))
        return [self.drafts[question] for question in questions]

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """One answer per piece of evidence, by its first passage."""
        self.calls.append(("write", tuple(questions)))
        return [[self._write(one) for one in own] for own in evidence]

    def _write(self, evidence: Evidence) -> Written:
        first = evidence[0]
        written = self.answers.get(first.id, (Token(first.text, log(0.9)),))
        text = "".join(token.text for token in written if not token.special)
        return Written(tuple(evidence), text, written)


@dataclass
class FakeTexts(Generic[_Result]):
    """Pieces that are there already."""

    pieces: list[Piece[_Result]]
    cancelled: bool = False

    def next(self) -> Piece[_Result] | None:
        """The first that is left."""
        return self.pieces.pop(0) if self.pieces else None

    async def anext(self) -> Piece[_Result] | None:
        """The same, after others had their turn."""
        await asyncio.sleep(0)
        return self.next()

    def cancel(self) -> None:
        """Remember it."""
        self.cancelled = True


@dataclass
class FakeStreamingGenerator(FakeGenerator):
    """Gives its texts token by token too, the last evidence first."""

    streams: list[FakeTexts[Any]] = field(default_factory=list)

    def begin_draft(self, question: str) -> FakeTexts[Draft]:
        """The draft of the question."""
        self.calls.append(("begin_draft", (question,)))
        return self._stream([self.drafts[question]])

    def begin_write(self, question: str, evidence: Sequence[Evidence]) -> FakeTexts[Written]:
        """One answer per piece of evidence, by its first passage."""
        self.calls.append(("begin_write", (question,)))
        return self._stream([self._write(one) for one in evidence])

    def _stream(self, wholes: Sequence[_Result]) -> FakeTexts[_Result]:
        pieces: list[Piece[_Result]] = []
        for place, whole in reversed(list(enumerate(wholes))):
            own: tuple[Token, ...] = whole.tokens  # type: ignore[attr-defined]
            pieces += [Piece(place, one, "" if one.special else one.text) for one in own]
            pieces[-1] = replace(pieces[-1], result=whole)
        self.streams.append(FakeTexts(pieces))
        return self.streams[-1]


@dataclass
class FakeChat:
    """Replies to the last message of each conversation."""

    says: Callable[[str], str]

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """What `says` makes of it."""
        return [Reply(self.says(one[-1].text)) for one in conversations]


@dataclass
class FakeCondenser:
    """Looks up what a question means."""

    meanings: Mapping[str, str]
    calls: list[tuple[Conversation, ...]] = field(default_factory=list)

    def condense(self, conversations: Sequence[Conversation]) -> list[str]:
        """By the question alone."""
        self.calls.append(tuple(conversations))
        return [self.meanings[one.question] for one in conversations]


@dataclass
class FakeRetriever:
    """Finds the same passages for every question, or those of the question."""

    passages: Sequence[Passage] | Mapping[str, Sequence[Passage]]
    calls: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The first `top_k` passages."""
        self.calls.append((tuple(questions), top_k))
        return [
            list(self.passages[question] if isinstance(self.passages, Mapping) else self.passages)[
                :top_k
            ]
            for question in questions
        ]


@dataclass
class FakeReranker:
    """Scores passages by their id."""

    scores: Mapping[str, float]
    min_relevance: float = 0.5

    def rerank(
        self,
        questions: Sequence[str],  # noqa: ARG002
        passages: Sequence[Sequence[Passage]],
        top_k: int,
    ) -> list[list[Passage]]:
        """The best first."""
        scored = [[replace(p, rerank_score=self.scores[p.id]) for p in own] for own in passages]
        return [sorted(own, key=lambda p: -(p.rerank_score or 0))[:top_k] for own in scored]


class CarelessReranker(FakeReranker):
    """Gives all that it gets as it came, and no score to what it does not know."""

    def rerank(
        self,
        questions: Sequence[str],  # noqa: ARG002
        passages: Sequence[Sequence[Passage]],
        top_k: int,  # noqa: ARG002
    ) -> list[list[Passage]]:
        """Neither sorted nor cut."""
        return [[replace(p, rerank_score=self.scores.get(p.id)) for p in own] for own in passages]
