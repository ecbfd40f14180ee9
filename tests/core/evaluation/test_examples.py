"""core/openrag_core/evaluation/{examples,layouts}.py: every layout, and what is refused."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrag_core import EvaluationError
from openrag_core.evaluation import TASKS, Example, read_examples, task

Row = dict[str, Any]
PASSAGE = {"title": "Velora Bridge", "text": "Ana Tolvik opened it in 1893."}
OTHER = {"title": "Keth", "text": "The Keth is a river."}
NO_FACTS: tuple[object, ...] = ({"title": None}, 5, [[]], [[["t"], 0]])
CONTEXT = [["Velora Bridge", ["Built.", " Opened."]], ["Keth", ["A river."]]]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Example]]:
    """Write rows and read them as examples."""

    def run(*rows: object, name: str = "data.jsonl", **how: bool) -> list[Example]:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return read_examples(path, **how)

    return run


Read = Callable[..., list[Example]]


def test_a_row_of_ours(read: Read) -> None:
    row = {
        "id": "q1",
        "question": "Who opened the bridge?",
        "answers": ["Ana Tolvik", "Tolvik", "Tolvik"],
        "gold": [PASSAGE],
        "distractors": [OTHER],
        "gold_ids": ["b7"],
        "type": "bridge",
        "s_pop": 41,
    }
    (example,) = read(row)
    assert example.id == "q1"
    assert example.answers == ("Ana Tolvik", "Tolvik")
    assert {p.id for p in example.passages} == {"b7", "distractors-0"}
    assert example.gold == {"b7"}
    assert example.kind == "bridge"
    assert example.extra == {"s_pop": 41}


@pytest.mark.parametrize("key", ["ctxs", "top_contexts"])
def test_a_row_of_self_rag(read: Read, key: str) -> None:
    contexts = [{"id": "7", "score": "1.5", **OTHER}, {"id": "3", "score": 1.25, **PASSAGE}]
    (example,) = read({"question": "Who?", "answers": ["Tolvik"], key: contexts, "pop": 3})
    assert example.id == "1"
    assert [p.id for p in example.passages] == ["7", "3"]  # a retriever's order stays
    assert [p.retrieval_score for p in example.passages] == [1.5, 1.25]
    assert example.extra == {"pop": 3}


def test_a_row_of_instructions(read: Read) -> None:
    (example,) = read({"instruction": "Answer.", "input": "Who?", "output": "Ana Tolvik"})
    assert example.question == "Answer.\nWho?"
    assert example.answers == ("Ana Tolvik",)


def test_a_list_in_a_json_file(read: Read, tmp_path: Path) -> None:
    row = {"_id": "h1", "question": "Who?", "answer": "Tolvik"}
    path = tmp_path / "data.json"
    for content in ([row], {"data": [row]}):
        path.write_text(json.dumps(content), encoding="utf-8")
        (example,) = read_examples(path)
        assert (example.id, example.answers) == ("h1", ("Tolvik",))
    with pytest.raises(EvaluationError, match=r"data\.json, row 2: expected an object; got int"):
        read([row, 3], name="data.json")


def test_official_multihop_rows(read: Read) -> None:
    hotpot = {
        "_id": "h1",
        "question": "Who?",
        "answer": "Tolvik",
        "context": [["Velora Bridge", ["Built.", " Opened."]], ["Keth", ["A river."]]],
        "supporting_facts": [["Velora Bridge", 1]],
    }
    musique = {
        "id": "m1",
        "question": "Which?",
        "answer": "G. Stanley Hall",
        "answer_aliases": ["Stanley Hall"],
        "paragraphs": [
            {"title": "A", "paragraph_text": "One.", "is_supporting": False},
            {"title": "B", "paragraph_text": "Two.", "is_supporting": True},
        ],
    }
    on_a_hub = hotpot | {
        "_id": "h2",
        "context": {
            "title": ["Velora Bridge", "Keth"],
            "sentences": [["Built.", " Opened."], ["A river."]],
        },
        "supporting_facts": {"title": ["Velora Bridge"], "sent_id": [1]},
    }
    copy = json.loads(json.dumps(on_a_hub | {"_id": "h4"}).replace('"sentences"', '"content"'))
    first, second, third, fourth, fifth = read(
        hotpot, musique, on_a_hub, hotpot | {"_id": "h3", "supporting_facts": None}, copy
    )
    assert {p.id: p for p in fifth.passages} == {p.id: p for p in third.passages}
    assert {p.id: p for p in third.passages} == {p.id: p for p in first.passages}
    assert third.gold == first.gold
    assert (len(fourth.passages), fourth.gold) == (2, frozenset())
    assert {p.title: p.text for p in first.passages} == {
        "Velora Bridge": "Built. Opened.",
        "Keth": "A river.",
    }
    assert "Velora Bridge" in first.gold
    assert "Keth" not in first.gold
    assert second.answers == ("G. Stanley Hall", "Stanley Hall")
    assert second.gold == {"paragraphs-1", "B"}


def test_the_paragraph_of_a_model_hub(read: Read) -> None:
    """SQuAD's."""
    answers = {"text": ["Ana"], "answer_start": [0]}
    row = {"question": "Who?", "title": "Velora", "context": "Ana did.", "answers": answers}
    (example,) = read(row)
    (passage,) = example.passages
    assert (passage.title, passage.text) == ("Velora", "Ana did.")
    assert passage.id in example.gold


