"""core/openrag_core/evaluation/metrics.py, with values worked by hand."""

import pytest

from openrag_core.evaluation.metrics import (
    Overlap,
    exact_match,
    f1,
    knowledge_precision,
    match,
    multihop_overlap,
    normalised_match,
    rouge_l,
    string_recall,
    summed,
)


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("The  Eiffel Tower!", ["eiffel tower"], True),
        ("theatre", ["atre"], False),  # "the" is an article as a word only
        ("U.S.A.", ["usa"], True),
        ("well-known", ["wellknown"], True),  # punctuation leaves no space
        ("well-known", ["well known"], False),
        ("Röntgen", ["röntgen"], True),
        ("Röntgen", ["Rontgen"], False),  # accents stay
        ("“Paris”", ["Paris"], False),  # so does punctuation that is not ASCII
        ("", ["the"], True),  # nothing is left of either
        ("", ["Paris"], False),
        ("Lyon", ["Paris", "Lyon"], True),
        ("Paris", [], False),
    ],
)
def test_exact_match_is_squads(text: str, answers: list[str], right: bool) -> None:
    assert exact_match(text, answers) == float(right)


def test_f1_counts_each_word_as_often_as_both_have_it() -> None:
    # new new york (3) and new york city (3) share new, york: p = r = 2/3
    assert f1("New New York", ["New York City"]) == pytest.approx(2 / 3)
    # p = 1/4, r = 1: 2 * 1/4 / (5/4) = 2/5
    assert f1("it was in Paris", ["Paris"]) == pytest.approx(0.4)
    assert f1("Lyon", ["Paris"]) == 0.0


def test_f1_is_the_best_over_the_answers() -> None:
    assert f1("Paris", ["Paris France", "Paris"]) == 1.0
    assert f1("Paris", []) == 0.0


@pytest.mark.parametrize(("text", "answer", "value"), [("", "", 1), ("", "a", 1), ("", "b", 0)])
def test_f1_without_words_is_that_of_squad_2(text: str, answer: str, value: float) -> None:
    assert f1(text, [answer]) == f1(answer, [text]) == value


def test_multihop_overlap_is_hotpotqas() -> None:
    # october 1922 of "in October 1922": p = 2/3, r = 1, f1 = 4/5
    assert multihop_overlap("in October 1922", ["October 1922"]) == pytest.approx(
        Overlap(4 / 5, 2 / 3, 1.0)
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "no"),
        ("yes", "yes indeed"),  # a closed prediction counts only where it is the answer
        ("no, it is", "no"),  # and so does a closed answer
        ("noanswer", "noanswer at all"),
        ("", ""),  # of which SQuAD 2.0 gives 1
        ("the", "a"),
        ("", "Paris"),
    ],
)
def test_multihop_overlap_gives_nothing_for(text: str, answer: str) -> None:
    assert multihop_overlap(text, [answer]) == Overlap(0.0, 0.0, 0.0)


def test_multihop_overlap_knows_a_closed_answer() -> None:
    assert multihop_overlap("Yes.", ["yes"]) == Overlap(1.0, 1.0, 1.0)


def test_each_part_of_a_multihop_overlap_is_the_best_over_the_answers() -> None:
    # "x y" and "x": p = 1/2, r = 1, f1 = 2/3; "x y" and "x y z": p = 1, r = 2/3, f1 = 4/5
    assert multihop_overlap("x y", ["x", "x y z"]) == pytest.approx(Overlap(4 / 5, 1.0, 1.0))
    assert multihop_overlap("x", []) == Overlap(0.0, 0.0, 0.0)


def test_match_is_letter_by_letter() -> None:
    assert match("born in Houston, Texas", ["Dallas", "Houston"]) == 1.0
    assert match("born in houston", ["Houston"]) == 0.0
    assert match("concatenate", ["cat"]) == 1.0
    assert match("", ["Houston"]) == 0.0


def test_normalised_match_is_not() -> None:
    assert normalised_match("born in HOUSTON.", ["the Houston"]) == 1.0
    assert normalised_match("anything", ["The"]) == 0.0  # nothing is left of it


def test_string_recall_is_over_the_questions() -> None:
    questions = [["Daei", "Ali Daei"], ["Bican"], ["Sinclair"], ["Pelé"]]
    assert string_recall("Ali Daei, and Josef Bican in another count.", questions) == 0.5
    assert string_recall("", questions) == 0.0
    assert string_recall("anything", []) == 0.0


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    # police kill the gunman / police killed the gunman: stemmed, all four
    assert rouge_l("police kill the gunman", ["police killed the gunman"]) == 1.0
    # the gunman kill police: "the gunman" is 2 of 4 on both sides
    assert rouge_l("the gunman kill police", ["police killed the gunman"]) == pytest.approx(0.5)
    assert rouge_l("a b", ["c", "a b"]) == 1.0
    assert rouge_l("", ["c"]) == 0.0
    assert rouge_l("x", []) == 0.0


def test_knowledge_precision_counts_words_that_were_read() -> None:
    # tower (twice), tall: the passage has one tower
    assert knowledge_precision("A tower, tower: tall", ["The tower is tall."]) == pytest.approx(
        2 / 3
    )
    assert knowledge_precision("the", ["the"]) == 0.0
    assert knowledge_precision("two passages", ["one", "two passages"]) == 1.0


def test_the_option_with_the_largest_sum_wins() -> None:
    # A has the best single candidate, B the larger sum
    assert summed([("A", 3.0), ("B", 2.0), (None, 9.0), ("B", 1.5)]) == "B"
    assert summed([("B", 1.0), ("A", 1.0)]) == "B"  # a tie goes to the first
    assert summed([("A", -2.0), ("B", -1.0)]) == "B"
    assert summed([(None, 1.0)]) is None
    assert summed([]) is None
