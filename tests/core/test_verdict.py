"""core/openrag_core/verdict.py: what is believed, and what is said when nothing is."""

from dataclasses import replace
from math import inf, nan
from threading import Lock

import numpy as np
import pytest

from openrag_core import (
    Answer,
    Candidate,
    ConfigError,
    Decision,
    Draft,
    Passage,
    PassageScore,
    Written,
)
from openrag_core.verdict import Minima, conclude
from tests.fakes import tokens

READ = Decision(retrieve=True, mode="always")


def candidate(name: str, text: str, score: PassageScore) -> Candidate:
    passage = Passage(id=name, text="...", title=f"Title {name}", source=f"{name}.md")
    return Candidate(Written((passage,), text, tokens(0.5)), score, score.seq)


def answer(*candidates: Candidate, relevance: float = 0.5, support: float = 0.25) -> Answer:
    return conclude(
        question="When?",
        decision=READ,
        draft=None,
        candidates=candidates,
        minima=Minima(relevance, support),
        seconds={},
    )


def test_the_best_candidate_that_reaches_the_minima_wins() -> None:
    wrong = candidate("a", "1912", PassageScore(0.9, rel=0.4, sup=1.0, use=1.0))
    unsupported = candidate("b", "1953", PassageScore(0.8, rel=0.9, sup=0.2, use=1.0))
    right = candidate("c", "1893", PassageScore(0.7, rel=0.9, sup=0.9, use=1.0))
    got = answer(wrong, unsupported, right)
    assert (got.text, got.grounded, got.abstained) == ("1893", True, False)
    assert [source.id for source in got.sources] == ["c"]
    assert [c.evidence[0].id for c in got.candidates] == ["c", "a", "b"]
    assert got.confidence == pytest.approx(0.5)


def test_where_nothing_reaches_them_the_answer_says_so_and_names_the_nearest() -> None:
    far = candidate("a", "1912", PassageScore(0.9, rank=0.1))
    near = candidate("b", "1953", PassageScore(0.8, rank=0.4))
    got = answer(far, near)
    assert got.text == (
        "The documents do not tell. Nearest passages:\n- Title b · b.md\n- Title a · a.md"
    )
    web = replace(far.written.evidence[0], source="https://example.org/guide/index.html")
    written = replace(far.written, evidence=(replace(web, metadata={"page": 2}),))
    assert answer(replace(far, written=written)).text.endswith(
        "\n- Title a · https://example.org/guide/index.html · page 2"
    )
    assert (got.grounded, got.abstained, got.confidence) == (False, True, 0.0)
    assert [source.id for source in got.sources] == ["b", "a"]


def test_the_nearest_are_told_from_those_whose_relevance_is_no_number() -> None:
    scored = {"a": 0.1, "b": nan, "c": 0.4}
    got = answer(
        *(candidate(name, "?", PassageScore(0.9, rank=one)) for name, one in scored.items())
    )
    assert [source.id for source in got.sources] == ["c", "a", "b"]


def test_what_cannot_be_copied_is_named_all_the_same() -> None:
    far = candidate("a", "1912", PassageScore(0.9, rank=0.1))
    locked = replace(far.written.evidence[0], metadata={"lock": Lock()})
    written = replace(far.written, evidence=(locked,))
    assert answer(replace(far, written=written)).text.endswith("- Title a · a.md")


@pytest.mark.parametrize("minimum", [nan, "high"])
def test_a_minimum_is_a_number(minimum: float) -> None:
    with pytest.raises(ConfigError, match="min_support must be a number"):
        Minima(0.5, minimum)
    Minima(np.float32(0.5), np.int64(1))  # type: ignore[arg-type]


def test_no_passage_at_all_is_said_too() -> None:
    got = answer()
    assert got.text == "The documents do not tell."
    assert got.abstained


def test_an_empty_answer_is_never_believed() -> None:
    assert answer(candidate("a", " ", PassageScore(0.9, rank=0.9)), relevance=-inf).abstained


def test_support_that_is_not_judged_is_not_asked_for() -> None:
    assert answer(candidate("a", "1893", PassageScore(0.9, rank=0.9))).grounded


def test_a_model_that_says_nothing_is_not_shown_as_an_empty_answer() -> None:
    got = conclude(
        question="When?",
        decision=Decision(retrieve=False, mode="never"),
        draft=Draft(" ", ()),
        candidates=(),
        minima=Minima(0.5, 0.25),
        seconds={},
    )
    assert (got.text, got.confidence) == ("The model gave no answer.", 0.0)


def test_an_answer_from_memory_is_not_grounded() -> None:
    got = conclude(
        question="When?",
        decision=Decision(retrieve=False, mode="f_minp", value=0.9, threshold=0.5),
        draft=Draft(" 1893 \n", tokens(0.9, 0.4)),
        candidates=(),
        minima=Minima(0.5, 0.25),
        seconds={},
    )
    assert (got.text, got.grounded, got.abstained, got.sources) == ("1893", False, False, ())
    assert got.confidence == pytest.approx(0.6)
