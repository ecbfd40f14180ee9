"""Questions that the bundled model is trained on, from $OPENRAG_TEST_DATA.

OPENRAG_TEST_DATA=... python recipes/bundled_questions.py OUT

Writes, for each of its four runs, OUT/RUN/single.jsonl (SQuAD and NQ, no question twice) and
OUT/RUN/chains.jsonl (HotpotQA, 2Wiki, MuSiQue, and for the first run template questions), and
OUT/passages.jsonl (SQuAD's, to mine distractors in). Files meant for training alone are read; NQ
questions that dev files share are left out.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from openrag_core.training import Question, Text, write_json_lines, write_questions
from openrag_core.words import normalised

MORE = "squad_v11_train_all_qas"
"""The questions of SQuAD beyond those of its other file, without distractors."""
SINGLE: Mapping[str, Mapping[str, int]] = {
    "first": {"squad_v11_train": 9000, "nq_qed_train": 4500, MORE: 5300},
    "second": {"squad_v11_train": 2300, "nq_qed_train": 500},
    "third": {"squad_v11_train": 100, "nq_qed_train": 900, MORE: 2100},
    "fourth": {"squad_v11_train": 420, "nq_qed_train": 175},
}
AGAIN = {"hotpotqa_train": 1122, "2wiki_train": 200, "musique_train": 100}
CHAINS: Mapping[str, Mapping[str, int]] = {
    "first": {**AGAIN, "2wiki_train": 500, "synthetic_2wiki_train": 2000},
    "second": AGAIN,
    "third": AGAIN,
    "fourth": {"hotpotqa_train": 300, "2wiki_train": 120, "musique_train": 60},
}
POOLS = {
    "squad_v11_train": "corpus_squad_train",
    "synthetic_2wiki_train": "corpus_multihop_train_pool",
}
HELD_OUT = ("nq_open_dev", "asqa_devA", "nq_qed_dev")


def main(out: Path) -> None:
    """Write the files of every run, and the passages."""
    held_out = {normalised(row["question"]) for name in HELD_OUT for row in rows(name)}

    def write(run: str, file: str, drawn: Iterable[Question]) -> None:
        kept = (one for one in drawn if normalised(one.question) not in held_out)
        (out / run).mkdir(parents=True, exist_ok=True)
        print(run, file, write_questions(kept, out / run / f"{file}.jsonl"))

    left = {name: shuffled(name) for name in SINGLE["first"]}
    for run, parts in SINGLE.items():
        write(run, "single", (one for name, n in parts.items() for one in islice(left[name], n)))
    for run, parts in CHAINS.items():
        chains = (one for name, n in parts.items() for one in islice(shuffled(name), n))
        write(run, "chains", chains)
    print("passages", write_json_lines(rows("corpus_squad_train"), out / "passages.jsonl"))


def shuffled(name: str) -> Iterator[Question]:
    """All questions of a file in an order drawn once, with their distractors."""
    data = more_of_squad() if name == MORE else rows(name)
    pool = {row["id"]: row for row in rows(POOLS[name])} if name in POOLS else {}
    if name == "nq_qed_train":  # ids are those of other questions: their passage
        pool = {row["id"]: row["gold"][0] for row in data}
    for row in random.Random(0).sample(data, len(data)):
        answers = tuple(filter(str.strip, row["answers"]))
        others = row.get("distractors") or [pool[id_] for id_ in row["distractor_ids"]]
        if answers:
            gold, distractors = (tuple(map(text, own)) for own in (row["gold"], others))
            yield Question(f"{name} {row['id']}", row["question"], answers, gold, distractors)


def more_of_squad() -> list[dict[str, Any]]:
    """Rows like those of the other file of SQuAD, of the questions that it does not have."""
    passages = {row["id"]: row for row in rows("corpus_squad_train")}
    known = {row["question"] for row in rows("squad_v11_train")}
    return [
        {
            "id": f"{row['para_id']} {number}",
            "question": question,
            "answers": answers,
            "gold": [passages[row["para_id"]]],
            "distractor_ids": (),
        }
        for row in rows(MORE)
        for number, (question, answers) in enumerate(row["qas"])
        if question not in known
    ]


def text(passage: dict[str, Any]) -> Text:
    """A passage of a data file."""
    return Text(passage["title"], passage["text"])


def rows(name: str) -> list[dict[str, Any]]:
    """All rows of a data file."""
    folder = os.environ.get("OPENRAG_TEST_DATA")
    if not folder:
        raise SystemExit("set OPENRAG_TEST_DATA to the folder that holds the data files")
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
