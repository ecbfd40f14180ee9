"""core/openrag_core/evaluation/layouts.py: which passages a row has, and which of them are gold."""

import pytest

from tests.core.evaluation.test_examples import OTHER, PASSAGE, Read, Row
from tests.core.evaluation.test_examples import read as read  # noqa: PLC0414  (a fixture)


@pytest.mark.parametrize("label", [{"gold_ids": 5}, {"gold_id": 5}, {"gold_ids": [5]}])
def test_one_gold_id_needs_no_list(read: Read, label: Row) -> None:
    (example,) = read({"question": "Who?", "answers": ["x"], "gold": [PASSAGE], **label})
    assert [p.id for p in example.passages] == ["5"]
    (example,) = read({"question": "Who?", "answers": ["x"], "gold": [PASSAGE], "gold_ids": "abc"})
    assert example.gold == {"abc"}


def test_labelled_passages_are_shuffled_the_same_way_each_time(read: Read) -> None:
    rows = [
        {
            "id": str(n),
            "question": "?!",
            "answers": ["x"],
            "gold": [PASSAGE],
            "distractors": [OTHER] * 3,
        }
        for n in range(20)
    ]
    first = [[p.id for p in example.passages] for example in read(*rows)]
    assert first == [[p.id for p in example.passages] for example in read(*rows)]
    places = {ids.index("gold-0") for ids in first}
    assert len(places) > 1  # the gold passage does not give itself away


@pytest.mark.parametrize("name", ["doc7", None, 0])
def test_no_passage_is_lost_to_one_of_the_same_id(read: Read, name: object) -> None:
    texts = ["It rained.", "It snowed.", "It rained."]
    row = {"question": "Who?", "answers": ["Ana"]}
    (ranked,) = read({**row, "ctxs": [{"id": name, "text": text} for text in texts]})
    assert [p.text for p in ranked.passages] == texts[: 3 if name is None else 2]
    assert len({p.id for p in ranked.passages}) == len(ranked.passages)
    gold, other = {"id": name, **PASSAGE}, {"id": name, **OTHER}
    (labelled,) = read({**row, "gold": [gold], "distractors": [other]})
    assert {p.text: p.id in labelled.gold for p in labelled.passages} == {
        PASSAGE["text"]: True,
        OTHER["text"]: False,
    }


def test_labels_of_ranked_passages_count(read: Read) -> None:
    contexts = [{"id": "7", **OTHER}, {"id": "3", **PASSAGE}]
    row = {"question": "Who?", "answers": ["Tolvik"], "ctxs": contexts}
    (example,) = read({**row, "gold": [{"text": PASSAGE["text"]}, {"text": "It was not found."}]})
    assert [p.id for p in example.passages] == ["7", "3"]
    assert {p.id for p in example.passages if p.id in example.gold} == {"3"}


def test_pieces_of_a_gold_document_are_gold(read: Read) -> None:
    pieces = [
        {"id": "d1", "text": "It rained."},
        {"id": "d1", "text": "Ana."},
        {"id": "d2", **OTHER},
    ]
    row = {"question": "Who?", "answers": ["Ana"], "ctxs": pieces, "gold_ids": ["d1"]}
    (example,) = read(row)
    assert [p.id in example.gold for p in example.passages] == [True, True, False]


@pytest.mark.parametrize("gold", [3, "Ana", [{"id": "7"}], ["7"]])
def test_other_labels_beside_ranked_passages_are_passed_over(read: Read, gold: object) -> None:
    row = {"question": "Who?", "answers": ["Ana"], "ctxs": [{"id": "7", **OTHER}], "gold": gold}
    (example,) = read(row)
    assert [p.id for p in example.passages] == ["7"]
    assert not example.gold


def test_the_paragraph_is_not_among_what_a_retriever_found(read: Read) -> None:
    row = {"question": "Who?", "answers": ["Ana"], "ctxs": [{"id": "7", **OTHER}]}
    (example,) = read({**row, "title": "Bridge", "context": "Ana opened it."})
    assert [p.id for p in example.passages] == ["7"]
