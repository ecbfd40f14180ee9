"""Results of `openrag eval` -> a fitted gate, and what it would have come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from sklearn.metrics import roc_auc_score

from openrag_core.calibration import CalibratedGate
from openrag_core.errors import EvaluationError
from openrag_core.evaluation.adaptive import Record, confidences_of
from openrag_core.evaluation.fitting import Fit, Method, fit, gate_dict
from openrag_core.evaluation.metrics import normalised_match
from openrag_core.evaluation.tasks import TASKS
from openrag_core.records import Signal
from openrag_core.reflection import ScoreWeights


@dataclass(frozen=True, slots=True)
class FittedGate:
    """A gate, and how good what it knows is."""

    signal: Signal
    right: float
    """Share of the drafts."""
    memory: Fit
    reading: Mapping[int, Fit]
    ranking: Mapping[Signal, float]
    """Area under the ROC curve of each signal: how well it tells right drafts from wrong ones;
    0.5 is chance."""
    gate: dict[str, Any]
    """For gate.json; `openrag_core.calibration.read_gate` reads it."""


def fit_gate(
    records: Sequence[Record],
    *,
    signal: Signal | None = None,
    method: Method = "isotonic",
    weights: ScoreWeights | None = None,
    about: Mapping[str, Any] | None = None,
) -> FittedGate:
    """Fit a `CalibratedGate`: an answer is right if one of the known ones stands in it.

    Args:
        records: Of one or more runs of free-text tasks, read from passages one by one.
        signal: By default the one that tells right drafts from wrong ones best.
        method: See `fit`.
        weights: Of the records' totals; by default those of the released code.
        about: Kept with the gate, for the reader.

    Raises:
        EvaluationError: There are fewer than 50 questions, or the tasks are such that no answer
            stands in a text (choices, claims, long answers).
    """
    asked = [one for one in records if one["reading"] is not None and one["answers"]]
    _check_tasks(asked)
    right = [_right(one, one["memory"]["text"]) for one in asked]
    signals: tuple[Signal, ...] = get_args(Signal)
    names = [name for name in signals if all(name in confidences_of(one) for one in asked)]
    if not asked or not names:
        raise EvaluationError("no questions to fit a gate to: run openrag eval with passages first")
    confidences = {name: [confidences_of(one)[name] for one in asked] for name in names}
    ranking = {name: _area(right, confidences[name]) for name in names}
    best: Signal = max(names, key=lambda name: (ranking[name], name == "f_meanp"))
    chosen = best if signal is None else signal
    if chosen not in ranking:
        raise EvaluationError(f"these results have no signal {chosen!r}: choose {', '.join(names)}")
    weights = weights or ScoreWeights()
    reading = {n: _fit_reading(asked, n, method, weights) for n in _amounts(asked)}
    memory = fit(confidences[chosen], right, method=method)
    gate = gate_dict(chosen, memory, reading, confidences[chosen], weights, about or {})
    return FittedGate(chosen, sum(right) / len(right), memory, reading, ranking, gate)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a target comes to on questions with known answers."""

    target: str
    answered: float
    """Share of the questions."""
    accuracy: float
    """Share of the answered ones that are right; nan where none is."""
    retrieved: float
    """Share of the questions that were looked up."""
    passages: float
    """Read per question."""


def simulate(gate: CalibratedGate, records: Sequence[Record]) -> Outcome:
    """What the gate would have done, from what was written; minima are left out."""
    asked = [one for one in records if one["reading"] is not None and one["answers"]]
    right, answered, retrieved, passages = 0, 0, 0, 0
    for one in asked:
        if not gate.opens(confidences_of(one)[gate.signal]):
            right += _right(one, one["memory"]["text"])
            answered += 1
            continue
        retrieved += 1
        written = len(one["reading"]["candidates"])
        for amount in gate.amounts:
            text, worth = _best(one, amount, gate.weights)
            if text and worth >= gate.least_worth(amount):
                right += _right(one, text)
                answered += 1
                break
            if amount >= written:
                break
        passages += min(amount, written)
    target = (
        f"min_accuracy {gate.min_accuracy:g}"
        if gate.min_accuracy is not None
        else f"max_retrieval_rate {gate.max_retrieval_rate:g}"
    )
    count = len(asked)
    accuracy = right / answered if answered else float("nan")
    return Outcome(target, answered / count, accuracy, retrieved / count, passages / count)


def _check_tasks(records: Sequence[Record]) -> None:
    other = sorted(
        {
            name
            for name in (one["task"] for one in records)
            if TASKS[name].form not in {"text", "abstention"} or TASKS[name].needs == "qa_pairs"
        }
    )
    if other:
        raise EvaluationError(
            f"a gate is fitted to short answers, and {', '.join(other)} has others: "
            "run openrag eval with a task such as nq, popqa or squad"
        )


def _amounts(records: Sequence[Record]) -> list[int]:
    most = max(len(one["reading"]["candidates"]) for one in records)
    if any(len(c["passages"]) != 1 for one in records for c in one["reading"]["candidates"]):
        raise EvaluationError(
            "these answers were read from several passages at once, and a gate decides how many "
            "are read one by one: run openrag eval with --evidence each and --hops 1"
        )
    return sorted({1, most} - {0})


def _fit_reading(
    records: Sequence[Record], amount: int, method: Method, weights: ScoreWeights
) -> Fit:
    best = [(one, *_best(one, amount, weights)) for one in records if one["reading"]["candidates"]]
    best = [(one, text, worth) for one, text, worth in best if text]  # the pipeline reads on
    worths = [worth for _, _, worth in best]
    return fit(worths, [_right(one, text) for one, text, _ in best], method=method)


def _best(record: Record, amount: int, weights: ScoreWeights) -> tuple[str, float]:
    """The best answer from the first passages of the ranking; `CalibratedGate.worth` of it."""
    ranked = sorted(record["reading"]["candidates"], key=_place)
    kept = [one for one in ranked[:amount] if one["text"]]
    if not kept:
        return "", float("-inf")
    best = max(kept, key=lambda one: one["total"])
    rank = best["score"].get("reciprocal_rank") or 0.0
    return best["text"], best["total"] - weights.reciprocal_rank * rank


def _place(candidate: Record) -> float:
    """By what passages are put in the order in which they were read."""
    passage = candidate["passages"][0]
    scores = (passage["rerank_score"], passage["retrieval_score"], 0.0)
    score = next(score for score in scores if score is not None)
    return -float(candidate["score"].get("reciprocal_rank") or score)  # older results have scores


def _right(record: Record, text: str) -> bool:
    return normalised_match(text, record["answers"]) > 0


def _area(right: Sequence[bool], confidence: Sequence[float]) -> float:
    if len(set(right)) < 2:
        return 0.5  # nothing to tell apart
    return float(roc_auc_score(np.array(right), np.array(confidence)))
