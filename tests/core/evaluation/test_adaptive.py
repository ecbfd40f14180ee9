"""core/openrag_core/evaluation/adaptive.py: four questions, every threshold by hand."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, floats, lists, sampled_from, tuples

from openrag_core import EvaluationError, Gate
from openrag_core.evaluation.adaptive import Curve, Trial, curves


def trial(memory: float, reading: float, confidence: float) -> Trial:
    return Trial(
        memory,
        reading,
        {"f_minp": confidence},
        memory_seconds=1.0,
        reading_seconds=3.0,
        memory_tokens=10,
        reading_tokens=50,
    )


# Sure and right, sure and wrong, unsure and wrong (reading helps), unsure and wrong (it does not).
TRIALS = [trial(1, 1, 0.9), trial(0, 1, 0.8), trial(0, 1, 0.2), trial(0, 0, 0.1)]


def by_order(trials: list[Trial]) -> dict[str, Curve]:
    return {curve.order: curve for curve in curves(trials)}


def test_every_threshold_is_swept() -> None:
    curve = by_order(TRIALS)["f_minp"]
    assert [(p.threshold, p.share, p.accuracy) for p in curve.points] == [
        (0.1, 0.0, 0.25),
        (0.2, 0.25, 0.25),
        (0.8, 0.5, 0.5),
        (0.9, 0.75, 0.75),
        (None, 1.0, 0.75),
    ]
    assert curve.area == pytest.approx((0.25 + 0.375 + 0.625 + 0.75) / 4)
    assert (curve.lossless.share, curve.best.share) == (0.75, 0.75)
    assert curve.at(0.625) == pytest.approx(0.625)


def test_time_and_tokens_add_up_along_the_curve() -> None:
    curve = by_order(TRIALS)["f_minp"]
    assert [p.seconds for p in curve.points] == pytest.approx([1.0, 1.75, 2.5, 3.25, 4.0])
    assert [p.tokens for p in curve.points] == pytest.approx([10, 22.5, 35, 47.5, 60])


def test_questions_of_equal_confidence_are_looked_up_together() -> None:
    same = [trial(0, 1, 0.5), trial(1, 0, 0.5), trial(0, 1, 0.7)]
    points = by_order(same)["f_minp"].points
    assert [(p.threshold, p.share) for p in points] == [
        (0.5, 0.0),
        (0.7, pytest.approx(2 / 3)),
        (None, 1.0),
    ]


def test_the_oracle_looks_up_what_it_gains_from() -> None:
    worse = [*TRIALS, trial(1, 0, 0.5)]  # of which reading makes a right answer a wrong one
    oracle = by_order(worse)["oracle"]
    assert oracle.best.accuracy == pytest.approx(4 / 5)
    assert oracle.best.share == pytest.approx(2 / 5)
    assert oracle.lossless.share == pytest.approx(2 / 5)


def test_chance_is_a_line() -> None:
    curve = by_order(TRIALS)["random"]
    assert curve.at(0.5) == pytest.approx((0.25 + 0.75) / 2)
    assert curve.area == pytest.approx(0.5)


@given(lists(tuples(booleans(), booleans(), floats(0, 1)), min_size=1, max_size=30))
def test_all_begin_and_end_alike_and_none_beats_the_oracle(
    rows: list[tuple[bool, bool, float]],
) -> None:
    found = by_order([trial(*row) for row in rows])
    oracle = found["oracle"]
    for curve in found.values():
        assert curve.points[0].accuracy == pytest.approx(oracle.points[0].accuracy)
        assert curve.points[-1].accuracy == pytest.approx(oracle.points[-1].accuracy)
        assert all(p.accuracy <= oracle.at(p.share) + 1e-9 for p in curve.points)


@given(lists(floats(0, 1), min_size=1, max_size=20), sampled_from(["f_minp", "f_ret"]))
def test_a_threshold_is_that_of_the_gate(
    values: list[float], signal: Literal["f_minp", "f_ret"]
) -> None:
    """What a `Gate` with it would look up of these questions is the share of its point."""
    asked = [Trial(0, 1, {signal: value}) for value in values]
    for point in by_order(asked)[signal].points:
        if point.threshold is not None:
            above = [value > point.threshold for value in values]
            below = [value < point.threshold for value in values]
            looked_up = above if signal == "f_ret" else below
            assert sum(looked_up) / len(values) == pytest.approx(point.share)
            Gate(signal, point.threshold)


def test_a_signal_that_some_questions_lack_has_no_curve() -> None:
    other = Trial(1, 1, {"f_minp": 0.5, "f_ret": 0.5})
    assert set(by_order([TRIALS[0], other])) == {"f_minp", "random", "oracle"}
    assert "f_ret" in by_order([other])
    with pytest.raises(EvaluationError, match="run openrag eval first"):
        curves([])
