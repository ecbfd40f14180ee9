"""core/openrag_core/evaluation/exports.py: the mapping, and the real packages where they are."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from openrag_core import Answer, Decision, MissingExtraError, Passage
from openrag_core.evaluation import (
    Case,
    deepeval_dicts,
    ragas_dicts,
    to_deepeval,
    to_ragas,
)

ALONE = "not installed here: its pins exclude those of transformers; `make exports` tests it"
BRIDGE = {"title": "Velora", "text": "Ana Tolvik opened it."}
FERRY = {"title": "", "text": "The ferry ended."}
RECORDS: list[dict[str, Any]] = [
    {
        "id": "a",
        "question": "Who opened it?",
        "answers": ["Ana Tolvik", "Tolvik"],
        "answerable": True,
        "memory": {"text": "Bo"},
        "reading": {
            "answer": "Ana",
            "sources": [BRIDGE],
            "candidates": [{"passages": [BRIDGE]}, {"passages": [FERRY, BRIDGE]}],
        },
    },
    {
        "id": "b",
        "question": "Why?",
        "answers": [],
        "answerable": False,
        "memory": {"text": "Because."},
        "reading": None,
    },
]


def test_results_become_arguments_of_deepeval() -> None:
    assert deepeval_dicts(RECORDS) == [
        {
            "name": "a",
            "input": "Who opened it?",
            "actual_output": "Ana",
            "expected_output": "Ana Tolvik",
            "retrieval_context": ["Velora\nAna Tolvik opened it.", "The ferry ended."],
            "metadata": {"id": "a", "references": ["Ana Tolvik", "Tolvik"]},
        },
        {
            "name": "b",
            "input": "Why?",
            "actual_output": "Because.",
            "expected_output": "The documents do not tell.",
            "retrieval_context": None,
            "metadata": {"id": "b", "references": ["The documents do not tell."]},
        },
    ]


def test_results_become_arguments_of_ragas() -> None:
    assert ragas_dicts(RECORDS, "memory") == [
        {
            "user_input": "Who opened it?",
            "response": "Bo",
            "reference": "Ana Tolvik",
            "retrieved_contexts": None,
        },
        {
            "user_input": "Why?",
            "response": "Because.",
            "reference": "The documents do not tell.",
            "retrieved_contexts": None,
        },
    ]


def test_an_answer_without_a_run_is_a_case_too() -> None:
    passage = Passage("1", "Ana did.", "Velora")
    answer = Answer("Who?", "Ana", Decision(True, "always"), 0.9, True, sources=(passage,))
    case = Case.of_answer("1", answer, ["Ana Tolvik"])
    assert case == Case("1", "Who?", "Ana", ("Ana Tolvik",), *[("Velora\nAna did.",)] * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, of each other
@pytest.mark.skipif(find_spec("deepeval") is None, reason=f"deepeval is {ALONE}")
def test_deepeval_takes_them() -> None:
    cases = to_deepeval(RECORDS)
    assert [one.actual_output for one in cases] == ["Ana", "Because."]
    assert cases[0].retrieval_context == ["Velora\nAna Tolvik opened it.", "The ferry ended."]
    assert cases[0].metadata["references"] == ["Ana Tolvik", "Tolvik"]
    from deepeval.metrics import ExactMatchMetric  # noqa: PLC0415

    assert ExactMatchMetric().measure(cases[0]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, of each other
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files
@pytest.mark.skipif(find_spec("ragas") is None, reason=f"ragas is {ALONE}")
def test_ragas_takes_them() -> None:
    dataset = to_ragas(RECORDS)
    assert [one["response"] for one in dataset.to_list()] == ["Ana", "Because."]
    assert dataset.samples[0].retrieved_contexts[1] == "The ferry ended."
    from ragas.metrics import ExactMatch  # noqa: PLC0415

    assert ExactMatch().single_turn_score(dataset.samples[0]) == 0


@pytest.mark.parametrize("export", [to_deepeval, to_ragas])
def test_an_absent_package_is_named_with_its_extra(
    export: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrag_core._extras.find_spec", lambda _: None)
    name = "deepeval" if export is to_deepeval else "ragas"
    with pytest.raises(MissingExtraError, match=rf"pip install 'openrag-moe\[{name}\]'"):
        export(RECORDS)
