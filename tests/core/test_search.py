"""core/openrag_core/search.py: options that contradict themselves."""

import pytest

from openrag_core import ConfigError, Field, FilterError, SearchOptions


def test_a_dictionary_is_a_filter() -> None:
    assert SearchOptions(filter={"page": 3}).filter == (Field("page") == 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "hybrid, dense, sparse; got 'both'"),
        ({"fusion": "sum"}, "dbsf, rrf; got 'sum'"),
        ({"rrf_k": 0}, "rrf_k must be a whole number, at least 1"),
        ({"prefetch": 0}, "prefetch must be a whole number, at least 1"),
        ({"neighbours": -1}, "neighbours must be a whole number, at least 0"),
        ({"max_per_document": 1.5}, "max_per_document must be a whole number, at least 1, got 1.5"),
        ({"max_per_document": 0}, "max_per_document must be a whole number, at least 1"),
        ({"diversity": 1.5}, r"diversity must be in \[0, 1\]"),
        ({"rrf_weights": (1.0, 0.0)}, "two numbers > 0"),
        ({"diversity": "0.3"}, "diversity must be a number; got '0.3'"),
        (
            {"rrf_weights": (float("nan"), 1.0)},
            r"rrf_weights must be two numbers; got \(nan, 1.0\)",
        ),
        ({"rrf_weights": (1.0,)}, "must be two numbers"),
        ({"rrf_k": None}, "rrf_k must be a whole number; got None"),
        ({"neighbours": None}, "neighbours must be a whole number; got None"),
        ({"min_score": float("nan"), "mode": "dense"}, "min_score must be a number; got nan"),
        ({"min_score": "0.5", "mode": "dense"}, "min_score must be a number; got '0.5'"),
        ({"min_score": 0.5}, "no meaning for fused scores"),
        ({"filter": "source == a"}, "is no filter"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, FilterError), match=message):
        SearchOptions(**options)  # type: ignore[arg-type]
