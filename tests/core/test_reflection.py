"""core/openrag_core/reflection.py: the table of worths and the score, worked by hand."""

from math import inf, log, nan

import pytest

from openrag_core.errors import ReflectionError
from openrag_core.reflection import (
    RELEVANCE,
    SUPPORT,
    TOKENS,
    UTILITY,
    PassageScore,
    ScoreWeights,
)


def test_there_are_fifteen_different_tokens() -> None:
    assert len(TOKENS) == len(set(TOKENS)) == 15


def test_relevance_is_renormalised_over_its_two_tokens() -> None:
    assert RELEVANCE.mean_worth({"[Relevant]": log(0.3), "[Irrelevant]": log(0.1)}) == (
        pytest.approx(0.75)
    )


def test_partial_support_is_worth_half() -> None:
    replies = {
        "[Fully supported]": log(0.2),
        "[Partially supported]": log(0.4),
        "[No support / Contradictory]": log(0.2),
    }
    assert SUPPORT.mean_worth(replies) == pytest.approx((0.2 + 0.5 * 0.4) / 0.8)


def test_utility_runs_from_minus_one_to_one() -> None:
    stars = [0.1, 0.0, 0.2, 0.3, 0.4]
    replies = {f"[Utility:{n}]": log(p) if p else -inf for n, p in enumerate(stars, start=1)}
    assert UTILITY.mean_worth(replies) == pytest.approx(-0.1 + 0.5 * 0.3 + 0.4)


def test_probabilities_that_underflow_still_count() -> None:
    assert RELEVANCE.mean_worth({"[Relevant]": -1000.0, "[Irrelevant]": -1000.0}) == 0.5


@pytest.mark.parametrize(
    "replies",
    [
        {"[Relevant]": -1.0},  # the other token is absent
        {"[Relevant]": nan, "[Irrelevant]": -1.0},
        {"[Relevant]": 0.2, "[Irrelevant]": -1.0},  # a probability, not its logarithm
        {"[Relevant]": -inf, "[Irrelevant]": -inf},
    ],
)
def test_an_unusable_probability_is_refused(replies: dict[str, float]) -> None:
    with pytest.raises(ReflectionError, match="rel"):
        RELEVANCE.mean_worth(replies)


def test_the_total_is_the_weighted_sum() -> None:
    score = PassageScore(seq=0.6, rel=0.8, sup=0.5, use=-0.4)
    assert score.total(ScoreWeights()) == pytest.approx(0.6 + 0.8 + 0.5 - 0.2)
    assert score.total(ScoreWeights(rel=2, sup=0, use=1, seq=0)) == pytest.approx(1.6 - 0.4)


def test_the_released_sum_does_not_know_the_order_of_the_passages() -> None:
    score = PassageScore(seq=0.6, rel=0.8, reciprocal_rank=0.5)
    assert score.total(ScoreWeights()) == pytest.approx(0.6 + 0.8)
    assert score.total(ScoreWeights(reciprocal_rank=0.4)) == pytest.approx(0.6 + 0.8 + 0.2)


def test_rank_stands_in_place_of_rel() -> None:
    score = PassageScore(seq=0.6, rank=0.7)
    assert score.relevance == 0.7
    assert score.total(ScoreWeights(rel=2)) == pytest.approx(0.6 + 1.4)


def test_without_any_judgement_relevance_is_zero() -> None:
    assert PassageScore(seq=0.6).relevance == 0.0
