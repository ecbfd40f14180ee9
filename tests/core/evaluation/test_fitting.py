"""core/openrag_core/evaluation/fitting.py: known probabilities are found again."""

import json
from pathlib import Path

import numpy as np
import pytest

from openrag_core import EvaluationError, ScoreWeights
from openrag_core.calibration import read_gate
from openrag_core.evaluation.fitting import (
    Fit,
    expected_calibration_error,
    fit,
    gate_dict,
    quantiles,
    reliability,
)

RANDOM = np.random.default_rng(0)
CONFIDENCE = RANDOM.uniform(0, 1, 2000)
RIGHT = RANDOM.uniform(0, 1, 2000) < CONFIDENCE**2  # overconfident: .7 is right in half the cases


def fitted(method: str = "isotonic") -> Fit:
    return fit(CONFIDENCE.tolist(), RIGHT.tolist(), method=method)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "tolerance"), [("isotonic", 0.07), ("platt", 0.08)])
def test_the_probability_behind_a_confidence_is_found(method: str, tolerance: float) -> None:
    curve = fitted(method).calibration
    for confidence in (0.2, 0.5, 0.7, 0.9):
        assert curve(confidence) == pytest.approx(confidence**2, abs=tolerance)


def test_what_was_said_comes_near_to_what_is_right() -> None:
    found = fitted()
    assert found.before == pytest.approx(1 / 6, abs=0.03)  # mean of c - c^2
    assert found.expected_error < 0.04
    assert sum(one.count for one in found.bins) == found.questions == 2000


def test_confidence_that_tells_nothing_gets_one_probability() -> None:
    right = (RANDOM.uniform(0, 1, 2000) < 0.3).tolist()
    for method in ("isotonic", "platt"):
        curve = fit(CONFIDENCE.tolist(), right, method=method).calibration
        assert curve(0.05) == pytest.approx(0.3, abs=0.12)
        assert curve(0.95) == pytest.approx(0.3, abs=0.12)
    misleading = fit(CONFIDENCE.tolist(), (~RIGHT).tolist(), method="platt").calibration
    (probability,) = misleading.probability
    assert probability == pytest.approx(float((~RIGHT).mean()))


def test_a_few_certain_answers_are_no_certainty() -> None:
    values = [0.5] * 100 + [0.99, 0.995, 1.0]
    right = [n % 2 == 0 for n in range(100)] + [True] * 3
    assert fit(values, right).calibration.probability[-1] < 0.7


def test_the_expected_error_by_hand() -> None:
    # Two bins: .25 said and 0 right (one of four), .75 said and 2/3 right.
    told, right = [0.25, 0.75, 0.75, 0.75], [0, 1, 1, 0]
    assert expected_calibration_error(told, right) == pytest.approx(
        0.25 / 4 + (0.75 - 2 / 3) * 3 / 4
    )
    first, second = reliability(told, right)
    assert (first.probability, first.right, first.count) == (0.25, 0.0, 1)
    assert second.right == pytest.approx(2 / 3)
    assert second.count == 3


def test_quantiles_occur() -> None:
    found = quantiles([0.1, 0.2, 0.9])
    assert (found[0], found[50], found[100], len(found)) == (0.1, 0.2, 0.9, 101)
    assert set(found) == {0.1, 0.2, 0.9}


def test_a_gate_is_made_of_it(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    reading, weights = {5: fitted(), 1: fitted()}, ScoreWeights(seq=0)
    made = gate_dict("f_meanp", fitted(), reading, CONFIDENCE.tolist(), weights, {"a": 1})
    file.write_text(json.dumps(made))
    gate = read_gate(file, min_accuracy=0.5)
    assert gate.gate.threshold == pytest.approx(0.5**0.5, abs=0.06)
    assert gate.amounts == (1, 5)
    half = read_gate(file, max_retrieval_rate=0.3)
    share = float((half.gate.threshold > CONFIDENCE).mean())
    assert 0.28 <= share <= 0.3
    assert gate.fitted_on["questions"] == 2000
    assert gate.weights == weights


def test_too_little_is_refused() -> None:
    with pytest.raises(EvaluationError, match="3 questions are too few"):
        fit([0.1, 0.2, 0.3], [True, False, True])
    with pytest.raises(EvaluationError, match="no finite number"):
        fit([float("nan")] * 60, [True] * 60)


def test_confidences_that_rounding_would_join_make_a_gate_that_can_be_read(tmp_path: Path) -> None:
    close = [0.2, 0.4, *(1 - n * 1e-8 for n in range(98))]
    made = fit(close, [n % 3 > 0 for n in range(100)], method="platt")
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(gate_dict("f_minp", made, {1: made}, close, ScoreWeights(), {})))
    assert read_gate(file, max_retrieval_rate=0.5).memory(0.999) > 0


def test_what_is_known_of_confidences_that_rounding_would_join_is_joined_too() -> None:
    right = [n >= 108 for n in range(200)]  # 46 %
    one = fit([1 - 1e-7 + n * 5e-10 for n in range(200)], right).calibration
    assert one.probability == pytest.approx((0.46,))
    ends = fit([n * 2e-8 for n in range(200)], right).calibration  # 4e-6 apart
    assert (ends.probability[0], ends.probability[-1]) == (0.0, 1.0)
