"""Accuracy against the share of questions that retrieve, swept from one pass over the questions.

Each question was answered from memory and from passages; a threshold decides afterwards which of
the two answers counts. Source: the figure of Islam et al., Open-RAG (arXiv:2410.01782), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from openrag_core.errors import EvaluationError
from openrag_core.records import Signal

Record = Mapping[str, Any]
"""What `openrag eval` keeps of a question."""
Order = Literal["f_ret", "f_minp", "f_meanp", "random", "oracle"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One question, answered both ways."""

    memory: float
    """How right the draft is, in [0, 1]."""
    reading: float
    """How right the answer from passages is, in [0, 1]."""
    signals: dict[str, float]
    """What the gate looks at, each in [0, 1]: f_minp and f_meanp are high where the draft needs no
    passage, f_ret where it needs one."""
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
    """Of a `Gate` with this signal: what is below it is looked up, of f_ret what is above; None
    where no threshold decides."""
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "order": self.order,
            "area": self.area,
            "lossless": asdict(self.lossless),
            "best": asdict(self.best),
            "points": [asdict(point) for point in self.points],
        }

    @property
    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = np.array([point.share for point in self.points])
        return shares, np.array([point.accuracy for point in self.points])


def trials(records: Sequence[Record]) -> list[Trial]:
    """What the curves are drawn from.

    Args:
        records: As `openrag eval` writes them; those that nothing was read for, or whose main
            metric says nothing of one of the two answers, are left out.
    """
    return [
        Trial(
            memory=float(one["scores"]["memory"][one["metric"]]),
            reading=float(one["scores"]["reading"][one["metric"]]),
            signals={n: value for n, value in one["signals"].items() if value is not None},
            memory_seconds=float(one["memory"]["seconds"]),
            reading_seconds=sum(one["reading"]["seconds"].values()),
            memory_tokens=one["memory"]["tokens"],
            reading_tokens=one["reading"]["tokens"],
        )
        for one in records
        if one["reading"] is not None
        and all(one["metric"] in one["scores"][way] for way in ("memory", "reading"))
    ]


def confidences_of(record: Record) -> dict[Signal, float]:
    """Of the draft, by signal; high where no passage is needed."""
    signals = record["signals"]
    found: dict[Signal, float] = {"f_minp": signals["f_minp"], "f_meanp": signals["f_meanp"]}
    if signals.get("f_ret") is not None:
        found["f_ret"] = 1.0 - signals["f_ret"]
    return found


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


def _swept(order: Order, trials: Sequence[Trial], signal: Sequence[float]) -> Curve:
    sign = -1.0 if order == "f_ret" else 1.0
    values = sign * np.array(signal)
    place = np.argsort(values, kind="stable")
    ordered = values[place]
    # Where a run of equal values ends; at 0 nothing is looked up.
    ends = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(trials)]
    rows = _totals([trials[n] for n in place])
    points = []
    for end in ends:
        known = order != "oracle" and end < len(trials)
        threshold = sign * float(ordered[end]) if known else None
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
