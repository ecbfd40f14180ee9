"""core/openrag_core/evaluation/tasks.py: prompts, how answers are read off, metrics."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from openrag_core import Answer, Candidate, Decision, Draft, EvaluationError, Passage, Written
from openrag_core.evaluation import TASKS, Example, task
from openrag_core.evaluation.tasks import option
from openrag_core.reflection import PassageScore
from tests.fakes import tokens

CHOICES = {"A": "sand", "B": "iron ore", "C": "iron", "D": "a boat"}
ARC = Example("1", "Which rusts?", ("iron",), choices=CHOICES, answer_key="C")
LABELS = {"true": "true", "false": "false"}
CLAIM = Example("2", "Iron rusts.", ("true",), choices=LABELS, answer_key="true")
PASSAGE = Passage("p", "Iron rusts in the rain.", "Iron")


def drafted(text: str) -> Answer:
    """From memory."""
    never = Decision(retrieve=False, mode="never")
    return Answer("?", text, never, 0.5, grounded=False, draft=Draft(text, tokens(0.5)))


def read(
    *candidates: tuple[str, float], abstained: bool = False, sources: Sequence[Passage] = ()
) -> Answer:
    """Written from passages, best first."""
    made = tuple(
        Candidate(Written((PASSAGE,), text, tokens(0.5)), PassageScore(0.5), total)
        for text, total in candidates
    )
    return Answer(
        "?",
        "The documents do not tell." if abstained else made[0].text,
        Decision(retrieve=True, mode="always"),
        0.5,
        grounded=not abstained,
        abstained=abstained,
        sources=tuple(sources),
        candidates=made,
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C", "C"),
        (" (C) iron", "C"),
        ("B: because", "B"),
        ("# D.", "D"),
        ("Iron.", "C"),
        ("It is the iron.", "C"),
        ("It is iron ore", "B"),  # the longer of two that stand in it
        ("sand, or iron", None),  # two do
        ("A boat rusts", "D"),  # no letter, but an article
        ("Boats", None),
        ("E", None),
        ("", None),
    ],
)
def test_which_choice_a_text_names(text: str, key: str | None) -> None:
    assert option(text, CHOICES) == key


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("true", "true"),
        ("False.", "false"),
        ("SUPPORTS", "true"),
        ("The statement is false", "false"),
        ("REFUTES", "false"),
        ("untrue", None),
        ("The statement is not true.", None),
        ("It isn't true", None),
        ("It is not a true statement", None),
        ("The passage does not support it", None),
        ("It was never true: false", "false"),
        ("Not supported, but refuted by none. It is not false. True", "true"),
        ("NOT_ENOUGH_INFO", None),  # where the file knows two labels
    ],
)
def test_which_label_a_text_names(text: str, label: str | None) -> None:
    assert option(text, LABELS) == label


def test_a_choice_that_is_denied_is_not_named() -> None:
    assert option("It is sand, not iron.", CHOICES) == "A"
    label = "not enough information"
    assert option("There is not enough information.", {**LABELS, label: label}) == label


def test_the_prompts_are_those_of_the_released_code() -> None:
    assert TASKS["arc_challenge"].prompt(ARC) == (
        "Given four answer candidates, A, B, C and D, choose the best answer choice.\n\n"
        "### Input:\nWhich rusts?\nA: sand\nB: iron ore\nC: iron\nD: a boat"
    )
    assert TASKS["claims"].prompt(CLAIM) == (
        "Is the following statement correct or not? Say true if it's correct; otherwise say "
        "false.\n\n## Input:\n\nIron rusts."
    )
    assert TASKS["popqa"].prompt(ARC) == "Which rusts?"


def test_choices_go_by_the_sum_of_the_scores() -> None:
    arc = TASKS["arc_challenge"]
    said = arc.said(ARC, read(("A", 3.0), ("C", 2.0), ("iron", 1.5), ("nothing", 9.0)))
    assert said.text == "C"
    assert arc.scores(said, ARC) == {"accuracy": 1.0}
    assert arc.scores(arc.said(ARC, drafted("A")), ARC) == {"accuracy": 0.0}
    assert arc.said(ARC, read(("nothing", 1.0))).text == ""


def test_abstention_counts_where_the_task_has_it() -> None:
    answer = read(("iron", 1.0), abstained=True)
    assert TASKS["arc_challenge"].said(ARC, answer).text == "C"
    assert TASKS["popqa"].said(ARC, answer).text == "iron"  # the best that there is
    assert TASKS["popqa"].said(ARC, read(abstained=True)).text == ""
    assert TASKS["squad_v2"].said(ARC, answer).text == ""
    assert TASKS["claims"].said(CLAIM, read(("false", 1.0), abstained=True)).text == "false"


def test_a_claim_may_be_undecided_where_some_are() -> None:
    label = "not enough information"
    undecided = Example(
        "3", "It may.", (label,), choices={**LABELS, label: label}, answer_key=label
    )
    claims = TASKS["claims"]
    said = claims.said(undecided, read(("true", 1.0), abstained=True))
    assert claims.scores(said, undecided) == {"accuracy": 1.0}
    assert claims.said(undecided, drafted("NOT_ENOUGH_INFO")).text == label


def test_abstaining_is_right_where_there_is_no_answer() -> None:
    squad = TASKS["squad_v2"]
    none = Example("4", "Who?", (), answerable=False)
    some = Example("5", "Who?", ("iron",))
    refusal, answer = read(("x", 1.0), abstained=True), read(("iron", 1.0))
    right = {"f1": 1.0, "exact_match": 1.0, "abstention": 1.0}
    wrong = {"f1": 0.0, "exact_match": 0.0, "abstention": 0.0}
    scores = [
        squad.scores(squad.said(example, given), example)
        for example in (none, some)
        for given in (refusal, answer)
    ]
    assert scores == [
        {**right, "abstained_unanswerable": 1.0},
        {**wrong, "abstained_unanswerable": 0.0},
        {**wrong, "answered_answerable": 0.0},
        {**right, "answered_answerable": 1.0},
    ]


def test_multihop_and_short_tasks_differ_in_f1() -> None:
    closed = Example("6", "Is it?", ("yes",))
    said = TASKS["squad"].said(closed, drafted("yes it is"))
    assert TASKS["squad"].scores(said, closed)["f1"] == pytest.approx(0.5)
    assert TASKS["hotpotqa"].scores(said, closed)["f1"] == 0.0


def test_faithfulness_is_measured_on_what_was_read() -> None:
    faithful = TASKS["faithfulness"]
    example = Example("7", "Which rusts?", ("iron",), gold=frozenset({"p"}))
    answer = read(("iron rusts quickly", 1.0), sources=[PASSAGE])
    assert faithful.scores(faithful.said(example, answer), example) == pytest.approx(
        {"knowledge_precision": 2 / 3, "grounded": 1.0, "gold_source": 1.0}
    )
    other = Passage("q", "Sand.", metadata={"doc_id": "d"})
    answer = read(("sand", 1.0), sources=[other])
    assert faithful.scores(faithful.said(example, answer), example)["gold_source"] == 0.0
    found = Example("8", "Which?", ("sand",), gold=frozenset({"d"}))
    assert faithful.scores(faithful.said(found, answer), found)["gold_source"] == 1.0
    beside = Passage("q", "Iron is heavy.", PASSAGE.title)
    row = replace(example, passages=(PASSAGE, beside), gold=frozenset({"p", PASSAGE.title}))
    for one, score in ((PASSAGE, 1.0), (beside, 0.0), (replace(beside, id="7"), 1.0)):
        answer = read(("iron", 1.0), sources=[one])  # the last one is an index's
        assert faithful.scores(faithful.said(row, answer), row)["gold_source"] == score
    refusal = read(("iron", 1.0), abstained=True, sources=[PASSAGE])
    assert faithful.scores(faithful.said(example, refusal), example) == {"grounded": 0.0}
    assert faithful.scores(faithful.said(example, drafted("iron")), example) == {}


def test_long_answers_have_no_score_where_there_is_none() -> None:
    clapnq = TASKS["clapnq"]
    none = Example("9", "Why?", (), answerable=False)
    assert "rouge_l" not in clapnq.scores(clapnq.said(none, read(("x", 1.0))), none)
    long = Example("10", "Who?", ("Daei and Bican did.",), short_answers=(("Daei",), ("Bican",)))
    said = TASKS["asqa"].said(long, drafted("Daei did"))
    assert TASKS["asqa"].scores(said, long) == pytest.approx(
        {"string_recall": 0.5, "rouge_l": 2 * 0.5 / 1.5}  # p = 2/2, r = 2/4
    )


def test_every_task_has_a_main_metric() -> None:
    assert {name: one.metric for name, one in TASKS.items()} == {
        "popqa": "match",
        "triviaqa": "match",
        "nq": "exact_match",
        "squad": "f1",
        "arc_challenge": "accuracy",
        "claims": "accuracy",
        "hotpotqa": "exact_match",
        "2wiki": "exact_match",
        "musique": "exact_match",
        "squad_v2": "f1",
        "clapnq": "abstention",
        "asqa": "string_recall",
        "faithfulness": "knowledge_precision",
    }


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no task 'hotpot': choose one of popqa, triviaqa"):
        task("hotpot")
