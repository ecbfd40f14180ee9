"""Who helps to make a training set, as small as can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openrag_core import CriticError, Draft
from openrag_core.ports import Settled
from openrag_core.training import Judgement, Text
from tests.fakes import FakeGenerator


@dataclass
class Base(FakeGenerator):
    """Knows what it is given, and no more."""

    knows: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __init__(self, knows: Mapping[str, str]) -> None:
        super().__init__()
        self.knows, self.asked = knows, []

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:  # noqa: ARG002
        """What it knows, or that it does not."""
        self.asked += questions
        return [Draft(self.knows.get(question, "I do not know."), ()) for question in questions]


@dataclass
class FakeCritic:
    """Calls a passage relevant that holds the answer."""

    fails_on: str | None = None
    name: str = "fake"
    judged: list[str] = field(default_factory=list)

    def judge(self, question: str, answer: str, passage: Text) -> Judgement:
        """Judge one passage."""
        if passage.text == self.fails_on:
            raise CriticError(f"no judgement on {question}")
        self.judged.append(passage.text)
        holds = answer in passage.text
        return Judgement(holds, "full" if holds else "none", 5 if holds else 1)
