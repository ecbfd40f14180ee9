"""Four systems on one base: how well do they read, see through distractors, and choose?

OPENRAG_TEST_DATA=... python benchmarks/systems.py measure NAME MODEL
python benchmarks/systems.py table
python benchmarks/systems.py plain OUT ROWS...

NAME is dense (plain retrieval-augmented prompting; MODEL is a dense one), reading (LoRA on gold
evidence alone), reflection (LoRA with reflection tokens and distractors) or mixture (the same rows,
with experts). `measure` writes benchmarks/systems/NAME.json; `table` prints what those files hold;
`plain` makes the rows that `reading` learns out of the others'.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap
from squad import index, rows

from openrag_core.build import Settings, build
from openrag_core.model import TransformersGenerator, load, load_dense
from openrag_core.records import Evidence, Passage, Written
from openrag_core.reflection import RELEVANCE, SUPPORT, ScoreWeights
from openrag_core.scoring import rank
from openrag_core.training import read_rows, without_reflection, write_rows
from openrag_core.training.knowledge import normalised

QUESTIONS = 512
TOP_K = 5
FOLDER = Path(__file__).parent / "systems"
NAMES = ("dense", "reading", "reflection", "mixture")
SUPPORTS = tuple(SUPPORT.worth)  # none, partial, full


def measure(name: str, model: str) -> None:
    """Run every task with one system, and keep the score of every question."""
    generator = _generator(name, model)
    reflects = name in {"reflection", "mixture"}
    scores: dict[str, list[float]] = {}
    for task in ("squad_v11_dev", "nq_qed_dev", "hotpotqa_distractor_devB", "2wiki_dev"):
        data = rows(task)[:QUESTIONS]
        gold = [_passages(row["gold"]) for row in data]
        written = _written(generator, data, [[own] for own in gold])
        _add(scores, f"{task} gold", data, [own[0].text for own in written])
        print(task, fmean(scores[f"{task} gold F1"]), flush=True)
    for task in ("triviaqa_dev", "nq_open_dev", "popqa_closedbook_dev"):
        data = rows(task)[:QUESTIONS]
        drafts = generator.draft([row["question"] for row in data])
        scores[f"{task} closed match"] = [
            _match(draft.text, row["answers"]) for draft, row in zip(drafts, data, strict=True)
        ]
        print(task, fmean(scores[f"{task} closed match"]), flush=True)
    scores |= _retrieved(generator, reflects=reflects)
    scores |= _chains(generator)
    if reflects:
        scores |= _critique(generator)
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({key: [round(v, 4) for v in values] for key, values in scores.items()})
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    for key, values in scores.items():
        print(f"{key:40} {100 * fmean(values):6.1f}  (n = {len(values)})")


def _retrieved(generator: TransformersGenerator, *, reflects: bool) -> dict[str, list[float]]:
    """The five best passages of SQuAD dev; each gives an answer, and the best one counts.

    A system without reflection has its first passage's answer taken, and in a second row the one
    from all five together: whichever is better for it.
    """
    scores: dict[str, list[float]] = {}
    data = rows("squad_v11_dev")[:QUESTIONS]
    asked = [row["question"] for row in data]
    passages = index(Path(".openrag-squad"))
    reranker = build(Settings(), retriever=passages).reranker
    assert reranker is not None
    found = reranker.rerank(asked, passages.retrieve(asked, 20), TOP_K)
    scores["squad_v11_dev found in five"] = [
        float(any(_match(p.text, row["answers"]) for p in own))
        for row, own in zip(data, found, strict=True)
    ]
    each = _written(generator, data, [[(passage,) for passage in own] for own in found])
    weights = ScoreWeights() if reflects else ScoreWeights(seq=0.0)
    best = [rank(own, weights, reflection_trained=reflects)[0].text for own in each]
    _add(scores, "squad_v11_dev retrieved", data, best)
    if not reflects:
        joint = _written(generator, data, [[tuple(own)] for own in found])
        _add(scores, "squad_v11_dev retrieved, joint", data, [own[0].text for own in joint])
    return scores


def _chains(generator: TransformersGenerator) -> dict[str, list[float]]:
    """HotpotQA's ten paragraphs, of which the reranker's first two are read as a chain."""
    scores: dict[str, list[float]] = {}
    data = rows("hotpotqa_distractor_devB")[:QUESTIONS]
    reranker = build(Settings(), retriever=_Nothing()).reranker
    assert reranker is not None
    paragraphs = [_passages(row["gold"] + row["distractors"]) for row in data]
    asked = [row["question"] for row in data]
    best = reranker.rerank(asked, [list(own) for own in paragraphs], 2)
    written = _written(generator, data, [[tuple(own)] for own in best])
    _add(scores, "hotpotqa_distractor_devB retrieved", data, [own[0].text for own in written])
    return scores


def _critique(generator: TransformersGenerator) -> dict[str, list[float]]:
    """Is a gold passage called relevant and a hard distractor not, and is support told apart?"""
    data = [row for row in rows("squad_v11_dev") if row["distractor_ids"]][:QUESTIONS]
    corpus = {row["id"]: row for row in rows("corpus_squad_dev")}
    gold = [_passages(row["gold"]) for row in data]
    hard = [_passages([corpus[row["distractor_ids"][0]]]) for row in data]
    mixed = [
        (*own, *other) if number % 2 else (*other, *own)
        for number, (own, other) in enumerate(zip(gold, hard, strict=True))
    ]
    scores: dict[str, list[float]] = {}
    for name, evidence, relevant, support in (
        ("gold", gold, True, 2),
        ("distractor", hard, False, 0),
        ("mixed", mixed, True, 1),
    ):
        written = [own[0] for own in _written(generator, data, [[one] for one in evidence])]
        scores[f"relevance {name}"] = [
            float((RELEVANCE.mean_worth(one.tokens[0].reflections) > 0.5) == relevant)
            for one in written
        ]
        scores[f"support {name}"] = [float(_support(one) == support) for one in written]
    return scores


def _support(written: Written) -> int | None:
    """Which of the three it says, at the first position where it says one."""
    for token in written.tokens:
        if token.text in SUPPORTS and token.special:
            return SUPPORTS.index(token.text)
    return None


def _generator(name: str, model: str) -> TransformersGenerator:
    loaded, tokenizer = load_dense(model) if name == "dense" else load(model)
    return TransformersGenerator(loaded.eval(), tokenizer, max_new_tokens=32)


def _written(
    generator: TransformersGenerator,
    data: Sequence[Mapping[str, Any]],
    evidence: Sequence[Sequence[Evidence]],
) -> list[list[Written]]:
    return generator.write([row["question"] for row in data], evidence)


def _passages(texts: Iterable[Mapping[str, str]]) -> tuple[Passage, ...]:
    return tuple(Passage(f"{n}", text["text"], text["title"]) for n, text in enumerate(texts))


def _add(
    scores: dict[str, list[float]], key: str, data: Sequence[Mapping[str, Any]], texts: list[str]
) -> None:
    pairs = [(text.strip(), row["answers"]) for text, row in zip(texts, data, strict=True)]
    scores[f"{key} F1"] = [max(_f1(text, answer) for answer in own) for text, own in pairs]
    scores[f"{key} EM"] = [
        float(any(normalised(text) == normalised(answer) for answer in own)) for text, own in pairs
    ]


def _f1(text: str, answer: str) -> float:
    """Of the words, as in SQuAD's official script."""
    said, right = normalised(text).split(), normalised(answer).split()
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else float(said == right)


