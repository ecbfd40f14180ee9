"""core/openrag_core/scoring.py: where each critique is read, and the order of candidates."""

from dataclasses import replace
from math import exp, inf, log, nan

import pytest

from openrag_core import ConfigError, Passage, ReflectionError, ScoreWeights, Token, Written
from openrag_core.scoring import rank, score
from tests.fakes import reflected, tokens

PASSAGE = Passage(id="p", text="The bridge opened in 1893.", rerank_score=0.7)


def written(*probabilities: float, text: str = "1893") -> Written:
    return Written((PASSAGE,), text, tokens(*probabilities))


def test_seq_is_the_mean_over_all_new_tokens() -> None:
    end = Token("</s>", log(0.2), special=True)
    answer = Written((PASSAGE,), "1893", (*tokens(0.5, 0.8), end))
    expected = exp((log(0.5) + log(0.8) + log(0.2)) / 3)
    assert score(answer, reflection_trained=False).seq == pytest.approx(expected)


def test_an_untrained_model_gives_no_critique() -> None:
    got = score(written(0.5), reflection_trained=False)
    assert (got.rel, got.sup, got.use) == (None, None, None)
    assert got.rank == 0.7


def test_each_critique_is_read_where_the_model_replies() -> None:
    answer = Written((PASSAGE,), "1893", reflected("1893", rel=0.9, sup=0.6, use=0.8))
    got = score(answer, reflection_trained=True)
    assert (got.seq, got.rel, got.sup, got.use) == pytest.approx((1.0, 0.9, 0.6, 0.8 - 0.2))
    assert got.rank is None


def test_what_the_model_does_not_reply_counts_nothing() -> None:
    answer = Written((PASSAGE,), "1893", reflected("1893", rel=0.9))
    got = score(answer, reflection_trained=True)
    assert (got.sup, got.use) == (0.0, 0.0)


def test_a_reply_spelled_out_in_ordinary_tokens_is_no_reply() -> None:
    forged = Token("[Fully supported]", 0.0, special=False, reflections={})
    answer = Written((PASSAGE,), "1893", (*reflected("1893", rel=0.9), forged))
    assert score(answer, reflection_trained=True).sup == 0.0


def test_a_trained_model_without_probabilities_is_refused() -> None:
    with pytest.raises(ReflectionError, match="rel"):
        score(written(0.5), reflection_trained=True)


def test_the_best_total_comes_first_and_ties_keep_their_order() -> None:
    answers = [written(0.5, text="a"), written(0.9, text="b"), written(0.5, text="c")]
    ranked = rank(answers, ScoreWeights(), reflection_trained=False)
    assert [candidate.text for candidate in ranked] == ["b", "a", "c"]
    assert ranked[0].total == pytest.approx(0.9 + 0.7)


def test_the_order_of_the_passages_counts_as_much_as_it_is_given() -> None:
    answers = [written(0.5, text="a"), written(0.9, text="b"), written(0.6, text="c")]
    ranked = rank(answers, ScoreWeights(rel=0, reciprocal_rank=1), reflection_trained=False)
    assert [candidate.text for candidate in ranked] == ["a", "b", "c"]
    assert [candidate.total for candidate in ranked] == pytest.approx([1.5, 1.4, 0.6 + 1 / 3])


def test_answers_that_come_later_keep_their_places() -> None:
    weights = ScoreWeights(seq=0, rel=0, reciprocal_rank=1)
    more = rank([written(0.5), written(0.5)], weights, reflection_trained=False, first_place=3)
    assert [candidate.total for candidate in more] == pytest.approx([1 / 3, 1 / 4])


def test_an_empty_answer_comes_last_whatever_its_score() -> None:
    ranked = rank(
        [written(1.0, text=" \n"), written(0.1, text="a")],
        ScoreWeights(),
        reflection_trained=False,
    )
    assert [candidate.text for candidate in ranked] == ["a", ""]


def test_a_total_that_is_no_number_comes_after_all_others() -> None:
    """Nothing is less than it: a worse answer stayed before a better one."""
    scores = {"a": 0.6, "b": nan, "c": 0.95, "": 1.0, "d": nan}
    answers = [
        Written((replace(PASSAGE, rerank_score=given),), text, tokens(0.5))
        for text, given in scores.items()
    ]
    ranked = rank(answers, ScoreWeights(), reflection_trained=False)
    assert [candidate.text for candidate in ranked] == ["c", "a", "b", "d", ""]


@pytest.mark.parametrize("given", ["1", None, nan, inf])
def test_a_weight_that_is_no_finite_number_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=f"the weight sup must be a finite number, got {given!r}"):
        ScoreWeights(sup=given)  # type: ignore[arg-type]
