"""Questions that the bundled model is trained on, from $OPENRAG_TEST_DATA.

OPENRAG_TEST_DATA=... python recipes/bundled_questions.py OUT

Writes OUT/single.jsonl (SQuAD and NQ), OUT/chains.jsonl (HotpotQA, 2Wiki, MuSiQue and template
questions) and OUT/passages.jsonl (SQuAD's, to mine distractors in). Files meant for training alone
are read; NQ questions that dev files share are left out.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrag_core.training import Question, Text, write_json_lines, write_questions
from openrag_core.words import normalised

SINGLE = {"squad_v11_train": 9000, "nq_qed_train": 4500}
CHAINS = {
    "hotpotqa_train": 1122,
    "2wiki_train": 500,
    "musique_train": 100,
    "synthetic_2wiki_train": 2000,
}
POOLS = {
    "squad_v11_train": "corpus_squad_train",
    "synthetic_2wiki_train": "corpus_multihop_train_pool",
}
HELD_OUT = ("nq_open_dev", "asqa_devA", "nq_qed_dev")
MORE = 5300
"""Questions of SQuAD beyond those, from `squad_v11_train_all_qas`."""


def main(out: Path) -> None:
    """Write the three files."""
    held_out = {normalised(row["question"]) for name in HELD_OUT for row in rows(name)}
    for file, parts in (("single", SINGLE), ("chains", CHAINS)):
        drawn = [
            question
            for name, number in parts.items()
            for question in questions(name, number)
            if normalised(question.question) not in held_out
        ]
        if file == "single":
            drawn += more_of_squad({question.question for question in drawn})
        print(file, write_questions(drawn, out / f"{file}.jsonl"))
    print("passages", write_json_lines(rows("corpus_squad_train"), out / "passages.jsonl"))


def questions(name: str, number: int) -> Iterator[Question]:
    """So many questions of a file, drawn at random, with their distractors."""
    data = rows(name)
    drawn = random.Random(0).sample(data, min(number, len(data)))
    pool = {row["id"]: row for row in rows(POOLS[name])} if name in POOLS else {}
    if name == "nq_qed_train":  # ids are those of other questions: their passage
        pool = {row["id"]: row["gold"][0] for row in data}
    for row in drawn:
        answers = tuple(filter(str.strip, row["answers"]))
        if not answers:
            continue
        others = row.get("distractors") or [pool[id_] for id_ in row["distractor_ids"]]
        yield Question(
            f"{name} {row['id']}",
            row["question"],
            answers,
            tuple(map(text, row["gold"])),
            tuple(map(text, others)),
        )


def more_of_squad(known: set[str]) -> list[Question]:
    """Questions that the other SQuAD file does not have, without distractors."""
    passages = {row["id"]: text(row) for row in rows("corpus_squad_train")}
    asked = [
        (f"{row['para_id']} {number}", question, tuple(answers), passages[row["para_id"]])
        for row in rows("squad_v11_train_all_qas")
        for number, (question, answers) in enumerate(row["qas"])
        if question not in known
    ]
    return [
        Question(f"squad {id_}", question, answers, (gold,))
        for id_, question, answers, gold in random.Random(0).sample(asked, MORE)
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
