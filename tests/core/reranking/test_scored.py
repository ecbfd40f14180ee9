"""core/openrag_core/reranking/scored.py: the best first."""

from math import inf, nan

from openrag_core import Passage
from openrag_core.reranking.scored import best_first


def test_the_best_score_comes_first_and_one_that_is_no_number_last() -> None:
    """Nothing is less than it, so that it left whatever stood around it in its place."""
    passages = [Passage(id=name, text=name) for name in "abcdef"]
    ranked = best_first(passages, [0.1, nan, 0.9, -inf, nan, 0.9], 5)
    assert [passage.id for passage in ranked] == ["c", "f", "a", "d", "b"]
    assert [passage.rerank_score for passage in ranked[:4]] == [0.9, 0.9, 0.1, -inf]