def _match(text: str, answers: Sequence[str]) -> float:
    return float(any(normalised(answer) in normalised(text) for answer in answers))


class _Nothing:
    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:  # noqa: ARG002
        return [[] for _ in questions]


def table() -> None:
    """Print every task as a row, and how much better the mixture is, with a 95 % interval."""
    files = {name: FOLDER / f"{name}.json" for name in NAMES}
    found = {name: json.loads(f.read_text("utf-8")) for name, f in files.items() if f.is_file()}
    for scores in found.values():  # of two ways to use five passages, the better one counts
        best, other = "squad_v11_dev retrieved F1", "squad_v11_dev retrieved, joint F1"
        if other in scores and fmean(scores[other]) > fmean(scores[best]):
            scores[best] = scores[other]
    print(f"| task | {' | '.join(found)} |")
    print(f"|---|{'---:|' * len(found)}")
    for task in dict.fromkeys(task for scores in found.values() for task in scores):
        cells = (f"{100 * fmean(s[task]):.1f}" if task in s else "" for s in found.values())
        print(f"| {task} | {' | '.join(cells)} |")
    for other in (name for name in found if name != "mixture" and "mixture" in found):
        tasks = [task for task in found["mixture"] if " F1" in task and task in found[other]]
        gains = [np.subtract(found["mixture"][task], found[other][task]) for task in tasks]
        joined = np.concatenate(gains)
        low, high = bootstrap((joined,), np.mean, random_state=0).confidence_interval
        print(
            f"mixture over {other}: {100 * joined.mean():+.1f} F1 "
            f"[{100 * low:.1f}, {100 * high:.1f}]"
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", name, model] if name in NAMES:
            measure(name, model)
        case ["table"]:
            table()
        case ["plain", out, *files]:
            learned = (row for file in files for row in read_rows(file))
            print(write_rows(without_reflection(learned), Path(out)))
        case _:
            raise SystemExit(__doc__)
