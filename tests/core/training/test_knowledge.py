"""core/openrag_core/training/knowledge.py: what counts as knowing."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from openrag_core.training import JsonCache, Question, label_known
from openrag_core.training.knowledge import answered
from tests.core.training.fakes import Base


@pytest.mark.parametrize(
    ("asked", "answers", "said", "knows"),
    [
        ("Capital of France?", ["Paris"], "The capital is Paris.", True),
        ("Capital of France?", ["Paris"], "It is Parisian.", False),
        ("Who?", ["The Beatles", "Beatles"], "beatles!", True),
        ("Who?", ["the"], "the", False),
        ("Is it old?", ["yes"], "Yes, it is.", False),
        ("Which is older, A1 or B2?", ["A1"], "A1 is older than B2.", False),
        ("Which is older, A1 or B2?", ["A1"], "A1.", True),
        ("Copy: Ana runs.", ["Ana runs."], "Ana runs.", True),
        ("Copy: Ana runs.", ["Ana runs."], "You said: Ana runs.", False),
        ("Who?", ["Ana"], "", False),
    ],
)
def test_a_guess_is_not_knowledge(
    asked: str, answers: Sequence[str], said: str, knows: bool
) -> None:
    assert answered(Question("", asked, tuple(answers)), said) is knows


PARIS = Question("1", "Capital of France?", ("Paris",))
MOON = Question("2", "Capital of the moon?", ("Luna",))


def test_every_question_is_labelled_in_its_turn() -> None:
    base = Base({"Capital of France?": "It is Paris."})
    seen: list[int] = []
    labelled = list(label_known(base, [MOON, PARIS] * 200, progress=seen.append))
    assert [question.known for question in labelled] == [False, True] * 200
    assert [question.id for question in labelled] == ["2", "1"] * 200
    assert sum(seen) == 400


def test_what_is_labelled_already_is_not_asked() -> None:
    base = Base({})
    known = [Question("1", "Capital of France?", ("Paris",), known=True)]
    assert list(label_known(base, known)) == known
    assert base.asked == []


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "cache.jsonl"
    list(label_known(Base({}), [PARIS], cache=JsonCache(file), name="one"))
    with file.open("a", encoding="utf-8") as out:
        out.write('\n["half a li')
    again = Base({})
    labelled = list(label_known(again, [PARIS, MOON], cache=JsonCache(file), name="one"))
    assert again.asked == ["Capital of the moon?"]
    assert [question.known for question in labelled] == [False, False]
    other = Base({"Capital of France?": "Paris"})
    (question,) = label_known(other, [PARIS], cache=JsonCache(file), name="another base")
    assert question.known is True
