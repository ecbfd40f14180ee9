"""core/openrag_core/training/questions.py: questions in files, and errors that name the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrag_core import TrainingDataError
from openrag_core.training import Question, Text, read_passages, read_questions, write_questions


def test_questions_come_back_as_they_were_written(tmp_path: Path) -> None:
    one = Text("Velora", "Ana.")
    questions = [
        Question("1", "Who?", ("Ana", "Tolvik"), (one,), (one, one), (one,), known=True),
        Question("2", "Where?", ("Keth",)),
    ]
    assert write_questions(questions, str(tmp_path / "q.jsonl")) == 2
    assert list(read_questions(str(tmp_path / "q.jsonl"))) == questions


def test_little_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    others = '"other": 1, "distractor_ids": ["7"]'
    file.write_text(f'{{"question": "Who?", "answers": ["Ana"], {others}}}\n', encoding="utf-8")
    (question,) = read_questions(file)
    assert question == Question("line 1", "Who?", ("Ana",))  # wherever the file lies
    nothing = '"id": null, "gold": null, "distractors": [{"title": null, "text": "It rained."}]'
    file.write_text(f'{{"question": "Who?", "answers": ["Ana"], {nothing}}}\n', encoding="utf-8")
    (other,) = read_questions(file)
    assert other == Question("line 1", "Who?", ("Ana",), distractors=(Text("", "It rained."),))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"question": 1}, r"line 1: field 'question' must be text"),
        ({"question": " "}, r"line 1: field 'question' must not be blank"),
        ({"gold": [{"text": " "}]}, r"line 1, gold: field 'text' must not be blank"),
        ({"answers": []}, r"field 'answers' must be a list of at least one text; got \[\]"),
        ({"answers": [""]}, r"field 'answers' must be"),
        ({"answers": "Ana"}, r"field 'answers' must be"),
        ({"gold": ["text"]}, r"field 'gold' must be a list of"),
        ({"distractors": [{"title": "x"}]}, r"distractors: field 'text' must be text; it is abs"),
        ({"known": "yes"}, r"field 'known' must be true, false or null"),
        ({"answers": None}, r"field 'answers' must be a list of at least one text; it is absent"),
        ({"distractor": []}, r"line 1: there is no field 'distractor': is 'distractors' meant\?"),
        ({"gold": [{"titel": "x", "text": "y"}]}, r"gold: there is no field 'titel': is 'title' "),
    ],
)
def test_a_malformed_question_is_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "Who?", "answers": ["Ana"]} | wrong), encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message):
        list(read_questions(file))


def test_passages_are_read_by_id(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "title": "T", "text": "x"}\n{"id": "b", "text": "y"}\n', "utf-8")
    assert read_passages(file) == {"a": Text("T", "x"), "b": Text("", "y")}
    file.write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "utf-8")
    with pytest.raises(TrainingDataError, match=r"line 2: the id 'a' is there already"):
        read_passages(file)
    file.write_text("\n", "utf-8")
    with pytest.raises(TrainingDataError, match=r"p\.jsonl: there is no passage in it"):
        read_passages(file)
    file.write_text('{"title": "T", "text": "x"}', "utf-8")
    with pytest.raises(TrainingDataError, match=r"line 1: field 'id'"):
        read_passages(file)
