"""Scored candidates -> the answer: the best one that can be believed, or an honest refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from numbers import Real

from openrag_core.errors import ConfigError
from openrag_core.html import place
from openrag_core.records import Answer, Candidate, Decision, Draft, Passage, mean_probability

NOT_TOLD = "The documents do not tell."
NO_ANSWER = "The model gave no answer."
NEAREST = 3  # passages that a refusal points to


@dataclass(frozen=True, slots=True)
class Minima:
    """What a candidate must reach to be believed.

    Raises:
        ConfigError: One is no number.
    """

    relevance: float
    """-inf where there is none: then anything is believed and nothing is called grounded."""
    support: float
    believed: Callable[[Candidate], bool] = lambda _: True
    """What the best of the candidates that reach them must pass too: a fitted gate's target."""

    def __post_init__(self) -> None:
        for name in ("relevance", "support"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isnan(value):
                raise ConfigError(f"min_{name} must be a number, got {value!r}")

    def reached(self, candidate: Candidate) -> bool:
        """Whether the candidate says something and rests on its passage."""
        score = candidate.score
        supported = score.sup is None or score.sup >= self.support
        relevant = score.relevance >= self.relevance
        return bool(candidate.text) and relevant and supported

    def best(self, candidates: Iterable[Candidate]) -> Candidate | None:
        """The first of the candidates that reaches them, if it is believed.

        No other one is in its place: a gate is fitted to the best answers.
        """
        first = next(filter(self.reached, candidates), None)
        return first if first is not None and self.believed(first) else None


def conclude(
    *,
    question: str,
    decision: Decision,
    draft: Draft | None,
    candidates: Sequence[Candidate],
    minima: Minima,
    seconds: Mapping[str, float],
) -> Answer:
    """Make the answer.

    Args:
        question: As it stands alone: of a conversation, what it was condensed to.
        decision: Of the gate.
        draft: What the model said without reading; there is one where nothing was retrieved.
        candidates: Best first; empty where nothing was retrieved or found.
        minima: What a candidate must reach.
        seconds: Wall time of each stage.

    Returns:
        The draft where the gate stayed shut; otherwise the best candidate that reaches the
        minima, if it is believed; otherwise a text that says that the documents do not tell and
        names the nearest passages.
    """
    best = minima.best(candidates)
    text, confidence = NOT_TOLD, 0.0
    sources: tuple[Passage, ...] = ()
    if not decision.retrieve and draft is not None:
        text = draft.text.strip() or NO_ANSWER
        confidence = mean_probability(draft.tokens)
    elif best is not None:
        text, confidence = best.text, mean_probability(best.written.tokens)
        sources = best.evidence
        candidates = [best, *(other for other in candidates if other is not best)]
    elif candidates:
        by_relevance = sorted(
            candidates, key=lambda c: (isnan(c.score.relevance), -c.score.relevance)
        )
        nearest = {p.key: p for candidate in by_relevance for p in candidate.evidence}
        sources = tuple(nearest.values())[:NEAREST]
        text = "\n".join([f"{NOT_TOLD} Nearest passages:", *map(_named, sources)])
    return Answer(
        question=question,
        text=text,
        decision=decision,
        confidence=confidence,
        truncated=best is not None and best.written.truncated,
        grounded=best is not None and minima.relevance > -inf,
        abstained=decision.retrieve and best is None,
        sources=sources,
        candidates=tuple(candidates),
        draft=draft,
        seconds=seconds,
    )


def _named(passage: Passage) -> str:
    where = {"source": passage.source, "metadata": passage.metadata}
    return f"- {place({'id': passage.id, 'title': passage.title, **where})}"
