"""A chat model as the judge of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from statistics import fmean
from typing import Any, Literal

from openrag_core.cache import JsonCache
from openrag_core.conversation import ChatModel, Message
from openrag_core.evaluation.asking import FREE, NOTHING, ChatClient, Outcome, Price, Usage
from openrag_core.evaluation.cases import Case, cases_of
from openrag_core.evaluation.rubrics import RUBRICS, Rubric, Verdict, check_rubrics
from openrag_core.evaluation.summary import Way
from openrag_core.steps import Call, Steps, arun, run

Progress = Callable[[int, int], None]
"""Told how many are done since the last call, and of how many."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says about an answer, by one rubric."""

    id: str
    """Of the case."""
    rubric: str
    grade: int | None
    """On the rubric's scale; None where there is none."""
    reason: str
    """The judge's own, or why there is no grade."""
    outcome: Literal["graded", "failed", "skipped"]
    """"failed": the model gave no verdict; "skipped": the case lacks what the rubric shows."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of judging."""

    judgements: tuple[Judgement, ...]
    """Of each case, one by each rubric, in their order."""
    usage: Usage
    """Of all requests that the judgements rest on, each counted once, whenever it was made."""
    paid: Usage
    """Of those that were made now; the others were in the cache."""
    price: Price = FREE

    def summary(self) -> dict[str, Any]:
        """By rubric: how many were graded, failed and skipped, their mean and grades; the cost."""
        names = dict.fromkeys(one.rubric for one in self.judgements)
        return {
            "rubrics": {name: self._of(name) for name in names},
            "usage": asdict(self.usage) | {"cost": self.usage.cost(self.price)},
            "paid_now": asdict(self.paid) | {"cost": self.paid.cost(self.price)},
        }

    def _of(self, rubric: str) -> dict[str, Any]:
        own = [one for one in self.judgements if one.rubric == rubric]
        outcomes = Counter(one.outcome for one in own)
        grades = sorted(one.grade for one in own if one.grade is not None)
        return {
            "mean": fmean(grades) if grades else None,
            "graded": outcomes["graded"],
            "failed": outcomes["failed"],
            "skipped": outcomes["skipped"],
            "grades": {str(grade): count for grade, count in Counter(grades).items()},
        }


class Judge:
    """Has a chat model grade answers by rubrics.

    What it replies is kept at once: a run that was interrupted goes on, and pays nothing twice.

    Args:
        chat: The chat model; its own temperature should be 0.
        rubrics: What is asked about each answer.
        name: What tells the model from others; by default its own `name`.
        concurrency: Most requests at once; >= 1.
        attempts: How often the model is asked where it fails, and where its reply is no verdict.
        cache: Keeps what it replies; by default in memory.
        price: Of the model, for the cost.
        longest_pause: Between attempts, in seconds.

    Raises:
        ConfigError: A setting is outside its range, or replies are to be kept of a model without
            a name.
    """

    def __init__(
        self,
        chat: ChatModel,
        rubrics: Rubric | Sequence[Rubric] = RUBRICS,
        *,
        name: str | None = None,
        concurrency: int = 8,
        attempts: int = 3,
        cache: JsonCache | None = None,
        price: Price | None = None,
        longest_pause: float = 60.0,
    ) -> None:
        self.rubrics = check_rubrics(rubrics)
        self.price = price or FREE
        self._client = ChatClient(
            chat,
            name=name,
            concurrency=concurrency,
            attempts=attempts,
            cache=cache,
            longest_pause=longest_pause,
        )

    def judge(
        self,
        records: Iterable[Case | Mapping[str, Any]],
        *,
        way: Way | None = None,
        progress: Progress = lambda done, total: None,  # noqa: ARG005
    ) -> Judged:
        """Judge answers by every rubric.

        Args:
            records: Cases, or what `read_results` gives.
            way: Which answers of the results; by default those from reading, where there are any.
            progress: Called with how many requests are done, and of how many.

        Raises:
            EvaluationError: A record is malformed.
            ChatModelError: The model fails again and again.
        """
        return run(self._steps(cases_of(records, way), progress))

    async def ajudge(
        self,
        records: Iterable[Case | Mapping[str, Any]],
        *,
        way: Way | None = None,
        progress: Progress = lambda done, total: None,  # noqa: ARG005
    ) -> Judged:
        """The same; the event loop goes on."""
        return await arun(self._steps(cases_of(records, way), progress))

    def _steps(self, cases: Sequence[Case], progress: Progress) -> Steps[Judged]:
        pairs = [(case, rubric) for case in cases for rubric in self.rubrics]
        asked: dict[tuple[Message, ...], Rubric] = {
            rubric.conversation(case): rubric for case, rubric in pairs if not rubric.missing(case)
        }
        progress(0, len(asked))
        jobs = [self._client.ask_json(prompt, rubric.read) for prompt, rubric in asked.items()]
        outcomes: list[Outcome[Verdict]] = yield Call(
            self._client, "gather", (jobs, lambda done: progress(done, len(asked)))
        )
        found = dict(zip(asked, outcomes, strict=True))
        return Judged(
            tuple(_judgement(case, rubric, found) for case, rubric in pairs),
            usage=reduce(add, (one.usage for one in outcomes), NOTHING),
            paid=reduce(add, (one.paid for one in outcomes), NOTHING),
            price=self.price,
        )


def _judgement(
    case: Case, rubric: Rubric, found: Mapping[tuple[Message, ...], Outcome[Verdict]]
) -> Judgement:
    if missing := rubric.missing(case):
        return Judgement(case.id, rubric.name, None, f"the case has no {missing}", "skipped")
    outcome = found[rubric.conversation(case)]
    if outcome.value is None:
        return Judgement(case.id, rubric.name, None, outcome.failure, "failed")
    return Judgement(case.id, rubric.name, outcome.value.grade, outcome.value.reason, "graded")
