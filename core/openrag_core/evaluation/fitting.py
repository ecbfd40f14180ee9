"""Fits a `CalibratedGate` to questions that were answered from memory and from passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from openrag_core.calibration import Calibration
from openrag_core.errors import EvaluationError
from openrag_core.reflection import ScoreWeights

Method = Literal["isotonic", "platt"]
LEAST = 50  # questions; fewer tell nothing about a probability
QUANTILES = 101
BINS = 10
_PLATT_POINTS = 33
_GROUP = 20  # questions of like confidence; a probability of fewer is chance
_GROUPS = 50
_FOLDS = 5
_ROUNDED = 1e-6  # confidences that are nearer to each other may be one in the file


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration, and how far off it is."""

    calibration: Calibration
    expected_error: float
    """Expected calibration error on questions that it was not fitted on, by cross-validation."""
    before: float
    """The same of the bare confidence, where that is in [0, 1]; nan elsewhere."""
    bins: tuple[Bin, ...]
    """Of the reliability diagram, on the same questions."""
    questions: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Questions of like probability."""

    probability: float
    """Mean of what was said."""
    right: float
    """Share that was right."""
    count: int


def fit(confidence: Sequence[float], right: Sequence[bool], *, method: Method = "isotonic") -> Fit:
    """Fit a calibration.

    Args:
        confidence: Of each answer; any finite numbers.
        right: Whether it is right; of the same length.
        method: "isotonic" follows the data, in steps that never fall; "platt" is one logistic
            curve, for few questions (Platt, 1999; Zadrozny and Elkan, 2002).

    Raises:
        EvaluationError: There are fewer than 50 questions, or a confidence is no number.
    """
    values, labels = np.array(confidence, dtype=float), np.array(right, dtype=float)
    if len(values) < LEAST or len(values) != len(labels):
        raise EvaluationError(
            f"{len(values)} questions are too few to fit a probability: give at least {LEAST}"
        )
    if not np.isfinite(values).all():
        raise EvaluationError("a confidence is no finite number: check the run's signals")
    told = np.empty(len(values))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(values):
        held_out = _calibration(values[train], labels[train], method)
        told[test] = [held_out(one) for one in values[test]]
    bare = bool(((values >= 0) & (values <= 1)).all())
    return Fit(
        calibration=_calibration(values, labels, method),
        expected_error=expected_calibration_error(told, labels),
        before=expected_calibration_error(values, labels) if bare else float("nan"),
        bins=reliability(told, labels),
        questions=len(values),
    )


def reliability(
    probability: Sequence[float] | NDArray[np.float64],
    right: Sequence[float] | NDArray[np.float64],
) -> tuple[Bin, ...]:
    """Ten equally wide bins of probabilities, those without questions left out.

    Args:
        probability: As it was said, in [0, 1].
        right: 1 where the answer was right, 0 elsewhere.
    """
    told, labels = np.asarray(probability), np.asarray(right)
    place = np.minimum((told * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(float(told[own].mean()), float(labels[own].mean()), int(own.sum()))
        for own in (place == n for n in range(BINS))
        if own.any()
    )


def expected_calibration_error(
    probability: Sequence[float] | NDArray[np.float64],
    right: Sequence[float] | NDArray[np.float64],
) -> float:
    """Mean distance between what was said and what was right, over the bins of `reliability`.

    Source: Guo et al., On Calibration of Modern Neural Networks (arXiv:1706.04599), equation 3.
    """
    bins = reliability(probability, right)
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.probability - one.right) for one in bins) / total


def quantiles(confidence: Sequence[float]) -> tuple[float, ...]:
    """0 %, 1 %, ..., 100 % of the confidences; each is one that occurs."""
    shares = np.linspace(0, 1, QUANTILES)
    return tuple(np.quantile(np.array(confidence), shares, method="lower").tolist())


def gate_dict(
    signal: str,
    memory: Fit,
    reading: Mapping[int, Fit],
    confidence: Sequence[float],
    weights: ScoreWeights,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """What `openrag_core.calibration.read_gate` reads."""

    def points(one: Fit) -> dict[str, list[float]]:
        curve = one.calibration
        return {
            "confidence": [round(x, 6) for x in curve.confidence],
            "probability": [round(y, 4) for y in curve.probability],
        }

    errors = {
        "memory": round(memory.expected_error, 4),
        **{str(amount): round(one.expected_error, 4) for amount, one in reading.items()},
    }
    return {
        "signal": signal,
        "memory": points(memory),
        "reading": {str(amount): points(one) for amount, one in sorted(reading.items())},
        "quantiles": [floor(value * 1e6) / 1e6 for value in quantiles(confidence)],  # never above
        "weights": asdict(weights),
        "fitted_on": {**about, "questions": memory.questions, "expected_error": errors},
    }


def _calibration(
    values: NDArray[np.float64], labels: NDArray[np.float64], method: Method
) -> Calibration:
    if method == "platt":
        return _platt(values, labels)
    order = np.argsort(values, kind="stable")
    groups = max(2, min(_GROUPS, len(values) // _GROUP))
    parts = np.array_split(order, groups)
    x = np.array([values[own].mean() for own in parts])
    firsts = _firsts(x)
    x = x[firsts]
    right = np.add.reduceat([labels[own].sum() for own in parts], firsts)
    count = np.add.reduceat([len(own) for own in parts], firsts)
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0).fit(x, right / count, sample_weight=count)
    return _points(x, isotonic.predict(x))


def _platt(values: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
    """One logistic curve, as straight lines between points of the data."""
    grid = np.unique(np.quantile(values, np.linspace(0, 1, _PLATT_POINTS)))
    grid = grid[_firsts(grid)]
    if len(np.unique(labels)) == 1:
        return Calibration((float(values.mean()),), (float(labels[0]),))
    fitted = LogisticRegression(C=1e6).fit(values[:, None], labels)
    told = fitted.predict_proba(grid[:, None])[:, 1]
    if told[-1] < told[0]:  # confidence that misleads: one probability for all
        return Calibration((float(values.mean()),), (float(labels.mean()),))
    return _points(grid, told)


def _firsts(x: NDArray[np.float64]) -> list[int]:
    """Places in growing numbers where a group begins that rounding might make equal."""
    firsts = [0]
    for place, value in enumerate(x):
        if value - x[firsts[-1]] > _ROUNDED:
            firsts.append(place)
    return firsts


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> Calibration:
    return Calibration(tuple(x.tolist()), tuple(y.tolist()))
