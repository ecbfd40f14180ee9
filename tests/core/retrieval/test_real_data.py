"""The index with the real encoder on real questions: SQuAD dev, where $OPENRAG_TEST_DATA has it."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from openrag_core.build import Settings, open_index
from openrag_core.retrieval.documents import Document, Section

FOLDER = Path(os.environ.get("OPENRAG_TEST_DATA", ""))


def rows(name: str) -> list[dict[str, Any]]:
    file = FOLDER / f"{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no {file.name}: set OPENRAG_TEST_DATA to the folder that holds it")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_right_passage_is_among_the_first_five(tmp_path: Path) -> None:
    asked = rows("squad_v11_dev")[:60]
    gold = {row["gold"][0]["text"] for row in asked}
    corpus = rows("corpus_squad_dev")
    others = [row for row in corpus if row["text"] not in gold][:240]
    passages = [row for row in corpus if row["text"] in gold] + others
    index = open_index(Settings(index=tmp_path / "index"))
    documents = (
        Document(row["id"], row["id"], "0", (Section(row["title"], row["text"]),))
        for row in passages
    )
    index.add_documents(documents)
    found = index.retrieve([row["question"] for row in asked], 5)
    hits = [
        any(passage.text[:40] in row["gold"][0]["text"] for passage in own)
        for row, own in zip(asked, found, strict=True)
    ]
    assert sum(hits) / len(hits) >= 0.95
    index.close()
