"""core/openrag_core/training/dataset.py: questions and helpers -> a whole training set."""

import pytest

from openrag_core import ConfigError, Passage, TrainingDataError
from openrag_core.training import Helpers, Mix, Question, Text, build_dataset, instructions
from tests.core.training.fakes import Base, FakeCritic
from tests.fakes import FakeRetriever

QUESTIONS = [
    Question(str(n), f"Who built tower {n}?", (f"Ana {n}",), (Text("T", f"Ana {n} did."),))
    for n in range(40)
]


def test_instructions_fill_up_what_the_base_knows() -> None:
    knows = {question.question: question.answers[0] for question in list(instructions(600))[::3]}
    base = Base(knows | {"Who built tower 7?": "Ana 7"})
    made = build_dataset(QUESTIONS, helpers=Helpers(base=base), min_no_retrieval=0.3)
    assert made.no_retrieval >= 0.3
    assert made.kinds["gold"] == 39
    assert made.kinds["no_retrieval"] / (made.kinds["no_retrieval"] + 39) == made.no_retrieval
    assert "[No Retrieval]Ana 7[Utility:5]" in {row.output for row in made.rows}
    learned = {row.input for row in made.rows if row.output.startswith("[No Retrieval]")}
    assert learned <= knows.keys() | {"Who built tower 7?"}


@pytest.mark.parametrize(("share", "wanted"), [(0.2, 10), (0.9, 360), (0, 0)])
def test_no_more_instructions_are_mixed_in_than_were_asked_for(share: float, wanted: int) -> None:
    base = Base({question.question: question.answers[0] for question in instructions(2000)})
    made = build_dataset(QUESTIONS, helpers=Helpers(base=base), min_no_retrieval=share)
    assert made.kinds["no_retrieval"] == wanted
    assert made.no_retrieval == pytest.approx(share)


def test_a_base_that_knows_nothing_ends_the_search() -> None:
    made = build_dataset(QUESTIONS, helpers=Helpers(base=Base({})))
    assert made.no_retrieval == 0
    assert made.kinds == {"gold": 40}


def test_nobody_is_asked_who_was_not_named() -> None:
    assert build_dataset(QUESTIONS).kinds == {"gold": 40}


def test_distractors_are_mined_and_learned() -> None:
    retriever = FakeRetriever([Passage("p", "It is tall.", "Tower", "a")])
    whole = {"a": Text("Tower", "It is tall. Very.")}
    made = build_dataset(QUESTIONS, Mix(gold=0, mixed=0), Helpers(retriever=retriever, whole=whole))
    assert {row.output.partition("[Irr")[0] for row in made.rows} == {
        "[Retrieval]<paragraph>Tower\nIt is tall. Very.</paragraph>"
    }


def test_a_distractor_that_answers_is_none() -> None:
    wrong = (Text("T", "Some say Ana 1 did it."), Text("T", "It is tall."))
    asked = Question("1", "Who built tower 1?", ("Ana 1",), distractors=wrong)
    (row,) = build_dataset([asked]).rows
    assert "It is tall." in row.output


@pytest.mark.parametrize("share", [-0.1, 1, 20])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"a share, in \[0, 1\)"):
        build_dataset(QUESTIONS, min_no_retrieval=share)


def test_a_critic_labels_what_nobody_did() -> None:
    asked = [Question("1", "Who?", ("Ana",), passages=(Text("", "Ana."), Text("", "Ben.")))]
    stages: set[tuple[str, int]] = set()
    made = build_dataset(
        asked,
        helpers=Helpers(critic=FakeCritic()),
        progress=lambda stage, _, total: stages.add((stage, total)),
    )
    assert made.kinds == {"judged": 2}
    assert [row.output for row in made.rows] == [
        "[Retrieval]<paragraph>Ana.</paragraph>[Relevant]Ana[Fully supported][Utility:5]",
        "[Retrieval]<paragraph>Ben.</paragraph>[Irrelevant]Ana[No support / Contradictory]"
        "[Utility:1]",
    ]
    assert stages == {("judging", 2)}


def test_questions_that_give_no_row_are_refused() -> None:
    with pytest.raises(TrainingDataError, match="need gold passages or distractors"):
        build_dataset([Question("1", "Who?", ("Ana",))])


def test_what_the_base_knows_is_not_learned_from_judged_passages_too() -> None:
    asked = [Question("1", "Who?", ("Ana",), passages=(Text("", "Ana."),), known=True)]
    critic = FakeCritic()
    made = build_dataset(asked, helpers=Helpers(critic=critic))
    assert made.kinds == {"no_retrieval": 1}
    assert critic.judged == []
    assert [row.output for row in made.rows] == ["[No Retrieval]Ana[Utility:5]"]