def test_aliases_of_a_model_hub(read: Read) -> None:
    """TriviaQA's answers."""
    (row,) = read({"question": "Which?", "answer": {"value": "Paris", "aliases": "Lutetia"}})
    assert row.answers == ("Paris", "Lutetia")
    answer = {"value": "Sunset Boulevard", "aliases": ["Sunset Blvd", "Sunset Boulevard"]}
    (row,) = read({"question": "Which?", "answer": answer})
    assert row.answers == ("Sunset Boulevard", "Sunset Blvd")


def test_long_answers(read: Read) -> None:
    asqa = {
        "id": "a",
        "question": "Who?",
        "long_answers": ["Two people did."],
        "qa_pairs": [{"short_answers": ["Daei", "Ali Daei"]}, {"short_answers": ["Bican"]}],
    }
    published = {
        "sample_id": "b",
        "ambiguous_question": "Who?",
        "annotations": [{"long_answer": "One."}, {"long_answer": "Two."}],
        "qa_pairs": asqa["qa_pairs"],
    }
    first, second = read(asqa, published)
    assert first.short_answers == second.short_answers == (("Daei", "Ali Daei"), ("Bican",))
    assert first.answers == ("Two people did.",)
    assert second.answers == ("One.", "Two.")
    assert (second.id, second.question) == ("b", "Who?")
    (clapnq,) = read({"input": "Who?", "passages": [OTHER], "output": [{"answer": "Ana did."}]})
    assert clapnq.answers == ("Ana did.",)


@pytest.mark.parametrize(
    "choices",
    [
        {"choices": {"A": "sand", "B": "iron"}, "answer_key": "B"},
        {"choices": {"label": ["A", "B"], "text": ["sand", "iron"]}, "answerKey": "B"},
        {"choices": {"label": ["1", "2"], "text": ["sand", "iron"]}, "answerKey": "2"},
    ],
)
def test_choices(read: Read, choices: Row) -> None:
    (example,) = read({"id": "1", "question": "Which rusts?", **choices})
    assert example.choices == {"A": "sand", "B": "iron"}
    assert (example.answer_key, example.answers) == ("B", ("iron",))


def test_claims_have_the_labels_of_their_file(read: Read) -> None:
    fever = [{"claim": "It is.", "label": "SUPPORTS"}, {"claim": "It was.", "label": "REFUTES"}]
    examples = read(*fever, claims=True)
    assert [example.answer_key for example in examples] == ["true", "false"]
    assert list(examples[0].choices) == ["true", "false"]
    scifact = {"question": "It may be.", "answers": ["NOT_ENOUGH_INFO"]}
    examples = read(*fever, scifact, claims=True)
    assert list(examples[0].choices) == ["true", "false", "not enough information"]
    assert [example.answerable for example in examples] == [True, True, False]


