"""core/openrag_core/cli/training.py: openrag data build | train, as typed."""

import json
from pathlib import Path

import pytest
import yaml

from openrag_core.training import Recipe, read_rows, write_recipe
from tests.core.test_cli import Run, openrag
from tests.core.training.tiny import make_base, make_rows, recipe

__all__ = ["openrag"]  # a fixture

PASSAGES = (
    {"id": "a", "title": "Velora Bridge", "text": "Ana Tolvik opened the Velora Bridge in 1893."},
    {"id": "b", "title": "Velora Ferry", "text": "The ferry at Velora ended with the bridge."},
    {"id": "c", "title": "Keth", "text": "The Keth is a river."},
)
QUESTION = {
    "question": "Who opened the Velora Bridge?",
    "answers": ["Ana Tolvik"],
    "gold": [PASSAGES[0]],
    "passages": [PASSAGES[2]],
}
CRITIC = """
from openrag_core.training import Judgement
class Judge:
    name = "strict"
    def judge(self, question, answer, passage):
        return Judgement(relevant=False, support="none", utility=2)
judge = Judge()
CHAT = "a chat model"
"""


@pytest.fixture
def files(tmp_path: Path) -> None:
    """In the folder that commands run in."""
    lines = "".join(json.dumps(passage) + "\n" for passage in PASSAGES)
    (tmp_path / "passages.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTION), encoding="utf-8")
    (tmp_path / "critics.py").write_text(CRITIC, encoding="utf-8")


@pytest.mark.usefixtures("files")
def test_rows_are_built_from_everything_that_helps(openrag: Run) -> None:
    command = ("data", "build", "questions.jsonl", "-o", "rows.jsonl", "--mine", "passages.jsonl")
    helpers = ("--base", "bundled", "--min-no-retrieval", "0.4", "--critic", "critics:judge")
    made = openrag(*command, *helpers)
    assert made.code == 0, made.err
    rows = [row.output for row in read_rows("rows.jsonl")]
    (mined,) = (
        row
        for row in rows
        if row.endswith("[Irrelevant]Ana Tolvik[No support / Contradictory][Utility:1]")
    )
    assert any(passage["text"] in mined for passage in PASSAGES[1:])
    assert (
        "[Retrieval]<paragraph>Keth\nThe Keth is a river.</paragraph>[Irrelevant]Ana Tolvik"
        "[No support / Contradictory][Utility:2]"
    ) in rows
    assert sum(row.startswith("[No Retrieval]") for row in rows) == 1
    share = float(made.out.split("[No Retrieval]: ")[1].split("%")[0])
    assert share >= 40
    before = Path("rows.jsonl").read_text(encoding="utf-8")
    assert openrag(*command, *helpers).code == 0
    assert Path("rows.jsonl").read_text(encoding="utf-8") == before


@pytest.mark.usefixtures("files")
def test_a_base_that_was_trained_again_is_asked_again(openrag: Run, tmp_path: Path) -> None:
    command = ("data", "build", "questions.jsonl", "-o", "rows.jsonl", "--min-no-retrieval", "0")
    kept = []
    for tied in (True, True, False):
        base = make_base(tmp_path / "base", tied=tied)
        (base / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
        made = openrag(*command, "--base", "base")
        assert made.code == 0, made.err
        kept.append(len(Path("rows.cache.jsonl").read_text(encoding="utf-8").split()))
    assert kept[0] == kept[1] < kept[2]


@pytest.mark.usefixtures("files")
def test_distractors_are_read_as_if_they_were_relevant(openrag: Run) -> None:
    command = ("data", "build", "questions.jsonl", "-o", "rows.jsonl", "--mine", "passages.jsonl")
    made = openrag(*command, "--gold", "0", "--mixed", "0", "--reader", "bundled")
    assert made.code == 0, made.err
    (row,) = (row.output for row in read_rows("rows.jsonl"))
    read, _, told = row.partition("</paragraph>[Irrelevant]")
    answer, _, rest = told.partition("[No support / Contradictory]")
    assert answer != "Ana Tolvik"
    assert answer in read
    assert rest == "[Utility:1]"


@pytest.mark.usefixtures("files")
def test_relevance_can_be_learned_sentence_by_sentence(openrag: Run) -> None:
    command = ("data", "build", "questions.jsonl", "-o", "rows.jsonl", "--mine", "passages.jsonl")
    made = openrag(*command, "--judge-only", "--reader", "bundled")
    assert made.code == 1
    assert "leave out one of the two" in made.err
    made = openrag(*command, "--mixed", "0", "--sentences", "--judge-only")
    assert made.code == 0, made.err
    gold, distractor = read_rows("rows.jsonl")
    assert gold.relevance[-1][1]
    assert distractor.output.endswith("</paragraph>[Irrelevant]")
    assert not any(relevant for _, relevant in distractor.relevance)


@pytest.mark.usefixtures("files")
def test_what_was_left_out_is_said(openrag: Run) -> None:
    Path("bare.jsonl").write_text('{"question": "Who?", "answers": ["Ana"]}', encoding="utf-8")
    made = openrag("data", "build", "questions.jsonl", "bare.jsonl", "-o", "rows.jsonl")
    assert made.code == 0
    assert "left out: 1 question with neither gold passages nor distractors" in made.out
    assert "left out, for want of a label: 1 passage (--critic" in made.out
    assert "questions learned with [No Retrieval]: 0.0%" in made.out


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.jsonl",), "QUESTIONS none.jsonl: cannot be read: there is no such file"),
        ((".",), "QUESTIONS . is a folder: name a file"),
        (("passages.jsonl",), "passages.jsonl, line 1: field 'answers' must be a list"),
        (("questions.jsonl", "--critic", "critics:none"), "--critic 'critics:none': expected MOD"),
        (("questions.jsonl", "--critic", "nowhere"), "--critic 'nowhere': expected MODULE:NAME"),
        (
            ("questions.jsonl", "--critic", "broken:judge"),
            "broken cannot be imported (KeyError: 'K",
        ),
        (
            ("questions.jsonl", "--critic", "critics:CHAT", "--mine", "passages.jsonl"),
            "the critic must be an object with `name` and `judge`; got str",
        ),
        (("questions.jsonl", "-o", "."), "--output . is a folder: name a file, such as rows.jsonl"),
        (("questions.jsonl", "--gold", "-1"), "gold must be rows per question, >= 0; got -1"),
        (("questions.jsonl", "--gold", "inf"), "gold must be rows per question, >= 0; got inf"),
        (("questions.jsonl", "--mixed", "nan"), "mixed must be rows per question, >= 0; got nan"),
        (("questions.jsonl", "--window", "0"), "window must be at least 1 word; got 0"),
        (
            ("questions.jsonl", "-o", "questions.jsonl"),
            "is read by this command: name another file",
        ),
        (("questions.jsonl", "--mine", "passages.jsonl", "-o", "./passages.jsonl"), "is read by"),
        (("questions.jsonl", "--mine", "none.jsonl"), "--mine none.jsonl: cannot be read"),
    ],
)
def test_bad_input_is_said(openrag: Run, arguments: tuple[str, ...], message: str) -> None:
    Path("broken.py").write_text("import os\njudge = os.environ['KEY THAT IS NOT SET']\n")
    result = openrag("data", "build", "-o", "rows.jsonl", *arguments)
    assert result.code == 1
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert not Path("rows.jsonl").exists()
    assert not Path("rows.index").exists()


