"""Every task on the public dev files, by `openrag eval`, with the bundled model.

OPENRAG_TEST_DATA=... python benchmarks/tasks.py FOLDER LIMIT [NAME...]

Asks at most LIMIT questions of each file, keeps the results in FOLDER, one folder per row of the
table, and prints the table. Stopped, the same command goes on; with a larger LIMIT it asks what is
missing. NAMEs choose rows; by default all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import corpora
from squad import index as squad_index

from openrag_core.retrieval import PassageIndex


@dataclass(frozen=True, slots=True)
class Run:
    """One call of `openrag eval`."""

    task: str
    data: str
    options: tuple[str, ...]
    index: Callable[[], PassageIndex] | None = None
    """Makes what is searched, at the first call."""
    shown: tuple[str, ...] = ()
    """Metrics besides the main one."""


def _searched(folder: Path, *options: str) -> tuple[str, ...]:
    return ("--passages", "index", "--index", str(folder), *options)


SQUAD = Path(".openrag-squad")
WIKI, SCIFACT = (corpora.FOLDER / f"{name}-title" for name in ("wiki", "scifact"))
wiki, scifact = (partial(corpora.index, name) for name in ("wiki", "scifact"))
GIVEN, NONE = ("--passages", "given"), ("--passages", "none")
CHAIN = (*GIVEN, "--evidence", "joint", "--top-k", "2")
SPANS = ("f1", "precision", "recall")
KNOWS = ("abstained_unanswerable", "answered_answerable")
RUNS: Mapping[str, Run] = {
    "nq": Run("nq", "nq_qed_dev", _searched(WIKI), wiki, ("f1",)),
    "popqa": Run("popqa", "popqa_passages_dev", _searched(WIKI), wiki),
    "squad": Run("squad", "squad_v11_dev", _searched(SQUAD), partial(squad_index, SQUAD)),
    "claims": Run("claims", "scifact_claims_train", _searched(SCIFACT), scifact),
    "triviaqa": Run("triviaqa", "triviaqa_dev", NONE, shown=("normalised_match",)),
    "nq-open": Run("nq", "nq_open_dev", NONE, shown=("f1",)),
    "popqa-closed": Run("popqa", "popqa_closedbook_dev", NONE),
    "claims-closed": Run("claims", "scifact_claims_train", NONE),
    "arc": Run("arc_challenge", "arc_challenge_dev", NONE),
    "hotpotqa": Run("hotpotqa", "hotpotqa_distractor_devB", CHAIN, shown=SPANS),
    "2wiki": Run("2wiki", "2wiki_dev", CHAIN, shown=SPANS),
    "2wiki-hops": Run("2wiki", "2wiki_dev", _searched(WIKI, "--hops", "2"), wiki, SPANS),
    "squad_v2": Run("squad_v2", "squad_v20_dev", GIVEN, shown=KNOWS),
    "clapnq": Run("clapnq", "clapnq_dev_answerable", GIVEN, shown=("rouge_l",)),
    "clapnq-unanswerable": Run("clapnq", "clapnq_dev_unanswerable", GIVEN),
    "asqa": Run("asqa", "asqa_devA", GIVEN, shown=("rouge_l",)),
    "faithfulness": Run("faithfulness", "squad_v20_dev", GIVEN, shown=("grounded",)),
}


def main(folder: Path, limit: str, names: Sequence[str]) -> None:
    """Run what is missing, and print the table."""
    data = Path(os.environ.get("OPENRAG_TEST_DATA", ""))
    openrag = Path(sys.executable).with_name("openrag")
    for name in names:
        run = RUNS[name]
        if run.index is not None:
            run.index().close()
        command = [str(openrag), "eval", "--task", run.task, *run.options, "--limit", limit]
        command += ["--data", str(data / f"{run.data}.jsonl.gz"), "--out", str(folder / name)]
        subprocess.run(command, check=True)
    table(folder)


def table(folder: Path) -> None:
    """Print what the runs came to, as Markdown."""
    print("| task, file, questions | metric | from memory | from passages |\n|---|---|---|---|")
    for name, run in RUNS.items():
        file = folder / name / "summary.json"
        if file.is_file():
            for line in _lines(run, json.loads(file.read_text("utf-8"))):
                print(line)


def _lines(run: Run, summary: Mapping[str, Any]) -> Iterator[str]:
    label = f"{run.task}, {run.data}, {summary['n']}"
    for metric in dict.fromkeys((summary["metric"], *run.shown)):
        cells = (_cell(summary[way].get(metric)) for way in ("memory", "reading"))
        yield f"| {label} | {metric} | {' | '.join(cells)} |"
        label = ""


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['mean']:.3f}{interval}"


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, limit, *names] if limit.isdecimal() and RUNS.keys() >= set(names):
            main(Path(folder), limit, names or list(RUNS))
        case _:
            raise SystemExit(f"{__doc__}\nNAMEs: {', '.join(RUNS)}")
