"""Four systems on one base: how well do they read, see through distractors, and choose?

OPENRAG_TEST_DATA=... python benchmarks/systems.py measure NAME MODEL [TASK...]
python benchmarks/systems.py table
python benchmarks/systems.py plain OUT ROWS...

NAME is dense (plain retrieval-augmented prompting; MODEL is a dense one), reading (LoRA on gold
evidence alone), reflection (LoRA with reflection tokens and distractors), mixture (the same rows,
with experts), mean (of the mixture's first three runs), fourth (a run from there) or bundled (the
mean of these two). `measure` writes benchmarks/systems/NAME.json, or goes on with it where it holds
numbers of the same weights; `table` prints what those files hold; `plain` makes the rows that
`reading` learns out of the others'. What is retrieved depends on no system: `retrieve`, or the
first system, finds it and keeps it in runs/found.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap
from squad import index, rows

from openrag_core.build import Settings, build
from openrag_core.evaluation.metrics import exact_match, f1, normalised_match
from openrag_core.evaluation.results import fingerprint
from openrag_core.model import TransformersGenerator, load
from openrag_core.model.checkpoints.dense import dense_folder
from openrag_core.records import Evidence, Passage, Written
from openrag_core.reflection import RELEVANCE, SUPPORT, TRAINED_WEIGHTS, ScoreWeights
from openrag_core.scoring import rank
from openrag_core.training import read_rows, without_reflection, write_rows
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER

QUESTIONS = 512
TOP_K = 5
FOLDER = Path(__file__).parent / "systems"
READING = ("squad_v11_dev", "nq_qed_dev", "hotpotqa_distractor_devB", "2wiki_dev")
CLOSED = ("triviaqa_dev", "nq_open_dev", "popqa_closedbook_dev")
FOUND = Path("runs/found")
Scores = dict[str, list[float]]
Found = list[list[Passage]]
NAMES = ("dense", "reading", "reflection", "mixture", "mean", "fourth", "bundled")
SUPPORTS = tuple(SUPPORT.worth)  # none, partial, full


def measure(name: str, model: str, only: Sequence[str]) -> None:
    """Run the tasks with one system, and keep the score of every question after each."""
    generator = _generator(name, model)
    reflects = name not in {"dense", "reading"}
    tasks: dict[str, Callable[[], Scores]] = {
        **{f"{task} gold": partial(_gold, generator, task) for task in READING},
        **({"critique": partial(_critique, generator)} if reflects else {}),
        "squad_v11_dev retrieved": partial(_retrieved, generator, reflects=reflects),
        "hotpotqa_distractor_devB retrieved": partial(_chains, generator),
        **{f"{task} closed": partial(_closed, generator, task) for task in CLOSED},
    }
    file = FOLDER / f"{name}.json"
    FOLDER.mkdir(exist_ok=True)
    weights, scores = _weights(name, model), Scores()
    if file.is_file() and (kept := json.loads(file.read_text("utf-8")))["weights"] == weights:
        scores = kept["scores"]
    for task in only or tasks:
        if any(key.startswith(task) for key in scores):
            continue  # of a run that was stopped
        made = tasks[task]()
        for key, values in made.items():
            print(f"{key:40} {100 * fmean(values):6.1f}  (n = {len(values)})", flush=True)
        scores |= {key: [round(value, 4) for value in values] for key, values in made.items()}
        made_by = {"weights": weights, "scores": scores}
        file.write_text(json.dumps(made_by) + "\n", encoding="utf-8")


def _gold(generator: TransformersGenerator, task: str) -> Scores:
    """The gold passage, or all of them as a chain."""
    data = rows(task)[:QUESTIONS]
    written = _written(generator, data, [[_passages(row["gold"])] for row in data])
    return _scored(f"{task} gold", data, [own[0].text for own in written])


def _closed(generator: TransformersGenerator, task: str) -> Scores:
    """Without reading."""
    data = rows(task)[:QUESTIONS]
    drafts = generator.draft([row["question"] for row in data])
    pairs = zip(drafts, data, strict=True)
    return {
        f"{task} closed match": [
            normalised_match(draft.text, row["answers"]) for draft, row in pairs
        ]
    }


def _retrieved(generator: TransformersGenerator, *, reflects: bool) -> Scores:
    """The five best passages of SQuAD dev; each gives an answer, and the best one counts.

    A system that reflects chooses by the released sum, and in a second row with the passage's rank
    beside it, as the pipeline does by default. One without has its first passage's answer taken,
    and in a second row the one from all five together: whichever is better for it.
    """
    data = rows("squad_v11_dev")[:QUESTIONS]
    found = _kept("squad_v11_dev", _find_in_squad)
    scores = {
        "squad_v11_dev found in five": [
            float(any(normalised_match(p.text, row["answers"]) for p in own))
            for row, own in zip(data, found, strict=True)
        ]
    }
    each = _written(generator, data, [[(passage,) for passage in own] for own in found])
    chosen = {"": ScoreWeights(seq=0.0)}
    if reflects:
        chosen = {"": ScoreWeights(), ", with rank": TRAINED_WEIGHTS}
    for name, weights in chosen.items():
        best = [rank(own, weights, reflection_trained=reflects)[0].text for own in each]
        scores |= _scored(f"squad_v11_dev retrieved{name}", data, best)
    if not reflects:
        joint = _written(generator, data, [[tuple(own)] for own in found])
        texts = [own[0].text for own in joint]
        scores |= _scored("squad_v11_dev retrieved, joint", data, texts)
    return scores


def _chains(generator: TransformersGenerator) -> Scores:
    """HotpotQA's ten paragraphs, of which the reranker's first two are read as a chain."""
    data = rows("hotpotqa_distractor_devB")[:QUESTIONS]
    best = _kept("hotpotqa_distractor_devB", _find_in_hotpotqa)
    written = _written(generator, data, [[tuple(own)] for own in best])
    return _scored("hotpotqa_distractor_devB retrieved", data, [own[0].text for own in written])


def _find_in_squad() -> Found:
    data = rows("squad_v11_dev")[:QUESTIONS]
    passages = index(Path(".openrag-squad"))
    asked = [row["question"] for row in data]
    return _reranked(asked, passages.retrieve(asked, 20), TOP_K)


def _find_in_hotpotqa() -> Found:
    data = rows("hotpotqa_distractor_devB")[:QUESTIONS]
    paragraphs = [list(_passages(row["gold"] + row["distractors"])) for row in data]
    return _reranked([row["question"] for row in data], paragraphs, 2)


def _reranked(asked: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int) -> Found:
    reranker = build(Settings(), retriever=_Nothing()).reranker
    assert reranker is not None
    return reranker.rerank(asked, passages, top_k)


def _kept(name: str, find: Callable[[], Found]) -> Found:
    """Passages of each question, kept for the next system."""
    file = FOUND / f"{name}.json"
    if not file.is_file():
        kept = [[asdict(p) for p in own] for own in find()]
        FOUND.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    read = json.loads(file.read_text("utf-8"))
    return [[Passage(**fields) for fields in own] for own in read]


def _critique(generator: TransformersGenerator) -> Scores:
    """Is a gold passage called relevant and a hard distractor not, and is support told apart?

    "Gold above distractor": of the two passages of a question, the gold one seems more relevant.
    """
    data, gold, hard = gold_and_hard()
    mixed = [
        (*own, *other) if number % 2 else (*other, *own)
        for number, (own, other) in enumerate(zip(gold, hard, strict=True))
    ]
    scores: Scores = {}
    worth: Scores = {}
    for name, evidence, relevant, support in (
        ("gold", gold, True, 2),
        ("distractor", hard, False, 0),
        ("mixed", mixed, True, 1),
    ):
        written = [own[0] for own in _written(generator, data, [[one] for one in evidence])]
        worth[name] = [RELEVANCE.mean_worth(one.tokens[0].reflections) for one in written]
        scores[f"critique: relevance {name}"] = [
            float((value > 0.5) == relevant) for value in worth[name]
        ]
        scores[f"critique: support {name}"] = [float(_support(one) == support) for one in written]
    pairs = zip(worth["gold"], worth["distractor"], strict=True)
    scores["critique: gold above distractor"] = [float(own > other) for own, other in pairs]
    return scores


def gold_and_hard() -> tuple[list[dict[str, Any]], list[Evidence], list[Evidence]]:
    """Questions of SQuAD, the gold passage of each, and its hardest distractor."""
    data = [row for row in rows("squad_v11_dev") if row["distractor_ids"]][:QUESTIONS]
    corpus = {row["id"]: row for row in rows("corpus_squad_dev")}
    gold: list[Evidence] = [_passages(row["gold"]) for row in data]
    return data, gold, [_passages([corpus[row["distractor_ids"][0]]]) for row in data]


def _support(written: Written) -> int | None:
    """Which of the three it says, at the first position where it says one."""
    for token in written.tokens:
        if token.text in SUPPORTS and token.special:
            return SUPPORTS.index(token.text)
    return None


def _weights(name: str, model: str) -> str:
    """SHA-256 of what answers; a card and a gate change no answer."""
    folder = BUNDLED_ADAPTER if model == BUNDLED else Path(model)
    if name == "dense":
        folder = dense_folder(model)
    return fingerprint(folder, without=("README.md", "gate.json"))


def _generator(name: str, model: str) -> TransformersGenerator:
    loaded, tokenizer = load(dense_folder(model) if name == "dense" else model)
    together = 8192 if loaded.device.type == "cpu" else 65536  # tokens
    return TransformersGenerator(loaded, tokenizer, max_new_tokens=32, max_batch_tokens=together)


def _written(
    generator: TransformersGenerator,
    data: Sequence[Mapping[str, Any]],
    evidence: Sequence[Sequence[Evidence]],
) -> list[list[Written]]:
    return generator.write([row["question"] for row in data], evidence)


def _passages(texts: Iterable[Mapping[str, str]]) -> tuple[Passage, ...]:
    return tuple(Passage(f"{n}", text["text"], text["title"]) for n, text in enumerate(texts))


def _scored(key: str, data: Sequence[Mapping[str, Any]], texts: list[str]) -> Scores:
    pairs = [(text.strip(), row["answers"]) for text, row in zip(texts, data, strict=True)]
    return {
        f"{key} F1": [f1(text, own) for text, own in pairs],
        f"{key} EM": [exact_match(text, own) for text, own in pairs],
    }


class _Nothing:
    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:  # noqa: ARG002
        return [[] for _ in questions]


def table() -> None:
    """Print every task as a row, and how much better the mixtures are, with a 95 % interval."""
    files = {name: FOLDER / f"{name}.json" for name in NAMES}
    kept = {name: json.loads(f.read_text("utf-8")) for name, f in files.items() if f.is_file()}
    found: dict[str, Scores] = {name: one["scores"] for name, one in kept.items()}
    for scores in found.values():  # of two ways to use five passages, the better one counts
        best, other = "squad_v11_dev retrieved F1", "squad_v11_dev retrieved, joint F1"
        if other in scores and fmean(scores[other]) > fmean(scores[best]):
            scores[best] = scores[other]
    tasks = list(dict.fromkeys(task for scores in found.values() for task in scores))
    for task in tasks:  # on the questions that all of them answered
        asked = min(len(scores[task]) for scores in found.values() if task in scores)
        for scores in found.values():
            if task in scores:
                scores[task] = scores[task][:asked]
    print(f"| task | {' | '.join(found)} |")
    print(f"|---|{'---:|' * len(found)}")
    for task in tasks:
        cells = (f"{100 * fmean(s[task]):.1f}" if task in s else "" for s in found.values())
        print(f"| {task} | {' | '.join(cells)} |")
    ours = [name for name in ("mixture", "mean", "fourth", "bundled") if name in found]
    for one, other in ((one, other) for one in ours for other in found if other not in ours):
        mean, low, high = _gained(found[one], found[other])
        print(f"{one} over {other}: {mean:+.1f} F1 [{low:.1f}, {high:.1f}]")


def _gained(scores: Scores, others: Scores) -> tuple[float, float, float]:
    """Mean difference of F1 over what is read, in points, with a 95 % interval by bootstrap.

    A question that was asked of gold and of retrieved passages is drawn with both.
    """
    differences: dict[tuple[str, int], list[float]] = defaultdict(list)
    for task in sorted(scores.keys() & others.keys()):  # a set has another order each time
        if task.endswith((" gold F1", " retrieved F1")):
            for number, pair in enumerate(zip(scores[task], others[task], strict=True)):
                differences[task.split()[0], number].append(pair[0] - pair[1])
    sums = [100 * sum(own) for own in differences.values()]
    amounts = [len(own) for own in differences.values()]
    low, high = bootstrap(
        (sums, amounts),
        lambda sums, amounts, axis: np.sum(sums, axis) / np.sum(amounts, axis),
        paired=True,
        rng=0,
    ).confidence_interval
    return sum(sums) / sum(amounts), low, high


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", name, model, *only] if name in NAMES:
            measure(name, model, only)
        case ["retrieve"]:
            _kept("squad_v11_dev", _find_in_squad)
            _kept("hotpotqa_distractor_devB", _find_in_hotpotqa)
        case ["table"]:
            table()
        case ["plain", out, *files]:
            learned = (row for file in files for row in read_rows(file))
            print(write_rows(without_reflection(learned), Path(out)))
        case _:
            raise SystemExit(__doc__)
