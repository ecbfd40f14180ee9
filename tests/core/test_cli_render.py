"""What a terminal shows of an answer."""

from dataclasses import replace

from rich.console import Console

from openrag_core import Candidate, Passage, PassageScore, Written, html
from openrag_core.cli import render
from openrag_core.records import Answer, Decision
from openrag_core.verdict import NOT_TOLD


def test_an_abstention_says_what_was_missed() -> None:
    written = Written((Passage("p", "Ana."),), "Ana", ())
    found = (Candidate(written, PassageScore(0.9), 0.9),)
    decision = Decision(retrieve=True, mode="always")
    result = Answer(
        "Who?", NOT_TOLD, decision, 0.0, grounded=False, abstained=True, candidates=found
    )
    unsure = replace(result, probability=0.62)
    none = replace(result, candidates=())
    for one, why in (
        (result, "no passage was relevant enough"),
        (unsure, "the best answer is right with a probability of 0.62: short of the target"),
        (none, "no passage was found at all"),
    ):
        screen = Console(width=160)
        with screen.capture() as shown:
            screen.print(render.answer(one))
        assert why in shown.get()
    assert "0.62: short of the target" in unsure._repr_html_()


def test_an_explanation_is_readable_on_80_columns() -> None:
    passage = Passage("p", "Ana.", "Velora Bridge > Construction", "documents/velora-bridge.md")
    score = PassageScore(0.9, 0.8, 0.7, 0.5, 1.0)
    found = (Candidate(Written((passage,), " Ana Tolvik", ()), score, 3.952),)
    decision = Decision(retrieve=True, mode="always")
    answer = Answer("Who?", "Ana", decision, 0.9, grounded=True, candidates=found)
    screen = Console(width=80)
    with screen.capture() as shown:
        screen.print(render.explanation(answer))
    lines = [line.split() for line in shown.get().splitlines()]
    numbers = ["3.952", "0.900", "0.800", "0.700", "0.500", "1.000"]
    assert [*numbers, "Ana", "Tolvik"] in lines
    assert ["documents/velora-bridge.md"] in lines  # in one piece, to be copied


def test_an_explanation_tells_what_a_fitted_gate_took() -> None:
    answer = Answer("Who?", "Ana", Decision(retrieve=False, mode="f_minp"), 0.9, grounded=False)
    fitted = replace(answer, probability=0.7)
    told = "fitted gate: 0 passages read, as many as the target asked for"
    for result, expected in ((answer, False), (fitted, True)):
        screen = Console(width=100)
        with screen.capture() as shown:
            screen.print(render.explanation(result))
        assert (told in shown.get()) is expected


def test_a_page_that_nobody_knows_is_no_page() -> None:
    passage = Passage("p", "Ana.", "Bridge", metadata={"page": None})
    assert render.place(passage) == "Bridge · p"
    assert render.place(replace(passage, metadata={"page": 0})) == "Bridge · p · page 0"
    assert html.place(passage.to_dict()) == "Bridge"
