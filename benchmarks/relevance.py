"""Does MaxSim put the right passage first, and does its score part told from untold?

OPENRAG_TEST_DATA=... python benchmarks/relevance.py
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from time import perf_counter

from squad import Question, index, questions, rows

from openrag_core.build import Settings, build
from openrag_core.records import Passage

QUESTIONS = 300
FETCH = 20
THRESHOLDS = (0.45, 0.5, 0.55, 0.6, 0.65)


def main() -> None:
    """Print both tables."""
    passages = index(Path(".openrag-squad"))
    reranker = build(Settings(), retriever=passages).reranker
    assert reranker is not None
    told = questions(0, QUESTIONS)
    untold = [row["question"] for row in rows("triviaqa_dev")[:QUESTIONS]]

    asked = [question.text for question in told]
    start = perf_counter()
    found = passages.retrieve(asked, FETCH)
    searched = perf_counter()
    ranked = reranker.rerank(asked, found, FETCH)
    done = perf_counter()
    print(f"{'':10}   MRR  hit@1  hit@5  s per question")
    print(f"{'hybrid':10}{_row(told, found)}  {(searched - start) / QUESTIONS:.4f}")
    print(f"{'+ MaxSim':10}{_row(told, ranked)}  {(done - searched) / QUESTIONS:.4f}")

    other = reranker.rerank(untold, passages.retrieve(untold, FETCH), 1)
    print("\nminimum   kept of SQuAD's questions   kept of TriviaQA's, which nothing answers")
    for minimum in THRESHOLDS:
        shares = [fmean(_best(own) >= minimum for own in both) for both in (ranked, other)]
        print(f"{minimum:7}   {shares[0]:26.3f}   {shares[1]:.3f}")


def _row(asked: list[Question], found: list[list[Passage]]) -> str:
    ranks = [
        next((n for n, p in enumerate(own, start=1) if question.found_in(p)), 0)
        for question, own in zip(asked, found, strict=True)
    ]
    reciprocal = fmean(1 / rank if rank else 0.0 for rank in ranks)
    hits = (fmean(0 < rank <= k for rank in ranks) for k in (1, 5))
    return f" {reciprocal:.3f}" + "".join(f"  {hit:.3f}" for hit in hits)


def _best(passages: list[Passage]) -> float:
    return max((passage.rerank_score or 0.0 for passage in passages), default=0.0)


if __name__ == "__main__":
    main()
