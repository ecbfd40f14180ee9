"""core/openrag_core/evaluation/results.py: what counts as the same evaluation, and what is kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrag_core import EvaluationError, OpenRAG
from openrag_core.evaluation import evaluate, read_results
from openrag_core.evaluation.results import opened
from tests.core.evaluation.test_run import data, rag

__all__ = ["data", "rag"]  # fixtures


def test_what_is_not_of_all_records_does_not_stay(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", limit=2)
    made = {"summary.json", "adaptive.json", "adaptive.png"}
    assert {file.name for file in (tmp_path / "out").iterdir()} > made
    config, _ = read_results(tmp_path / "out")
    with opened(tmp_path / "out", config) as kept:
        kept.append([{"id": "more"}])
    assert not made & {file.name for file in (tmp_path / "out").iterdir()}


def test_another_name_of_the_same_data_is_no_other_configuration(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    known = {"index_sha256": "0"}
    evaluate(rag, "popqa", data, tmp_path / "out", settings={"index": "a"} | known)
    moved = data.rename(tmp_path / "moved.jsonl")
    done = evaluate(rag, "popqa", moved, tmp_path / "out", settings={"index": "b"} | known)
    assert done.asked == 0
    other = {"index": "a", "index_sha256": "1"}
    with pytest.raises(EvaluationError, match=r"settings\.index_sha256: '0' there, '1' now"):
        evaluate(rag, "popqa", moved, tmp_path / "out", settings=other)


def test_another_index_of_unknown_content_is_another_configuration(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", settings={"index": "a"})
    with pytest.raises(EvaluationError, match=r"settings\.index: 'a' there, 'b' now"):
        evaluate(rag, "popqa", data, tmp_path / "out", settings={"index": "b"})


def test_of_many_differences_the_first_are_named(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", settings=dict.fromkeys("abcde", 1))
    with pytest.raises(EvaluationError, match=r"c: 1 there, 2 now; and 2 more\)"):
        evaluate(rag, "popqa", data, tmp_path / "out", settings=dict.fromkeys("abcde", 2))


def test_what_rests_on_nothing_is_not_measured(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="faithfulness measures what answers rest on"):
        evaluate(rag, "faithfulness", data, tmp_path / "out", passages="none")
    assert not (tmp_path / "out").exists()


def test_questions_without_a_passage_are_counted(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    done = evaluate(rag, "popqa", data, tmp_path / "all")
    assert done.summary["unread"] == 0
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    del rows[1]["ctxs"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = evaluate(rag, "popqa", data, tmp_path / "out")
    assert done.summary["unread"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "triviaqa"}, "task: 'popqa' there, 'triviaqa' now"),
        ({"settings": {"model": "b"}}, "settings.model: 'a' there, 'b' now"),
        ({"settings": {}}, "settings.model: 'a' there, 'nothing' now"),
        ({"passages": "none"}, "passages: 'given' there, 'none' now"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(
    rag: OpenRAG, data: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"name": "popqa", "settings": {"model": "a"}}
    evaluate(rag, data=data, folder=tmp_path / "out", **given)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=f"another configuration .*{message}"):
        evaluate(rag, data=data, folder=tmp_path / "out", **(given | change))
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_what_fails_while_asking_is_not_the_folders_fault(
    rag: OpenRAG, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrieve(*_: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(rag.retriever, "retrieve", retrieve)
    with pytest.raises(ConnectionError, match="refused"):
        evaluate(rag, "popqa", data, tmp_path / "out", passages="index")


def test_a_folder_that_cannot_be_written_is_said(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", limit=1)
    config, _ = read_results(tmp_path / "out")
    with opened(tmp_path / "out", config) as kept:
        (tmp_path / "out" / "results.jsonl").unlink()
        (tmp_path / "out" / "results.jsonl").mkdir()
        with pytest.raises(EvaluationError, match=r"out: cannot be used"):
            kept.append([{"id": "more"}])
