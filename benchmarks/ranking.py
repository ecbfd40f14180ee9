"""Which parts of the score should choose among the answers from five passages?

OPENRAG_TEST_DATA=... python benchmarks/ranking.py untrained
OPENRAG_TEST_DATA=... python benchmarks/ranking.py trained [FIRST LAST]

`untrained` asks the bundled model's base, whose reflection tokens mean nothing, and prints the
share of questions whose chosen answer holds a right one. `trained` asks the bundled model and
prints F1 and exact match, with 95 % intervals by bootstrap of what is gained over the released sum;
FIRST and LAST are questions of SQuAD dev, by default those on which the default was chosen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap
from squad import Question, index, questions

from openrag_core.build import Settings, build
from openrag_core.evaluation.metrics import exact_match, f1
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.records import Written
from openrag_core.reflection import ScoreWeights
from openrag_core.scoring import rank

TOP_K = 5
UNTRAINED = (300, 396)  # others than those on which the minimum of relevance was chosen
TRAINED = (512, 896)  # others than those of systems.py
SUMS_WITHOUT_CRITIQUE = {
    "rank alone": ScoreWeights(seq=0.0),
    "rank + seq": ScoreWeights(),
    "3 rank + seq": ScoreWeights(rel=3.0),
    "seq alone": ScoreWeights(rel=0.0),
}
SUMS = {
    "released": ScoreWeights(),
    **{f"+ {w} / place": ScoreWeights(reciprocal_rank=w) for w in (0.1, 0.25, 0.5, 1.0)},
    "place alone": ScoreWeights(rel=0, sup=0, use=0, seq=0, reciprocal_rank=1.0),
}


def untrained() -> None:
    """Print the share of questions whose chosen answer holds a right one."""
    asked = questions(*UNTRAINED)
    base = Settings(model=str(bundled_base()), max_new_tokens=48, top_k=TOP_K)
    written = _written(base, asked)
    for name, weights in SUMS_WITHOUT_CRITIQUE.items():
        best = [rank(own, weights, reflection_trained=False)[0] for own in written]
        right = [q.answered_by(one.text) for q, one in zip(asked, best, strict=True)]
        print(f"{name:14} {np.mean(right):.3f}")
    some = [any(q.answered_by(w.text) for w in own) for q, own in zip(asked, written, strict=True)]
    print(f"{'any of them':14} {np.mean(some):.3f}")


def trained(first: int, last: int) -> None:
    """Print F1 and exact match of the chosen answers, and what is gained over the released sum."""
    asked = questions(first, last)
    written = _written(Settings(max_new_tokens=32, top_k=TOP_K), asked)
    scores = {}
    for name, weights in SUMS.items():
        best = [rank(own, weights, reflection_trained=True)[0].text for own in written]
        pairs = [(text, question.answers) for text, question in zip(best, asked, strict=True)]
        scores[name] = np.array([f1(*pair) for pair in pairs])
        exact = np.mean([exact_match(*pair) for pair in pairs])
        print(f"{name:14} F1 {100 * scores[name].mean():.1f}  EM {100 * exact:.1f}")
    released = scores.pop("released")
    for name, own in scores.items():
        gain = own - released
        low, high = bootstrap((gain,), np.mean, random_state=0).confidence_interval
        print(f"{name:14} {100 * gain.mean():+.1f} F1 [{100 * low:.1f}, {100 * high:.1f}]")


def _written(settings: Settings, asked: list[Question]) -> list[list[Written]]:
    """What is written from the five best passages of each question."""
    rag = build(settings, retriever=index(Path(".openrag-squad")))
    written = []
    for question in asked:
        passages = rag.retrieve(question.text)
        written += rag.generator.write([question.text], [[[p] for p in passages]])
    return written


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["untrained"]:
            untrained()
        case ["trained"]:
            trained(*TRAINED)
        case ["trained", first, last]:
            trained(int(first), int(last))
        case _:
            raise SystemExit(__doc__)
