"""Does a model tell relevant passages from hard distractors better after more training?

OPENRAG_TEST_DATA=... python benchmarks/learning.py measure TOKENS MODEL
python benchmarks/learning.py draw PICTURE

`measure` adds p([Relevant]) of gold passages and hard distractors (those of systems.py), as MODEL
judges them after TOKENS of training, to learning.json beside this file. `draw` prints what is in
it, with 95 % intervals by bootstrap over the questions, and draws it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import bootstrap, mannwhitneyu
from systems import gold_and_hard

from openrag_core.model import TransformersGenerator, load

QUESTIONS = 256
WANTED = 0.92
FILE = Path(__file__).with_suffix(".json")
Scores = NDArray[np.float64]
MEASURES: dict[str, Callable[[Scores, Scores], float]] = {
    "right at .5": lambda gold, hard: float(np.mean([gold > 0.5, hard <= 0.5])),
    "gold passages": lambda gold, _: float(np.mean(gold > 0.5)),
    "hard distractors": lambda _, hard: float(np.mean(hard <= 0.5)),
    "right at the best threshold": lambda gold, hard: max(
        float(np.mean([gold > at, hard <= at])) for at in np.concatenate([gold, hard])
    ),
    "area under the ROC curve": lambda gold, hard: float(
        mannwhitneyu(gold, hard).statistic / (len(gold) * len(hard))
    ),
    "gold above distractor": lambda gold, hard: float(np.mean(gold > hard)),
}


def measure(tokens: int, model: str) -> None:
    """Judge both passages of each question, and keep the probabilities."""
    data, *both = gold_and_hard()
    asked = [row["question"] for row in data[:QUESTIONS]]
    loaded, tokenizer = load(model)
    generator = TransformersGenerator(loaded, tokenizer)
    judged = [generator.judge(asked, list(map(list, own[:QUESTIONS]))) for own in both]
    gold, hard = ([round(score, 6) for (score,) in own] for own in judged)
    kept = _kept() | {str(tokens): {"gold": gold, "hard": hard}}
    ordered = {key: kept[key] for key in sorted(kept, key=int)}
    FILE.write_text(json.dumps(ordered) + "\n", encoding="utf-8")


def draw(picture: Path) -> None:
    """Print each measure after so many tokens, and draw it."""
    found = {
        int(tokens): (np.array(own["gold"]), np.array(own["hard"]))
        for tokens, own in _kept().items()
    }
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    millions = [tokens / 1e6 for tokens in found]
    for name, of in MEASURES.items():
        values = np.array([of(*scores) for scores in found.values()])
        ends = np.array([_interval(of, scores) for scores in found.values()])
        cells = (f"{v:.3f} ({a:.3f} to {b:.3f})" for v, (a, b) in zip(values, ends, strict=True))
        print(f"| {name} | {' | '.join(cells)} |")
        errors = np.abs(100 * (ends.T - values))
        axes.errorbar(
            millions, 100 * values, errors, marker="o", capsize=3, linewidth=1, label=name
        )
    axes.axhline(100 * WANTED, color="tab:gray", linestyle="--", label="wanted, at .5")
    axes.set(xlabel="tokens of training (millions)", ylabel="%", xscale="log", xticks=millions)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(picture, dpi=120)


def _interval(
    of: Callable[[Scores, Scores], float], scores: tuple[Scores, Scores]
) -> tuple[float, float]:
    made = bootstrap(
        scores, of, paired=True, vectorized=False, n_resamples=999, method="percentile", rng=0
    )
    low, high = made.confidence_interval
    return float(low), float(high)


def _kept() -> dict[str, Any]:
    return json.loads(FILE.read_text("utf-8")) if FILE.is_file() else {}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", tokens, model]:
            measure(int(tokens), model)
        case ["draw", picture]:
            draw(Path(picture))
        case _:
            raise SystemExit(__doc__)
