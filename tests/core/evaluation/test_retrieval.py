"""core/openrag_core/evaluation/retrieval.py, with values worked by hand."""

from math import log2
from typing import Any

import pytest

from openrag_core import EvaluationError, Passage
from openrag_core.evaluation import Query, evaluate_retriever, score_rankings
from tests.fakes import FakeReranker, FakeRetriever

QUERIES = [Query("1", "first?", {"a": 1, "b": 1}), Query("2", "second?", {"c": 2, "d": 1})]


def test_the_metrics() -> None:
    names = ["hit_rate@1", "hit_rate@2", "recall@2", "precision@2", "mrr@3", "ndcg@3", "map@3"]
    # first: x a b, of which a and b are relevant; second: nothing is
    found = score_rankings(QUERIES, [["x", "a", "b"], ["x", "y"]], names)
    ideal = 1 + 1 / log2(3)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {
            "hit_rate@1": 0.0,
            "hit_rate@2": 1.0,
            "recall@2": 1 / 2,
            "precision@2": 1 / 2,
            "mrr@3": 1 / 2,
            "ndcg@3": (1 / log2(3) + 1 / log2(4)) / ideal,
            "map@3": (1 / 2 + 2 / 3) / 2,
        }
    )
    assert all(values[1] == 0.0 for values in found.values())


def test_ndcg_counts_grades() -> None:
    found = score_rankings(QUERIES[1:], [["d", "c"]], ["ndcg@2"])
    assert found["ndcg@2"][0] == pytest.approx((1 + 2 / log2(3)) / (2 + 1 / log2(3)))


def test_documents_count_by_their_best_piece() -> None:
    pieces = [
        Passage("c-1", "", metadata={"doc_id": "c"}),
        Passage("x", ""),
        Passage("c-2", "", metadata={"doc_id": "c"}),
        Passage("d", ""),
    ]
    found = evaluate_retriever(FakeRetriever(pieces), QUERIES[1:], metrics=["mrr@10", "recall@3"])
    assert found == {"mrr@10": [1.0], "recall@3": [1.0]}


def test_a_reranker_chooses_from_more() -> None:
    passages = [Passage(name, "") for name in ("x", "y", "a", "b")]
    retriever = FakeRetriever(passages)
    reranker = FakeReranker({"x": 0.1, "y": 0.2, "a": 0.9, "b": 0.8})
    queries = QUERIES[:1]
    alone = evaluate_retriever(retriever, queries, top_k=2, metrics=["recall@2"])
    both = evaluate_retriever(
        retriever, queries, reranker=reranker, top_k=2, fetch_k=4, metrics=["recall@2"]
    )
    assert (alone, both) == ({"recall@2": [0.0]}, {"recall@2": [1.0]})
    assert [top_k for _, top_k in retriever.calls] == [2, 4]


def test_a_reranker_that_is_empty_is_asked_and_cut_to_what_is_measured() -> None:
    class Empty(FakeReranker):
        def __len__(self) -> int:
            return 0

        def rerank(self, questions: Any, passages: Any, top_k: int) -> Any:  # noqa: ANN401
            return super().rerank(questions, passages, top_k + 1)

    retriever = FakeRetriever([Passage(name, "") for name in ("x", "b", "a")])
    reranker = Empty({"x": 0.9, "b": 0.8, "a": 0.1})
    found = evaluate_retriever(
        retriever, QUERIES[:1], reranker=reranker, top_k=1, fetch_k=3, metrics=["recall@1"]
    )
    assert found == {"recall@1": [0.0]}
    assert retriever.calls == [(("first?",), 3)]


def test_nothing_found_is_measured_too() -> None:
    assert score_rankings(QUERIES, [[], ["c"]], ["recall@1"]) == {"recall@1": [0.0, 0.5]}


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "no question to measure with"),
        ([QUERIES[0], QUERIES[0]], "two questions have one id"),
        ([Query("3", "?", {})], r"question '3' must have relevant documents"),
        ([Query("4", "?", {"a": 0})], "of grades >= 1"),
    ],
)
def test_bad_queries_are_refused(queries: list[Query], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score_rankings(queries, [["a"]] * len(queries))


def test_no_metric_looks_deeper_than_what_was_found() -> None:
    with pytest.raises(EvaluationError, match=r"recall@5.*looks deeper than top_k=2"):
        evaluate_retriever(FakeRetriever([]), QUERIES, top_k=2, metrics=["recall@2", "recall@5"])
    retriever = FakeRetriever([Passage(str(n), "") for n in range(40)])
    same = {str(n): 0.5 for n in range(40)}
    evaluate_retriever(
        retriever, QUERIES, reranker=FakeReranker(same), top_k=30, metrics=["recall@30"]
    )
    assert [top_k for _, top_k in retriever.calls] == [30]
