"""core/openrag_core/cli/evaluation.py: openrag eval, as typed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openrag_core import Draft, OpenRAG, Retriever
from openrag_core.build import Settings
from openrag_core.cli import evaluation as cli
from openrag_core.evaluation import TASKS, read_results
from openrag_core.evaluation.tasks import SHORTEST
from openrag_core.reflection import ScoreWeights
from tests.core.test_cli import Run, openrag
from tests.fakes import FakeGenerator, FakeReranker, tokens

__all__ = ["openrag"]  # a fixture

COUNT = 5
ASKED = [f"question {n}" for n in range(COUNT)]
ARGUMENTS = ("eval", "--task", "squad", "--data", "data.jsonl", "--out", "out")
USAGE = 2
INTERRUPTED = 130


class Generator(FakeGenerator):
    """One that can be stopped at a question."""

    stop_at = ""

    def write(self, questions: Sequence[str], evidence: Any) -> Any:  # noqa: ANN401
        if self.stop_at in questions:
            raise KeyboardInterrupt
        return super().write(questions, evidence)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Data in the folder that commands run in; what pipelines were to be built from."""
    passages = [{"id": "a", "title": "A", "text": "right answer"}]
    rows = [
        {"id": f"q{n}", "question": text, "answers": ["right"], "ctxs": passages}
        for n, text in enumerate(ASKED)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    asked: list[Settings] = []

    def build(settings: Settings, retriever: Retriever) -> OpenRAG:
        asked.append(settings)
        drafts = dict.fromkeys(ASKED, Draft("wrong", tokens(0.5)))
        return OpenRAG(Generator(drafts=drafts), retriever, reranker=FakeReranker({"a": 0.9}))

    monkeypatch.setattr(cli, "build", build)
    return asked


def test_a_table_of_both_ways(openrag: Run) -> None:
    done = openrag(*ARGUMENTS)
    assert done.code == 0, done.err
    assert "squad, 5 questions" in done.out
    assert "0.0 [0.0, 0.0]" in done.out
    assert "66.7 [66.7, 66.7]" in done.out  # right answer / right: 2 * 1/2 / (3/2)
    assert "5 asked now; everything is in out" in done.out
    assert "0 asked now" in openrag(*ARGUMENTS).out


def test_interrupted_it_says_how_to_go_on(
    openrag: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Generator, "stop_at", ASKED[4])
    stopped = openrag(*ARGUMENTS, "--batch-size", "2")
    assert stopped.code == INTERRUPTED
    assert "4 questions done: the same command goes on from there" in stopped.err
    assert "Traceback" not in stopped.err
    monkeypatch.setattr(Generator, "stop_at", "")
    assert "1 asked now" in openrag(*ARGUMENTS).out
    _, records = read_results(tmp_path / "out")
    assert [record["id"] for record in records] == [f"q{n}" for n in range(COUNT)]


def test_another_configuration_is_refused(openrag: Run) -> None:
    openrag(*ARGUMENTS)
    refused = openrag(*ARGUMENTS, "--max-new-tokens", "8")
    assert refused.code == 1
    assert "settings.max_new_tokens: 64 there, 8 now" in refused.err


def test_every_task_is_named_in_the_help(openrag: Run) -> None:
    assert set(TASKS) <= set(re.findall(r"\w+", openrag("eval", "--help").out))


def test_the_released_instruction_is_the_tasks(openrag: Run, settings: list[Settings]) -> None:
    openrag(*ARGUMENTS, "--instruction", "released")
    openrag("eval", "--task", "hotpotqa", *ARGUMENTS[3:-1], "other", "--instruction", "released")
    assert [one.instruction for one in settings] == [None, SHORTEST]


def test_the_released_score_is_the_published_sum(openrag: Run, settings: list[Settings]) -> None:
    openrag(*ARGUMENTS)
    openrag(*ARGUMENTS[:-1], "other", "--released-score")
    assert [one.weights for one in settings] == [None, ScoreWeights()]


def test_what_determines_the_numbers_is_kept_and_no_key(openrag: Run, tmp_path: Path) -> None:
    openrag(*ARGUMENTS, "--qdrant-api-key", "secret", "--model", str(tmp_path))
    text = (tmp_path / "out" / "config.json").read_text("utf-8")
    assert "secret" not in text
    kept = json.loads(text)["settings"]
    assert kept["model"] == str(tmp_path)
    assert kept["model_sha256"]  # of the files in there


def test_a_gate_fitted_to_its_answers_makes_no_other_model(openrag: Run, tmp_path: Path) -> None:
    arguments = (*ARGUMENTS, "--model", str(tmp_path / "model"))
    (tmp_path / "model").mkdir()
    openrag(*arguments)
    for name in ("gate.json", "README.md"):
        (tmp_path / "model" / name).write_text("{}")
    assert openrag(*arguments).code == 0
    (tmp_path / "model" / "config.json").write_text("{}")
    refused = openrag(*arguments)
    assert refused.code == 1
    assert "settings.model_sha256" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "trivia"), "no task 'trivia': choose one of popqa, triviaqa"),
        (("--data", "none.jsonl"), "--data none.jsonl: cannot be read"),
        (("--out", __file__), "test_cli_evaluation.py is a file: name a folder"),
        (("--passages", "index"), "openrag index"),
    ],
)
def test_mistakes_are_named(openrag: Run, arguments: tuple[str, ...], message: str) -> None:
    done = openrag(*ARGUMENTS, *arguments)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err


def test_numbers_out_of_range_are_refused_before_anything_is_loaded(openrag: Run) -> None:
    refused = openrag(*ARGUMENTS, "--limit", "0")
    assert refused.code == USAGE
    assert "--limit" in refused.err
    assert "greater than or equal to 1" in refused.err
    assert "answering" not in refused.err
