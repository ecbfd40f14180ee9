"""How well passages are found, by ranx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openrag_core.errors import EvaluationError
from openrag_core.ports import Reranker, Retriever, ranked_by
from openrag_core.records import Passage

METRICS = (
    "hit_rate@1",
    "hit_rate@5",
    "recall@1",
    "recall@5",
    "recall@10",
    "precision@5",
    "mrr@10",
    "ndcg@10",
    "map@10",
)
"""As ranx spells them: hit_rate, recall, precision, mrr, ndcg or map, at any depth."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question with its relevance judgements."""

    id: str
    text: str
    relevant: Mapping[str, int]
    """Grades by document, each >= 1; at least one."""


def evaluate_retriever(
    retriever: Retriever,
    queries: Sequence[Query],
    *,
    reranker: Reranker | None = None,
    top_k: int = 10,
    fetch_k: int = 20,
    metrics: Sequence[str] = METRICS,
) -> dict[str, list[float]]:
    """Ask a retriever everything, and measure what it finds.

    Documents count, by the best of their pieces: have the retriever give at most one of each, or
    the others take places. A passage of no document is known by its own id.

    Args:
        retriever: Finds.
        queries: At least one.
        reranker: Puts the best of what is found first.
        top_k: Passages that are measured, for each question.
        fetch_k: Passages that the reranker chooses from, at least `top_k` in any case.
        metrics: As ranx spells them.

    Returns:
        The score of every question, in [0, 1], by metric.

    Raises:
        EvaluationError: A metric looks deeper than `top_k`; or see `score_rankings`.
    """
    if deeper := [name for name in metrics if int(name.partition("@")[2] or 0) > top_k]:
        raise EvaluationError(
            f"{', '.join(deeper)} looks deeper than top_k={top_k}: raise top_k, or name other "
            "metrics"
        )
    texts = [query.text for query in queries]
    found = retriever.retrieve(texts, top_k if reranker is None else max(fetch_k, top_k))
    if reranker is not None:
        found = ranked_by(reranker, reranker.rerank(texts, found, top_k), len(texts), top_k)
    return score_rankings(queries, [documents(own) for own in found], metrics)


def documents(passages: Sequence[Passage]) -> list[str]:
    """The documents that passages are of, best first, each once."""
    return list(dict.fromkeys(str(p.metadata.get("doc_id", p.id)) for p in passages))


def score_rankings(
    queries: Sequence[Query], rankings: Sequence[Sequence[str]], metrics: Sequence[str] = METRICS
) -> dict[str, list[float]]:
    """Measure rankings of documents.

    Args:
        queries: At least one.
        rankings: Of each: ids of documents, best first.
        metrics: As ranx spells them.

    Returns:
        The score of every question, in [0, 1], by metric.

    Raises:
        EvaluationError: There is no question, two have one id, or one has nothing relevant.
    """
    _check(queries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, about ranx
        from ranx import Qrels, Run, evaluate  # noqa: PLC0415  (it compiles for seconds)

        qrels = Qrels({query.id: dict(query.relevant) for query in queries})
        run = Run(
            {
                # What is found nowhere still counts as asked.
                query.id: {name: 1.0 / rank for rank, name in enumerate(own, start=1)} or {"": 0.0}
                for query, own in zip(queries, rankings, strict=True)
            }
        )
        evaluate(qrels, run, list(metrics), return_mean=False)
    return {name: [float(run.scores[name][query.id]) for query in queries] for name in metrics}


def _check(queries: Sequence[Query]) -> None:
    if not queries:
        raise EvaluationError("there is no question to measure with")
    if len({query.id for query in queries}) < len(queries):
        raise EvaluationError("two questions have one id: give each its own")
    for query in queries:
        if not query.relevant or min(query.relevant.values()) < 1:
            raise EvaluationError(
                f"question {query.id!r} must have relevant documents, of grades >= 1; "
                f"got {dict(query.relevant)}"
            )