def test_what_cannot_be_answered(read: Read) -> None:
    squad = {"id": "s", "question": "Who?", "answers": [], "related": [PASSAGE], "gold_id": "p1"}
    clapnq = {"id": "c", "question": "Why?", "passages": [OTHER], "outputs": [{"answer": ""}]}
    hub = {"id": "h", "question": "How?", "answers": {"text": [], "answer_start": []}}
    published = {"id": "p", "input": "Why?", "passages": [OTHER], "output": [{"answer": ""}]}
    musique = {"id": "m", "question": "Who?", "answer": "Ana", "answerable": False}
    examples = read(squad, clapnq, hub, published, musique, unanswerable=True)
    assert [(e.answerable, e.answers, e.gold) for e in examples] == [(False, (), frozenset())] * 5
    assert len(examples[0].passages) == len(examples[1].passages) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "answers": ["x"]}, "field 'question' must be text, and not blank"),
        ({"question": " ", "answers": ["x"]}, "field 'question' must be text"),
        ({"question": "Who?"}, "field 'answers' must be a list of texts; it is absent"),
        ({"question": "Who?", "answers": [3]}, "field 'answers' must be a list of texts"),
        ({"question": "Who?", "answers": []}, "the row has no answer: leave such rows out"),
        ({"question": "Who?", "answers": [" "]}, "the row has no answer"),
        ({"question": "Who?", "answer": "Ana", "answerable": False}, "the row has no answer"),
        (
            {"question": "Who?", "answers": ["x"], "gold": [{"title": "x"}]},
            "gold: field 'text' must be text, and not blank; got None",
        ),
        ({"question": "Who?", "answers": ["x"], "ctxs": ["y"]}, "'ctxs' must be a list of obj"),
        (
            {"question": "Who?", "answers": ["x"], "ctxs": [{**PASSAGE, "score": "best"}]},
            "field 'score' must be a number; got 'best'",
        ),
        (
            {"question": "Who?", "answers": ["x"], "context": [["t", "s"]]},
            r"'context' must be a list of \[title, \[sentence",
        ),
        (
            {"question": "Who?", "answers": ["x"], "context": {"title": ["t"], "sentences": None}},
            "field 'context' must be",
        ),
        *(
            (
                {"question": "Who?", "answers": ["x"], "context": CONTEXT, "supporting_facts": one},
                "field 'supporting_facts' must be a list",
            )
            for one in NO_FACTS
        ),
        (
            {"question": "Who?", "answers": ["x"], "gold": [PASSAGE], "gold_ids": {"a": 1}},
            "field 'gold_ids' must be a list of texts",
        ),
        (
            {"question": "Who?", "answer": {"value": "Paris", "aliases": 5}},
            "field 'aliases' must be a list of texts; it is int '5'",
        ),
        ({"question": "Who?", "choices": ["x"], "answer_key": "A"}, "field 'choices' must be"),
        *(
            (
                {"question": "Who?", "choices": {"text": ["x"], "label": one}, "answer_key": "A"},
                "field 'choices' must be",
            )
            for one in (5, None, ["A", "B"])
        ),
        (
            {"question": "Who?", "choices": {"A": "x", "B": "y"}, "answer_key": "C"},
            "field 'answer_key' must be one of the choices, A, B; got 'C'",
        ),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_field(read: Read, row: Row, message: str) -> None:
    good = {"id": "good", "question": "Who?", "answers": ["x"]}
    with pytest.raises(EvaluationError, match=r"data\.jsonl, line 2.*" + message):
        read(good, row)


