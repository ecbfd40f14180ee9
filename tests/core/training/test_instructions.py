"""core/openrag_core/training/instructions.py: questions that need no documents."""

from itertools import islice

from openrag_core.training import instructions


def test_no_two_are_alike_and_all_have_an_answer() -> None:
    drawn = list(instructions(3000))
    assert len({question.question for question in drawn}) == len(drawn) == 3000
    assert all(question.answers[0].strip() for question in drawn)
    assert all(question.known is None and not question.gold for question in drawn)


def test_more_begin_with_the_same() -> None:
    assert list(instructions(700))[:500] == list(instructions(500))
    assert list(instructions(500, seed=1)) != list(instructions(500))


def test_answers_are_right() -> None:
    answers = {q.question: q.answers[0] for q in islice(instructions(6000), 6000)}
    assert answers["What is 3 plus 4?"] == "7"
    assert answers["What is the capital of Argentina?"] == "Buenos Aires"
    assert answers['Spell the word "river".'] == "r-i-v-e-r"


def test_the_tables_come_to_an_end() -> None:
    assert 10_000 < len(list(instructions(100_000))) < 100_000
