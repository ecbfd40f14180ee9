"""core/openrag_core/conversation.py: questions of a conversation are made to stand alone."""

import asyncio
from collections.abc import Sequence

import pytest

from openrag_core import ChatCondenser, ConfigError, Conversation, Message, OpenRAG, QuestionError
from openrag_core.conversation import INSTRUCTION, Reply, check_questions, prompt, question_of
from openrag_core.events import CondensedEvent, StageEnded, StageStarted
from openrag_core.model import BaseChat
from tests.core.test_pipeline import BRIDGE, FERRY, SURE, UNSURE
from tests.fakes import FakeCondenser, FakeGenerator, FakeRetriever

HISTORY = (
    Message("user", "Who built the Velora Bridge?"),
    Message("assistant", "Ana Tolvik built it."),
)
WHEN = Conversation("When was it built?", HISTORY)
ALONE = "When was the Velora Bridge built?"


class Parrot:
    """Replies what it was told to, each in its turn."""

    def __init__(self, *replies: str) -> None:
        self.replies = replies
        self.heard: list[list[Message]] = []

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        self.heard += map(list, conversations)
        return [Reply(text) for text in self.replies[: len(conversations)]]


class NativeParrot(Parrot):
    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        await asyncio.sleep(0)
        return [Reply(f"async {reply.text}") for reply in self.reply(conversations)]


def test_a_question_is_what_is_asked_last() -> None:
    assert (question_of("Who?"), question_of(WHEN)) == ("Who?", "When was it built?")


@pytest.mark.parametrize("blank", ["", " \n", Conversation(" ", HISTORY)])
def test_blank_questions_are_refused_in_a_conversation_too(blank: str | Conversation) -> None:
    with pytest.raises(QuestionError, match="empty"):
        check_questions(["Who?", blank])
    check_questions(["Who?", WHEN])


def test_the_chat_model_reads_task_examples_and_conversation() -> None:
    first, *examples, last = prompt(WHEN)
    assert first == Message("system", INSTRUCTION)
    assert [one.role for one in examples] == ["user", "assistant"] * (len(examples) // 2)
    assert all(one.text.endswith("\nMeans:") for one in examples[::2])
    assert last == Message(
        "user",
        "User: Who built the Velora Bridge?\n"
        "Assistant: Ana Tolvik built it.\n"
        "User: When was it built?\n"
        "Means:",
    )


def test_only_the_last_turns_are_read_and_not_all_of_a_long_one() -> None:
    said = [Message("user", f"turn {n}") for n in range(8)]
    long = Message("assistant", "y" * 299 + "zz")
    asked = Conversation("And?", (Message("system", "Be brief."), *said, long))
    lines = prompt(asked)[-1].text.splitlines()
    assert lines == [
        *(f"User: turn {n}" for n in range(3, 8)),
        "Assistant: " + "y" * 299 + "z",
        "User: And?",
        "Means:",
    ]


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        (ALONE, ALONE),
        (f"\n  {ALONE} \nIt was built in 1893.", ALONE),  # what comes after is no question
        ("", WHEN.question),
        (" \n ", WHEN.question),
        ("In 1893.", "In 1893."),  # a large model is taken at its word
    ],
)
def test_the_first_line_of_the_reply_is_the_question(reply: str, question: str) -> None:
    assert ChatCondenser(Parrot(reply)).condense([WHEN]) == [question]


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (ALONE, True),
        ("when was the VELORA BRIDGE built", True),
        ("When did Ana Tolvik have the Velora Bridge built?", True),
        ("Who opened the Velora Bridge?", False),  # loses "built"
        ("When was the Rhine Bridge built?", False),  # adds what nobody spoke of
        ("Ana Tolvik built it.", True),  # no question, but of their words
        ("When was the Velora Bridge built in 1893?", False),
    ],
)
def test_a_cautious_one_neither_loses_nor_invents_words(reply: str, kept: bool) -> None:
    condenser = ChatCondenser(Parrot(reply), cautious=True)
    assert condenser.condense([WHEN]) == [reply if kept else WHEN.question]


async def test_conversations_are_asked_about_together_and_keep_their_order() -> None:
    other = Conversation("Who was she?", HISTORY)
    parrot = Parrot("first", "second")
    assert ChatCondenser(parrot).condense([WHEN, other]) == ["first", "second"]
    assert [heard[-1] for heard in parrot.heard] == [prompt(WHEN)[-1], prompt(other)[-1]]
    assert await ChatCondenser(parrot).acondense([WHEN]) == ["first"]
    assert await ChatCondenser(NativeParrot("first")).acondense([WHEN]) == ["async first"]


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


KETH = Conversation(
    "How high is it?",
    (
        Message("user", "What warns ships off the Keth coast?"),
        Message("assistant", "The Keth Lighthouse."),
    ),
)
NEW = Conversation("Who opened the Velora Bridge?", KETH.history)


def test_the_bundled_models_base_makes_a_question_stand_alone() -> None:
    condenser = ChatCondenser(BaseChat("bundled"), cautious=True)
    alone, new = condenser.condense([KETH, NEW])
    assert "Keth Lighthouse" in alone
    assert "high" in alone
    assert new == NEW.question
