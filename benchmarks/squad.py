"""SQuAD dev as a retrieval task, for the benchmarks beside this file.

Reads `squad_v11_dev` (questions, answers, gold passages), `corpus_squad_dev` (every passage) and
`triviaqa_dev` (questions that no SQuAD passage answers) from $OPENRAG_TEST_DATA.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrag_core.build import Settings, open_index
from openrag_core.evaluation.metrics import normalised_match
from openrag_core.records import Passage
from openrag_core.retrieval import PassageIndex
from openrag_core.retrieval.documents import Document, Section


@dataclass(frozen=True, slots=True)
class Question:
    """One of SQuAD's."""

    text: str
    answers: tuple[str, ...]
    gold: str
    """The passage that it was asked about."""

    def found_in(self, passage: Passage) -> bool:
        """Whether this is (a piece of) the gold passage and holds an answer."""
        return passage.text[:40] in self.gold and self.answered_by(passage.text)

    def answered_by(self, text: str) -> bool:
        """Whether an answer stands in the text, both normalised as in the official script."""
        return bool(normalised_match(text, self.answers))


def rows(name: str) -> list[dict[str, Any]]:
    """All rows of a data file."""
    folder = os.environ.get("OPENRAG_TEST_DATA")
    if not folder:
        raise SystemExit("set OPENRAG_TEST_DATA to the folder that holds squad_v11_dev.jsonl.gz")
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def questions(start: int, stop: int) -> list[Question]:
    """Some questions of the dev set."""
    return [
        Question(row["question"], tuple(row["answers"]), row["gold"][0]["text"])
        for row in rows("squad_v11_dev")[start:stop]
    ]


def index(folder: Path) -> PassageIndex:
    """The dev passages, indexed into the folder at the first call."""
    made = open_index(Settings(index=folder))
    made.add_documents(  # those that are there already are passed over
        Document(row["id"], row["id"], "0", (Section(row["title"], row["text"]),))
        for row in rows("corpus_squad_dev")
    )
    return made
