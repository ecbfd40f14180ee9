"""core/openrag_core/training/distractors.py: what retrieval brings, without what answers."""

from openrag_core import Passage
from openrag_core.training import Question, Text, mine_distractors
from tests.fakes import FakeRetriever

GOLD = Text("Velora", "Ana Tolvik opened the Velora Bridge in the spring of 1931, when it rained.")
OLD = Text("Old", "An older distractor.")
ASKED = Question("1", "Who opened it?", ("Ana Tolvik",), (GOLD,), (OLD,))


def passage(text: str, source: str = "") -> Passage:
    return Passage(text, text, "Found", source)


def test_the_hardest_come_first_and_nothing_that_answers() -> None:
    found = [
        passage(GOLD.text.replace("Ana Tolvik", "Somebody")),
        passage(GOLD.text),
        passage("It was Ana Tolvik."),
        passage("ana  tolvik, they say"),
        passage("The bridge is long."),
        passage("Bridges are long."),
        passage("The bridge is long."),
    ]
    (mined,) = mine_distractors([ASKED], FakeRetriever(found), number=2)
    assert [text.text for text in mined.distractors] == [
        GOLD.text.replace("Ana Tolvik", "Somebody"),
        "The bridge is long.",
        OLD.text,
    ]
    assert mined.gold == ASKED.gold


def test_a_piece_of_the_gold_passage_is_none() -> None:
    (mined,) = mine_distractors([ASKED], FakeRetriever([passage("opened the Velora Bridge in")]))
    assert mined.distractors == (OLD,)


def test_a_piece_stands_for_the_whole_that_it_was_cut_from() -> None:
    whole = {"a": Text("A", "The whole passage."), "b": GOLD}
    found = [passage("whole", "a"), passage("passage", "a"), passage("spring", "b")]
    (mined,) = mine_distractors([ASKED], FakeRetriever(found), whole=whole)
    assert mined.distractors == (whole["a"], OLD)


def test_each_question_has_its_own_and_progress_is_told() -> None:
    seen: list[int] = []
    retriever = FakeRetriever({"Who opened it?": [passage("x")], "Where?": [passage("y")]})
    questions = [ASKED, Question("2", "Where?", ("Keth",))] * 50
    mined = list(mine_distractors(questions, retriever, progress=seen.append))
    assert [question.distractors[0].text for question in mined] == ["x", "y"] * 50
    assert sum(seen) == 100


def test_an_answer_is_found_where_nothing_stands_between_words() -> None:
    asked = Question("1", "\u8ab0?", ("\u30a2\u30ca\u5e02\u9577",))
    found = [
        passage("\u6a4b\u306f\u30a2\u30ca\u5e02\u9577\u304c\u958b\u3044\u305f"),
        passage("\u6a4b\u306f\u9577\u3044"),
    ]
    (mined,) = mine_distractors([asked], FakeRetriever(found))
    assert [text.text for text in mined.distractors] == ["\u6a4b\u306f\u9577\u3044"]
