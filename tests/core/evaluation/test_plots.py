"""Pictures, and which experts serve which tokens."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from openrag_core import EvaluationError
from openrag_core.evaluation.adaptive import curves
from openrag_core.evaluation.plots import adaptive_curve, png, reliability_diagram, routing_map
from openrag_core.evaluation.routing import balance, expert_usage
from openrag_core.model import upcycle
from tests.core.evaluation.test_adaptive import TRIALS
from tests.core.evaluation.test_fitting import fitted
from tests.core.model.tiny import dense


def only(figure: object) -> Axes:
    axes: Axes = figure.axes[0]  # type: ignore[attr-defined]
    return axes


def test_the_curve_shows_every_signal_in_percent() -> None:
    axes = only(adaptive_curve(curves(TRIALS), metric="match"))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["f_minp (area 50.0)", "random (area 50.0)", "oracle (area 62.5)"]
    line = axes.get_lines()[0]
    assert np.asarray(line.get_xdata()).tolist() == [0, 25, 50, 75, 100]
    assert axes.get_ylabel() == "match (%)"


def test_the_reliability_diagram_shows_the_error() -> None:
    figure = reliability_diagram({"memory": fitted()})
    labels = [text.get_text() for text in only(figure).get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == [f"memory (ECE {fitted().expected_error:.3f})"]
    assert png(figure).startswith(b"\x89PNG")


def test_experts_are_counted_by_layer_and_kind() -> None:
    model = upcycle(dense(), num_experts=4, top_k=2, adapter_dim=3)
    texts = [[("question", [5, 6, 7]), ("answer", [8])], [("question", [9])]]
    usage = expert_usage(model, texts)
    assert {kind: table.shape for kind, table in usage.items()} == {
        "question": (2, 4),
        "answer": (2, 4),
    }
    for table in usage.values():
        np.testing.assert_allclose(table.sum(axis=1), 1.0)
    # Two of four experts serve the one token of the answer.
    assert sorted(usage["answer"][0].tolist()) == [0, 0, 0.5, 0.5]
    with pytest.raises(EvaluationError, match="no texts"):
        expert_usage(model, [])
    with pytest.raises(EvaluationError, match="LlamaForCausalLM has no experts"):
        expert_usage(dense(), texts)  # type: ignore[arg-type]


def test_balance_is_one_where_all_are_chosen_alike() -> None:
    even, single = np.full((2, 4), 0.25), np.eye(4)[:2]
    assert balance({"even": even, "single": single, "half": np.array([[0.5, 0.5, 0, 0]])}) == {
        "even": pytest.approx(1.0),
        "single": pytest.approx(0.0),
        "half": pytest.approx(0.5),
    }
    figure = routing_map({"even": even, "single": single})
    assert [axes.get_title() for axes in figure.axes[:2]] == ["even", "single"]
