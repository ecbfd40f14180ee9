"""What the draft costs: tokens that early stopping spares, and retrieval while it is written.

Questions of TriviaQA and NQ (closed book), drafts of up to 64 tokens by the bundled model. A draft
that stops early is decided as the whole one; that is checked here for every question.

    OPENRAG_TEST_DATA=... python benchmarks/drafts.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from squad import index, questions, rows
from timing import save

from openrag_core.gate import Gate
from openrag_core.model import TransformersGenerator, load
from openrag_core.ports import Retriever, Settled
from openrag_core.records import Draft, Signal
from openrag_core.steps import Call, Start, Steps, run

EACH = 100  # questions of a data set
TIMED = 8
GAMMAS = (0.2, 0.5, 0.8)
SIGNALS: tuple[Signal, ...] = ("f_minp", "f_meanp")
FETCH = 20


def main() -> None:
    """Print both tables and save them."""
    model, tokenizer = load("bundled")
    generator = TransformersGenerator(model, tokenizer)  # drafts of up to 64 tokens
    asked = [
        row["question"] for name in ("triviaqa_dev", "nq_open_dev") for row in rows(name)[:EACH]
    ]
    measured = [*_stopping(generator, asked), *_overlap(generator)]
    save(__file__, measured, dtype=str(model.dtype))


def _stopping(generator: TransformersGenerator, asked: list[str]) -> list[dict[str, Any]]:
    whole = generator.draft(asked)
    written = sum(len(draft.tokens) for draft in whole)
    print("signal   gamma  retrieve  stopped  tokens saved  time, whole / stopped")
    measured = []
    for signal in SIGNALS:
        for gamma in GAMMAS:
            gate = Gate(signal, gamma)
            drafts = generator.draft(asked, gate.settled)
            decided = [gate.by_confidence(draft).retrieve for draft in drafts]
            changed = _changed(gate, whole, drafts)
            times = _in_turns(
                [partial(_draft, generator, None), partial(_draft, generator, gate.settled)],
                asked[:TIMED],
            )
            row = {
                "signal": signal,
                "gamma": gamma,
                "retrieve": sum(decided) / len(asked),
                "stopped": sum(not draft.complete for draft in drafts) / len(asked),
                "saved": 1 - sum(len(draft.tokens) for draft in drafts) / written,
                "decisions_changed": changed,
                "time_ratio": sum(times[0]) / sum(times[1]),
            }
            measured.append(row)
            print(
                f"{signal:8} {gamma:5}  {row['retrieve']:8.2f}  {row['stopped']:7.2f}"
                f"  {row['saved']:12.2f}  {row['time_ratio']:8.1f}"
            )
    return measured


def _changed(gate: Gate, whole: list[Draft], drafts: list[Draft]) -> int:
    """Decisions that differ; in bfloat16 the smaller batches of stopped drafts may move one."""
    pairs = zip(whole, drafts, strict=True)
    return sum(gate.by_confidence(a).retrieve != gate.by_confidence(b).retrieve for a, b in pairs)


def _in_turns(ways: list[Callable[[str], Steps[Any]]], asked: list[str]) -> list[list[float]]:
    """Seconds of each way for each question, the first of which warms up."""
    times: list[list[float]] = [[] for _ in ways]
    for question in asked[:1] + asked:
        for way, taken in zip(ways, times, strict=True):
            start = perf_counter()
            run(way(question))
            taken.append(perf_counter() - start)
    return [taken[1:] for taken in times]


def _overlap(generator: TransformersGenerator) -> list[dict[str, Any]]:
    """Wall time of draft and retrieval together over the longer of the two."""
    retriever = index(Path(".openrag-squad"))
    asked = [question.text for question in questions(0, 2 * TIMED)]
    print("\ndraft of        draft, s  retrieval, s  both, s  both / longer")
    measured = []
    for name, gate in (("64 tokens", None), ("1 token", Gate("f_minp", 1.0))):
        settled = gate.settled if gate else None
        ways: list[Callable[[str], Steps[Any]]] = [
            partial(_draft, generator, settled),
            partial(_search, retriever),
            partial(_both, generator, settled, retriever),
        ]
        times = _in_turns(ways, asked)
        draft, found, both = map(median, times)
        ratio = median(b / max(d, f) for d, f, b in zip(*times, strict=True))
        measured.append(
            {"draft": name, "draft_s": draft, "retrieval_s": found, "both_s": both, "ratio": ratio}
        )
        print(f"{name:14}  {draft:8.3f}  {found:12.3f}  {both:7.3f}  {ratio:13.2f}")
    return measured


def _draft(generator: TransformersGenerator, settled: Settled | None, question: str) -> Steps[Any]:
    yield Call(generator, "draft", ([question], settled))


def _search(retriever: Retriever, question: str) -> Steps[Any]:
    yield Call(retriever, "retrieve", ([question], FETCH))


def _both(
    generator: TransformersGenerator,
    settled: Settled | None,
    retriever: Retriever,
    question: str,
) -> Steps[Any]:
    pending = yield Start(_search(retriever, question))
    yield from _draft(generator, settled, question)
    yield pending


if __name__ == "__main__":
    main()