def test_a_model_is_trained_and_answers(openrag: Run, tmp_path: Path) -> None:
    chosen = recipe(make_base(tmp_path / "base"), make_rows(tmp_path / "rows.jsonl"), epochs=0.5)
    write_recipe(chosen.model_copy(update={"max_length": 70}), tmp_path / "recipe.yaml")
    made = openrag("train", "recipe.yaml", "run", "--device", "cpu")
    assert made.code == 0, made.err
    assert "steps" in made.out
    assert "% padding), loss" in made.out
    assert "rows cut" in made.out
    assert "next: openrag ask QUESTION --model run/model" in made.out
    again = openrag("train", "recipe.yaml", "run")
    assert (again.code, "error: run is not empty" in again.err) == (1, True)
    asked = openrag("ask", "Who?", "--model", "run/model", "--gate", "never")
    assert asked.code == 0


def test_a_recipe_that_is_wrong_is_said(openrag: Run, tmp_path: Path) -> None:
    content = Recipe(rows=["rows.jsonl"]).model_dump() | {"learning_rate": -1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    result = openrag("train", "recipe.yaml", "run")
    assert result.code == 1
    assert "learning_rate: Input should be greater than 0" in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.yaml", "run"), "RECIPE none.yaml: cannot be read: there is no such file"),
        ((".", "run"), "RECIPE . is a folder: name a file"),
        (("recipe.yaml", "recipe.yaml"), "OUT recipe.yaml is a file: name a folder"),
    ],
)
def test_what_is_not_there_is_said(openrag: Run, arguments: tuple[str, ...], message: str) -> None:
    Path("recipe.yaml").write_text("rows: [rows.jsonl]\n")
    result = openrag("train", *arguments)
    assert result.code == 1
    assert message in result.err
