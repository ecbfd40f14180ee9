"""Records -> means, each with how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from openrag_core.errors import EvaluationError

Way = Literal["memory", "reading"]
WAYS: tuple[Way, ...] = ("memory", "reading")
_RESAMPLES = 2000
_BATCH = 100  # resamples in memory at once: 100 x 10,000 questions are 8 MB
_CONFIDENCE = 0.95


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of every metric, both ways, over all records and over those of each kind.

    Returns:
        {"task", "metric", "n", "memory": {metric: mean_with_interval(...)}, "reading": {...},
        "kinds": {kind: {"memory": mean of the main metric, "reading": ..., "n": ...}},
        "refused": number of questions that could not be asked,
        "unread": number of questions for which there was no passage to read, those included,
        "seconds" and "tokens": {"memory": mean of a question, "reading": ...}}.

    Raises:
        EvaluationError: There is no record.
    """
    if not records:
        raise EvaluationError("there is no result to sum up: ask at least one question")
    metric = records[0]["metric"]
    kinds = sorted({record["kind"] for record in records})
    return {
        "task": records[0]["task"],
        "metric": metric,
        "n": len(records),
        **{way: _means(records, way) for way in WAYS},
        "kinds": {kind: _of_kind(records, kind, metric) for kind in kinds if kind},
        "refused": sum(isinstance(one["extra"].get("refused"), str) for one in records),
        "unread": sum(not one["candidates"] for one in _given(records, "reading")),
        "seconds": {way: _mean(map(seconds, _given(records, way))) for way in WAYS},
        "tokens": {way: _mean(one["tokens"] for one in _given(records, way)) for way in WAYS},
    }


def mean_with_interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean of some scores, and where it would be in 95 of 100 such samples.

    By the percentile bootstrap of scipy, with a fixed seed.

    Returns:
        {"mean", "n", "low", "high"}; without an interval where there are fewer than two values.
    """
    found: dict[str, float | int | None] = {"mean": fmean(values), "n": len(values)}
    if len(values) < 2:
        return found | {"low": None, "high": None}
    import numpy as np  # noqa: PLC0415  (slow to load)
    from scipy.stats import bootstrap  # noqa: PLC0415

    interval = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=0,
    ).confidence_interval
    return found | {"low": float(interval.low), "high": float(interval.high)}


def seconds(given: Mapping[str, Any]) -> float:
    """Of one way of a record: wall time, as a share of its batch."""
    took = given["seconds"]
    return sum(took.values()) if isinstance(took, Mapping) else float(took)


def _given(records: Sequence[Mapping[str, Any]], way: Way) -> list[Mapping[str, Any]]:
    return [record[way] for record in records if record[way] is not None]


def _means(records: Sequence[Mapping[str, Any]], way: Way) -> dict[str, Any]:
    names = dict.fromkeys(name for record in records for name in record["scores"].get(way) or ())
    return {name: mean_with_interval(_values(records, way, name)) for name in names}


def _of_kind(
    records: Sequence[Mapping[str, Any]], kind: str, metric: str
) -> dict[str, float | int | None]:
    own = [record for record in records if record["kind"] == kind]
    return {way: _mean(_values(own, way, metric)) for way in WAYS} | {"n": len(own)}


def _values(records: Iterable[Mapping[str, Any]], way: Way, name: str) -> list[float]:
    scored = (record["scores"].get(way) or {} for record in records)
    return [scores[name] for scores in scored if name in scores]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None
