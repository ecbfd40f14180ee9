"""How well are passages found: each kind of search, each fusion, each reranker, each context?

OPENRAG_TEST_DATA=... python benchmarks/retrieval.py [CORPUS...]

Documents count, by their best piece. Rerankers choose from the best 20 and are measured on the
first questions only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from corpora import CONTEXTS, CORPORA, index, questions

from openrag_core.build import Settings, build
from openrag_core.evaluation import Query, score_rankings
from openrag_core.evaluation.retrieval import METRICS, documents
from openrag_core.ports import Reranker
from openrag_core.records import Passage
from openrag_core.reranking.mixture import MixtureReranker
from openrag_core.reranking.reflection import ReflectionReranker
from openrag_core.reranking.scored import best_first
from openrag_core.retrieval import PassageIndex
from openrag_core.search import SearchOptions

SEARCHES = {
    "dense": SearchOptions(mode="dense", max_per_document=1),
    "BM25": SearchOptions(mode="sparse", max_per_document=1),
    "RRF, k = 2": SearchOptions(fusion="rrf", rrf_k=2, max_per_document=1),
    "RRF, k = 60": SearchOptions(fusion="rrf", rrf_k=60, max_per_document=1),
    "DBSF": SearchOptions(max_per_document=1),
}
FETCH = 20
RERANKED = 300  # questions
JUDGED = 50  # questions, by the generator
FILE = Path(__file__).with_suffix(".json")


def measure(asked: Sequence[Query], found: Sequence[Sequence[Passage]]) -> dict[str, float]:
    """Mean of each metric."""
    scores = score_rankings(asked, [documents(own) for own in found])
    return {name: round(fmean(values), 4) for name, values in scores.items()}


class Remembered:
    """A reranker that reads a passage once, however often it is asked."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self._scores: dict[tuple[str, str], float] = {}
        self.min_relevance = reranker.min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """As the reranker inside."""
        new = [
            [p for p in own if (question, p.id) not in self._scores]
            for question, own in zip(questions, passages, strict=True)
        ]
        if any(new):
            ranked = self._reranker.rerank(questions, new, FETCH)
            for question, own in zip(questions, ranked, strict=True):
                self._scores |= {(question, p.id): p.rerank_score or 0.0 for p in own}
        return [
            best_first(own, [self._scores[question, p.id] for p in own], top_k)
            for question, own in zip(questions, passages, strict=True)
        ]


def rerankers(passages: PassageIndex) -> dict[str, tuple[Reranker, int]]:
    """Each with the number of questions that it is measured on."""
    rag = build(Settings(), retriever=passages)
    assert rag.reranker is not None
    maxsim = Remembered(rag.reranker)
    reflection = Remembered(ReflectionReranker(rag.generator))  # type: ignore[arg-type]
    mixture = MixtureReranker([(maxsim, 1.0), (reflection, 1.0)])
    return {
        "MaxSim": (maxsim, RERANKED),
        "p([Relevant])": (reflection, JUDGED),
        "both": (mixture, JUDGED),
    }


def main(corpora: Sequence[str]) -> None:
    """Measure, and keep what was measured."""
    results: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.is_file() else {}
    for corpus in corpora:
        for name, table in _tables(corpus):
            results[name] = table
            FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            _show(name, table)


def _tables(corpus: str) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    asked = questions(corpus)
    for context in CONTEXTS:
        passages = index(corpus, context)
        texts = [one.text for one in asked]
        found = {name: passages.retrieve(texts, 10, how) for name, how in SEARCHES.items()}
        yield (
            f"{corpus}, context {context}",
            {name: measure(asked, own) for name, own in found.items()},
        )
        if context == "title":
            yield f"{corpus}, reranked", _reranked(passages, asked)
        passages.close()


def _reranked(passages: PassageIndex, asked: Sequence[Query]) -> dict[str, dict[str, float]]:
    table = {}
    step = max(1, len(asked) // RERANKED)
    spread = asked[::step][:RERANKED]  # files hold one topic after the other
    found = passages.retrieve([one.text for one in spread], FETCH, SEARCHES["DBSF"])
    for count in sorted({RERANKED, JUDGED}):
        table[f"DBSF ({count} questions)"] = measure(spread[:count], found[:count])
    for name, (reranker, count) in rerankers(passages).items():
        texts = [one.text for one in spread[:count]]
        ranked = reranker.rerank(texts, found[:count], 10)
        table[f"{name} ({count} questions)"] = measure(spread[:count], ranked)
    return table


def _show(title: str, table: dict[str, dict[str, float]]) -> None:
    sys.stdout.flush()
    print(f"\n{title:34}" + "".join(f"{name:>13}" for name in METRICS))
    for name, values in table.items():
        print(f"{name:34}" + "".join(f"{values[metric]:13.3f}" for metric in METRICS))


if __name__ == "__main__":
    main(sys.argv[1:] or list(CORPORA))