def test_answers_that_nobody_knows_may_be_left_out(read: Read) -> None:
    rows = ({"question": "Why?", "gold": [PASSAGE]}, {"question": "How?", "answers": []})
    unknown, none = read(*rows, unanswerable=True, unknown=True)
    assert (unknown.answers, unknown.answerable) == ((), True)
    assert PASSAGE["title"] in unknown.gold
    assert (none.answers, none.answerable) == ((), False)
    assert task("faithfulness").needs == "sources"
    with pytest.raises(EvaluationError, match="field 'answers' must be a list of texts; it is abs"):
        read(*rows, unanswerable=True)


def test_a_mark_at_the_beginning_of_a_file_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "Who?", "answers": ["Ana"]}), encoding="utf-8-sig")
    assert read_examples(path)[0].question == "Who?"


def test_half_a_character_is_replaced(read: Read) -> None:
    """It is JSON, and could not be written into a result."""
    (example,) = read({"question": "Who \ud83d?", "answers": ["\U0001f600", "\\ud83d"]})
    assert example.question == "Who \ufffd?"
    assert example.answers == ("\U0001f600", "\\ud83d")


def test_short_answers_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "Who?", "answers": ["Ana"]}), encoding="utf-8")
    with pytest.raises(EvaluationError, match="this task needs the field 'qa_pairs'"):
        task("asqa").read(path)


def test_bad_files_are_refused(read: Read, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none\.jsonl: cannot be read"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(EvaluationError, match="there is no row in it"):
        read()
    row = {"id": "a", "question": "Who?", "answers": ["x"]}
    with pytest.raises(EvaluationError, match=r"line 2: the id 'a' is there already .*line 1"):
        read(row, row)
    with pytest.raises(EvaluationError, match="the label of a claim must be true, false, or not"):
        read(row, claims=True)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"id": "a"}\n' * 1000)[:30])
    with pytest.raises(EvaluationError, match=r"torn\.jsonl\.gz: cannot be read"):
        read_examples(torn)


def test_choices_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "Who?", "answers": ["x"]}), encoding="utf-8")
    with pytest.raises(EvaluationError, match="needs the fields 'choices' and 'answer_key'"):
        task("arc_challenge").read(path)
    good = {"id": "a", "question": "Which?", "choices": {"A": "x", "B": "y"}, "answer_key": "A"}
    good |= {"answers": ["x"]}
    bad = {"id": "open", "question": "Who?", "answers": ["x"]}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match="the question 'open' has none"):
        task("arc_challenge").read(path)


REAL = {
    "2wiki_dev": ("2wiki", 164, 164, 164),
    "arc_challenge_dev": ("arc_challenge", 299, 299, 0),
    "asqa_devA": ("asqa", 300, 300, 285),
    "clapnq_dev_answerable": ("clapnq", 300, 300, 300),
    "clapnq_dev_unanswerable": ("clapnq", 300, 0, 300),
    "hotpotqa_distractor_devB": ("hotpotqa", 705, 705, 705),
    "nq_open_dev": ("nq", 2000, 2000, 0),
    "nq_qed_dev": ("nq", 1204, 1204, 1204),
    "popqa_closedbook_dev": ("popqa", 1000, 1000, 0),
    "popqa_passages_dev": ("popqa", 500, 500, 500),
    "scifact_claims_train": ("claims", 809, 505, 505),
    "squad_v11_dev": ("squad", 2000, 2000, 2000),
    "squad_v20_dev": ("squad_v2", 2000, 1008, 2000),
    "triviaqa_dev": ("triviaqa", 2000, 2000, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read(name: str) -> None:
    folder = os.environ.get("OPENRAG_TEST_DATA")
    if not folder:
        pytest.skip("OPENRAG_TEST_DATA does not name a folder with data sets")
    asked, count, answerable, with_passages = REAL[name]
    examples = TASKS[asked].read(Path(folder) / f"{name}.jsonl.gz")
    assert len(examples) == count
    assert sum(example.answerable for example in examples) == answerable
    assert sum(bool(example.passages) for example in examples) == with_passages
    assert all(
        example.choices.get(example.answer_key or "") for example in examples if example.choices
    )
