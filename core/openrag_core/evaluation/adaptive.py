"""Accuracy against the share of questions that retrieve, swept from one pass over the questions.

Each question was answered from memory and from passages; a threshold decides afterwards which of
the two answers counts. Source: the figure of Islam et al., Open-RAG (arXiv:2410.01782), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openrag_core.errors import EvaluationError

Order = Literal["f_ret", "f_minp", "f_meanp", "random", "oracle"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One question, answered both ways."""

    memory: float
    """How right the draft is, in [0, 1]."""
    reading: float
    """How right the answer from passages is, in [0, 1]."""
    signals: dict[str, float]
    """Confidence of the draft by each signal, in [0, 1], high where it needs no passage; of
    f_ret, one minus it."""
    memory_seconds: float = 0.0
    reading_seconds: float = 0.0
    memory_tokens: int = 0
    """Written for the draft."""
    reading_tokens: int = 0
    """Written for all candidates."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold comes to."""

    threshold: float | None
    """Drafts of a lower confidence are looked up; None where no threshold decides."""
    share: float
    """Of questions that retrieve."""
    accuracy: float
    seconds: float
    """Per question."""
    tokens: float
    """Written per question."""


@dataclass(frozen=True, slots=True)
class Curve:
    """All thresholds of one signal."""

    order: Order
    points: tuple[Point, ...]
    """By growing share, from 0 to 1."""

    @property
    def area(self) -> float:
        """Mean accuracy over all shares: the area under the curve."""
        shares, accuracies = self._columns
        return float(np.trapezoid(accuracies, shares))

    @property
    def lossless(self) -> Point:
        """The least share that is as accurate as retrieving always."""
        always = self.points[-1].accuracy
        return next(point for point in self.points if point.accuracy >= always - 1e-12)

    @property
    def best(self) -> Point:
        """The most accurate point; of several the one that retrieves least."""
        return max(self.points, key=lambda point: (point.accuracy, -point.share))

    def at(self, share: float) -> float:
        """Accuracy at a share, in [0, 1], on the line between the points."""
        return float(np.interp(share, *self._columns))

    @property
    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = np.array([point.share for point in self.points])
        return shares, np.array([point.accuracy for point in self.points])


def curves(trials: Sequence[Trial]) -> list[Curve]:
    """The curve of each signal that the questions have, of chance, and of the best there could be.

    Questions of the same confidence are looked up together, as a threshold would.

    Args:
        trials: At least one.

    Raises:
        EvaluationError: There are none.
    """
    if not trials:
        raise EvaluationError("no questions to draw a curve of: run openrag eval first")
    signals: list[Order] = [
        name
        for name in ("f_minp", "f_meanp", "f_ret")
        if all(name in trial.signals for trial in trials)
    ]
    swept = [_swept(name, trials, [trial.signals[name] for trial in trials]) for name in signals]
    gains = [trial.memory - trial.reading for trial in trials]
    return [*swept, _chance(trials), _swept("oracle", trials, gains)]


def _swept(order: Order, trials: Sequence[Trial], confidence: Sequence[float]) -> Curve:
    values = np.array(confidence)
    place = np.argsort(values, kind="stable")
    ordered = values[place]
    # Where a run of equal values ends; at 0 nothing is looked up.
    ends = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(trials)]
    rows = _totals([trials[n] for n in place])
    points = []
    for end in ends:
        known = order != "oracle" and end < len(trials)
        threshold = float(ordered[end]) if known else None
        points.append(_point(threshold, end, len(trials), rows[end]))
    return Curve(order, tuple(points))


def _totals(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Accuracy, seconds and tokens in sum where the first n are looked up; shape (N + 1, 3)."""
    memory = np.array([(t.memory, t.memory_seconds, t.memory_tokens) for t in trials])
    reading = np.array([(t.reading, t.reading_seconds, t.reading_tokens) for t in trials])
    gained = reading.copy()
    gained[:, 0] -= memory[:, 0]  # time and tokens add up: the draft comes first
    steps = np.vstack([memory.sum(axis=0), gained])
    totals: NDArray[np.float64] = steps.cumsum(axis=0)
    return totals


def _point(threshold: float | None, looked_up: int, count: int, row: NDArray[np.float64]) -> Point:
    accuracy, seconds, tokens = (row / count).tolist()
    return Point(threshold, looked_up / count, accuracy, seconds, tokens)


def _chance(trials: Sequence[Trial]) -> Curve:
    """What to expect of questions drawn at random: the line between never and always."""
    rows = _totals(trials)
    ends = [_point(None, n, len(trials), rows[n]) for n in (0, len(trials))]
    return Curve("random", tuple(ends))
