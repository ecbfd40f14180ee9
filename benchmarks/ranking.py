"""Which part of the score should choose among answers while reflection tokens are untrained?

OPENRAG_TEST_DATA=... python benchmarks/ranking.py
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from squad import index, questions

from openrag_core.build import Settings, build
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.reflection import ScoreWeights
from openrag_core.scoring import rank

QUESTIONS = (300, 396)  # others than those on which the minimum of relevance was chosen
TOP_K = 5
WEIGHTS = {
    "rank alone": ScoreWeights(seq=0.0),
    "rank + seq": ScoreWeights(),
    "3 rank + seq": ScoreWeights(rel=3.0),
    "seq alone": ScoreWeights(rel=0.0),
}


def main() -> None:
    """Print the share of questions whose chosen answer holds a right one."""
    passages = index(Path(".openrag-squad"))
    rag = build(
        Settings(model=str(bundled_base()), top_k=TOP_K, max_new_tokens=48), retriever=passages
    )
    asked = questions(*QUESTIONS)
    written = []
    for question in asked:
        written += rag.generator.write(
            [question.text], [[[p] for p in rag.retrieve(question.text)]]
        )
    for name, weights in WEIGHTS.items():
        best = [rank(own, weights, reflection_trained=False)[0] for own in written]
        right = [q.answered_by(one.text) for q, one in zip(asked, best, strict=True)]
        print(f"{name:14} {fmean(right):.3f}")
    some = [any(q.answered_by(w.text) for w in own) for q, own in zip(asked, written, strict=True)]
    print(f"{'any of them':14} {fmean(some):.3f}")


if __name__ == "__main__":
    main()
