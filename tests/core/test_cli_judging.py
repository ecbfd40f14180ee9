"""core/openrag_core/cli/judging.py: openrag judge, openrag data synthesize, as typed."""

import json
from pathlib import Path

import pytest

from openrag_core.training import read_questions
from tests.conftest import DOCUMENTS
from tests.core.test_cli import Run, openrag

__all__ = ["openrag"]  # a fixture

CHATS = """
import json
from openrag_core import Reply
from openrag_core.evaluation import Rubric
class Chat:
    name = "scripted"
    def reply(self, conversations):
        with open("asked.txt", "a") as file:
            file.write("x" * len(conversations))
        said = [self.say(one[-1].text) for one in conversations]
        return [Reply(text, prompt_tokens=100, new_tokens=10) for text in said]
    def say(self, asked):
        if "BEGIN PASSAGE" in asked:
            text = json.loads(asked.split("BEGIN PASSAGE")[1].split("END PASSAGE")[0])["text"]
            longest = max(text.split(), key=len)
            return json.dumps({"question": f"What of {len(text)}?", "answer": longest})
        useless = "Why" in asked or "cannot be used" in asked
        return "?" if useless else json.dumps({"reason": "r", "grade": 5})
chat = Chat()
short = Rubric("short", "How short is it?", {5: "Short.", 1: "Long."})
"""
DOWN = """
class Chat:
    name = "down"
    def reply(self, *_):
        raise OSError("no service")
chat = Chat()
"""
RECORD = {"answers": ["Ana"], "answerable": True, "memory": {"text": "Bo"}, "reading": None}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "chats.py").write_text(CHATS, encoding="utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    lines = (
        json.dumps({"id": str(n), "question": question} | RECORD) + "\n"
        for n, question in enumerate(("Who?", "Why?"))
    )
    (folder / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_an_evaluation_is_judged_once(openrag: Run, run_folder: Path) -> None:
    command = ("judge", "run", "--chat", "chats:chat", "--rubric", "correctness")
    prices = ("--rubric", "chats:short", "--prompt-price", "1", "--new-price", "10")
    done = openrag(*command, *prices)
    assert done.code == 0, done.err
    assert "paid now: 8 replies, 800 tokens read, 80 written, cost 0.0016" in done.out
    lines = (run_folder / "judgements.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["id"], one["rubric"], one["grade"], one["outcome"]) for one in found] == [
        ("0", "correctness", 5, "graded"),
        ("0", "short", 5, "graded"),
        ("1", "correctness", None, "failed"),
        ("1", "short", None, "failed"),
    ]
    again = openrag(*command, *prices)
    assert "in all: 8 replies" in again.out
    assert "paid now: 0 replies" in again.out
    assert Path("asked.txt").read_text("utf-8") == "x" * 8


def test_judgements_by_other_rubrics_stay(openrag: Run, run_folder: Path) -> None:
    command = ("judge", "run", "--chat", "chats:chat", "--rubric")
    openrag(*command, "correctness")
    done = openrag(*command, "chats:short")
    assert "1 failed, the first: " in done.err
    lines = (run_folder / "judgements.jsonl").read_text("utf-8").splitlines()
    found = [(one["id"], one["rubric"]) for one in map(json.loads, lines)]
    assert found == [("0", "correctness"), ("1", "correctness"), ("0", "short"), ("1", "short")]
    openrag(*command, "correctness")
    lines = (run_folder / "judgements.jsonl").read_text("utf-8").splitlines()
    assert sorted((one["id"], one["rubric"]) for one in map(json.loads, lines)) == sorted(found)


def test_a_judge_that_is_of_no_use_ends_with_a_code(openrag: Run, run_folder: Path) -> None:
    lines = (run_folder / "results.jsonl").read_text("utf-8").splitlines()
    (run_folder / "results.jsonl").write_text(lines[1] + "\n", encoding="utf-8")  # "Why?"
    done = openrag("judge", "run", "--chat", "chats:chat", "--rubric", "correctness")
    assert done.code == 1
    assert "1 failed, the first: " in done.err


@pytest.mark.usefixtures("run_folder")
def test_nothing_is_written_where_no_question_is_kept(openrag: Run) -> None:
    openrag("index", str(DOCUMENTS / "velora-bridge.md"))
    Path("down.py").write_text(DOWN, encoding="utf-8")
    command = ("data", "synthesize", "-o", "made.jsonl", "--attempts", "1", "-n", "1")
    done = openrag(*command, "--chat", "down:chat", "--max-passages", "1")
    assert done.code == 1
    assert "no question was kept, and made.jsonl was not written" in done.err
    assert not Path("made.jsonl").exists()


@pytest.mark.usefixtures("run_folder")
def test_questions_are_written_about_what_is_indexed(openrag: Run) -> None:
    openrag("index", str(DOCUMENTS / "velora-bridge.md"))
    command = ("data", "synthesize", "-o", "made.jsonl", "--chat", "chats:chat", "-n", "2")
    done = openrag(*command)
    assert done.code == 0, done.err
    assert "kept" in done.out
    assert len(list(read_questions(Path("made.jsonl")))) == 2
    before = Path("made.jsonl").read_text("utf-8")
    assert "paid now: 0 replies" in openrag(*command).out
    assert Path("made.jsonl").read_text("utf-8") == before


@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("judge", "none", "--chat", "chats:chat"), "none: holds no evaluation"),
        (("judge", "run", "--chat", "chats:none"), "--chat 'chats:none': expected MODULE:NAME"),
        (("judge", "run", "--chat", "chats:short"), "expected a chat model with `reply`, got Rub"),
        (("judge", "run", "--chat", "chats:chat", "--rubric", "x"), "or one of correctness, faith"),
        (("judge", "run", "--chat", "chats:chat", "--rubric", "chats:chat"), "expected a Rubric"),
        (("judge", "run", "--chat", "chats:chat", "--way", "reading"), "no answer from reading"),
        (("data", "synthesize", "-o", "q", "--chat", "chats:chat"), "there is no index"),
        (("data", "synthesize", "-o", "run", "--chat", "chats:chat"), "run is a folder: name a"),
    ],
)
def test_bad_input_is_said(openrag: Run, arguments: tuple[str, ...], message: str) -> None:
    result = openrag(*arguments)
    assert result.code == 1
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
