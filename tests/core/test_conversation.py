"""core/openrag_core/conversation.py: questions that are asked in the middle of one."""

from typing import Any

import pytest

from openrag_core import ConfigError, Conversation, Message, OpenRAG, QuestionError, Token
from openrag_core.conversation import Reply, check_questions, question_of, spoken
from openrag_core.events import CondensedEvent, StageEnded, StageStarted
from tests.core.test_pipeline import BRIDGE, FERRY, SURE, UNSURE
from tests.fakes import FakeCondenser, FakeGenerator, FakeRetriever

HISTORY = (
    Message("user", "Who built the Velora Bridge?"),
    Message("assistant", "Ana Tolvik built it."),
)
WHEN = Conversation("When was it built?", HISTORY)
ALONE = "When was the Velora Bridge built?"


def test_a_question_is_what_is_asked_last() -> None:
    assert (question_of("Who?"), question_of(WHEN)) == ("Who?", "When was it built?")


@pytest.mark.parametrize("blank", ["", " \n", Conversation(" ", HISTORY)])
def test_blank_questions_are_refused_in_a_conversation_too(blank: str | Conversation) -> None:
    with pytest.raises(QuestionError, match="empty"):
        check_questions(["Who?", blank])
    check_questions(["Who?", WHEN])


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ("Who?", "is one question: give a list"),
        (WHEN, "is one question: give a list"),
        (None, "None is no list of questions"),
    ],
)
def test_what_is_no_list_of_questions_is_refused(questions: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(QuestionError, match=message):
        answering().answer_many(questions)


@pytest.mark.parametrize(
    ("question", "history", "message"),
    [
        (None, (), "a question is a string; got None"),
        ("When?", "User: Who built it?", r"sequence of messages.* got 'User: Who built it\?'"),
        ("When?", (("user", "Who built it?"),), "sequence of messages"),
        ("When?", None, "sequence of messages"),
    ],
)
def test_what_is_no_conversation_is_refused(question: Any, history: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(QuestionError, match=message):
        Conversation(question, history)


def test_questions_and_passages_may_come_one_by_one() -> None:
    pipeline = answering()
    answers = pipeline.answer_many(iter(["Who?", "Who?"]))  # type: ignore[arg-type]
    assert [answer.text for answer in answers] == ["1912", "1912"]
    assert pipeline.answer_from("Who?", iter([BRIDGE])).text == "1893"  # type: ignore[arg-type]


@pytest.mark.parametrize("passages", [None, BRIDGE, ["It opened in 1893."]])
def test_what_are_no_passages_is_refused(passages: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=r"Passage\(\.\.\.\)[;,] got"):
        answering().answer_from("Who?", passages)


def answering(condenser: FakeCondenser | None = None) -> OpenRAG:
    generator = FakeGenerator(drafts={"Who?": SURE, ALONE: UNSURE})
    found = FakeRetriever({"Who?": [FERRY], ALONE: [BRIDGE], WHEN.question: [FERRY]})
    return OpenRAG(generator, found, condenser=condenser)


def test_only_questions_with_a_history_are_condensed_and_all_together() -> None:
    condenser = FakeCondenser({WHEN.question: ALONE})
    pipeline = answering(condenser)
    fresh = Conversation("Who?")
    answers = pipeline.answer_many([fresh, WHEN, "Who?", WHEN])
    assert [answer.question for answer in answers] == ["Who?", ALONE, "Who?", ALONE]
    assert [answer.text for answer in answers] == ["1912", "1893", "1912", "1893"]
    assert condenser.calls == [(WHEN, WHEN)]
    assert list(answers[0].seconds) == ["condense", "retrieve", "write"]
    pipeline.answer(fresh)
    assert len(condenser.calls) == 1


def test_condensing_is_told() -> None:
    events = list(answering(FakeCondenser({WHEN.question: ALONE})).stream_many(["Who?", WHEN]))
    started, ended, condensed = events[:3]
    assert started == StageStarted("condense", (1,))
    assert isinstance(ended, StageEnded)
    assert (ended.stage, ended.results) == ("condense", (ALONE,))
    assert condensed == CondensedEvent(1, ALONE)


async def test_a_history_without_a_condenser_is_refused_at_every_door() -> None:
    pipeline = answering()
    doors = (pipeline.answer, pipeline.retrieve, pipeline.decide, pipeline.condense)
    for door in doors:
        with pytest.raises(ConfigError, match=r"needs a condenser.*ask whole questions"):
            door(WHEN)
    with pytest.raises(ConfigError, match="needs a condenser"):
        await pipeline.aanswer_from(WHEN, [BRIDGE])
    assert pipeline.retriever.calls == []  # type: ignore[attr-defined]
    assert pipeline.answer(Conversation("Who?")).text == "1912"


async def test_every_door_takes_a_conversation() -> None:
    pipeline = answering(FakeCondenser({WHEN.question: ALONE}))
    assert (pipeline.condense(WHEN), pipeline.condense("Who?")) == (ALONE, "Who?")
    assert await pipeline.acondense(WHEN) == ALONE
    assert pipeline.retrieve(WHEN) == await pipeline.aretrieve(WHEN) == [BRIDGE]
    answer = pipeline.answer_from(WHEN, [BRIDGE])
    assert (answer.question, answer.text) == (ALONE, "1893")
    assert (await pipeline.aanswer(WHEN)).question == ALONE


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (["<think>", "\nIt says", " 1893.\n", "</think>", "\n\n", "1893", "."], ["1893", "."]),
        (["<", "think", ">Hm</", "think", ">", " 1893"], [" 1893"]),
        (["\n", "<think>", "</think>", "1893"], ["1893"]),
        (["<think>", "It says", ""], []),  # cut off before anything was said
        (["<b>", " 1893 ", "<think>", "</think>"], ["<b>", " 1893 ", "<think>", "</think>"]),
        (["", "1893"], ["", "1893"]),
        (["It says", " 1893.", "</think>", "\n", "1893"], ["1893"]),  # begun in the prompt
        (["<think>", "</think>", "<think>", "Hm", "</think>", "1893"], ["1893"]),
    ],
)
def test_a_thought_is_no_part_of_what_was_said(said: list[str], kept: list[str]) -> None:
    reply = spoken(Reply("".join(said), tuple(Token(text, -1.0) for text in said)))
    assert [token.text for token in reply.tokens] == kept
    assert reply.text.strip() == "".join(kept).strip()
