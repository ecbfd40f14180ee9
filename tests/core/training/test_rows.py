"""core/openrag_core/training/rows.py: the published layout, and errors that name the place."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrag_core import TrainingDataError
from openrag_core.training import Row, read_rows, write_rows

TURN = {"input": "Who?", "output": "[No Retrieval]Ana[Utility:5]"}


def published(**fields: Any) -> str:
    row = {"instruction": "", "conversation": [TURN], "corpus": ""} | fields
    return json.dumps(row)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [Row("Who?", "[No Retrieval]Ana é[Utility:5]"), Row(corpus="plain text")]
    assert write_rows(rows, tmp_path / "new" / "rows.jsonl") == 2
    assert list(read_rows(tmp_path / "new" / "rows.jsonl")) == rows
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["rows.jsonl"]


JUDGED = Row(
    "Who?",
    "[Retrieval]<paragraph>It rained. Ana did.</paragraph>[Relevant]Ana[Utility:5]",
    relevance=((10, False), (19, True)),
)


def test_judgements_stand_beside_the_response(tmp_path: Path) -> None:
    write_rows([JUDGED], tmp_path / "rows.jsonl")
    (line,) = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["conversation"][0]["relevance"] == [
        {"characters": 10, "relevant": False},
        {"characters": 19, "relevant": True},
    ]
    assert list(read_rows(tmp_path / "rows.jsonl")) == [JUDGED]


@pytest.mark.parametrize(
    "relevance",
    [
        3,
        [3],
        [{"characters": 10}],
        [{"characters": 20, "relevant": True}],
        [{"characters": 0, "relevant": True}],
        [{"characters": True, "relevant": True}],
        [{"characters": 10, "relevant": True, "why": ""}],
        [{"characters": 10, "relevant": True}, {"characters": 10, "relevant": False}],
        [{"characters": 10, "relevant": True}, {"characters": 5, "relevant": False}],
        0,
        {},
        [{"characters": 10, "relevant": 1}],
        [{"characters": "10", "relevant": True}],
    ],
)
def test_judgements_of_what_is_not_there_are_refused(tmp_path: Path, relevance: object) -> None:
    turn = {"input": "Who?", "output": JUDGED.output, "relevance": relevance}
    (tmp_path / "rows.jsonl").write_text(published(conversation=[turn]), encoding="utf-8")
    with pytest.raises(
        TrainingDataError, match=r"line 1, .*'relevance' must be .*'s 19 characters"
    ):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_the_judgement_that_is_wrong_is_shown(tmp_path: Path) -> None:
    judged = [{"characters": end, "relevant": True} for end in (1, 2, 3, 4, 5, 99)]
    turn = {"input": "Who?", "output": JUDGED.output, "relevance": judged}
    (tmp_path / "rows.jsonl").write_text(published(conversation=[turn]), encoding="utf-8")
    with pytest.raises(TrainingDataError, match=r"got \{'characters': 99, 'relevant': True\}"):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_a_slip_of_a_name_is_refused_and_other_fields_passed_over(tmp_path: Path) -> None:
    turn = {"input": "Who?", "output": JUDGED.output, "id": 3}
    file = tmp_path / "rows.jsonl"
    file.write_text(published(conversation=[turn | {"relevance": None}]), encoding="utf-8")
    assert [row.relevance for row in read_rows(file)] == [()]
    file.write_text(published(conversation=[turn | {"relevence": []}]), encoding="utf-8")
    with pytest.raises(TrainingDataError, match="'relevence': is 'relevance' meant"):
        list(read_rows(file))


def test_a_name_that_ends_in_gz_is_compressed(tmp_path: Path) -> None:
    write_rows([Row("Who?", "Ana")], str(tmp_path / "rows.jsonl.gz"))
    assert (tmp_path / "rows.jsonl.gz").read_bytes().startswith(b"\x1f\x8b")
    assert list(read_rows(tmp_path / "rows.jsonl.gz")) == [Row("Who?", "Ana")]


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield Row("Who?", "Ana")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(rows(), tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingDataError, match=r"cannot be written"):
        write_rows([Row("Who?", "Ana")], Path("/dev/null/rows.jsonl"))


def test_the_published_layout_is_read_as_the_released_training_does(tmp_path: Path) -> None:
    lines = [
        published(instruction="passed over"),
        published(conversation=[TURN, TURN]),
        "",
        published(corpus="text", conversation=[]),
    ]
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.write("\n".join(lines))
    assert list(read_rows(file)) == [Row(TURN["input"], TURN["output"]), Row(corpus="text")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"rows\.jsonl, line 2: no JSON"),
        ("[]", r"line 2: expected an object; got list"),
        (published(corpus=3), r"line 2: field 'corpus' must be text; it is int '3'"),
        ('{"question": "Who?"}', r"line 2 is a question, not a row: openrag data build"),
        (published(conversation="x"), r"line 2: field 'conversation' must be a list .* got 'x'"),
        (published(conversation=[{"input": "x"}]), r"conversation: field 'output' .* it is absent"),
        (published(conversation=[TURN | {"input": None}]), r"field 'input' must be text"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{published()}\n{line}\n", encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message):
        list(read_rows(file))


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("[Relevent]", "[Relevant]"),
        ("[relevant]", "[Relevant]"),
        ("[Fully Supported]", "[Fully supported]"),
        ("[Utility: 5]", "[Utility:"),
        ("<paragaph>", "<paragraph>"),
    ],
)
def test_a_slip_of_a_reflection_token_is_named(tmp_path: Path, slip: str, meant: str) -> None:
    file = tmp_path / "rows.jsonl"
    turn = TURN | {"output": f"[Retrieval]<paragraph>text</paragraph>{slip}Ana"}
    file.write_text(f"{published()}\n{published(conversation=[turn])}\n", encoding="utf-8")
    message = f"line 2, conversation: field 'output' holds '{slip}', which is no .* is '{meant}"
    with pytest.raises(TrainingDataError, match=message.replace("[", r"\[")):
        list(read_rows(file))


def test_brackets_of_passages_and_answers_are_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    output = "[Retrieval]<paragraph>It is [relevant] <i>here</i>.</paragraph>[Relevant][sic] [1]"
    file.write_text(published(conversation=[TURN | {"output": output}]) + "\n", encoding="utf-8")
    assert [row.output for row in read_rows(file)] == [output]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"none\.jsonl: cannot be read"):
        list(read_rows(tmp_path / "none.jsonl"))
    broken = tmp_path / "rows.jsonl.gz"
    broken.write_bytes(gzip.compress(published().encode())[:-9])
    with pytest.raises(TrainingDataError, match=r"rows\.jsonl\.gz: cannot be read"):
        list(read_rows(broken))
    damaged = bytearray(gzip.compress(published().encode() * 99))
    damaged[40:60] = b"x" * 20
    broken.write_bytes(damaged)
    with pytest.raises(TrainingDataError, match=r"rows\.jsonl\.gz: cannot be read"):
        list(read_rows(broken))


def test_a_dataset_is_read_by_name_and_subset(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    (tmp_path / "moe").mkdir()
    (tmp_path / "moe" / "train.jsonl").write_text(f"{published()}\n", encoding="utf-8")
    card = "---\nconfigs:\n- config_name: moe\n  data_files: moe/train.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert list(read_rows(f"{tmp_path}:moe")) == [Row(TURN["input"], TURN["output"])]


def test_a_dataset_that_nobody_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingDataError, match=r"no training rows 'nobody/none': it is no .jsonl"):
        list(read_rows("nobody/none"))
