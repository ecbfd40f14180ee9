"""core/openrag_core/condenser.py: questions of a conversation are made to stand alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from openrag_core import ChatCondenser, Conversation, Message
from openrag_core.condenser import INSTRUCTION, prompt
from openrag_core.conversation import Reply
from openrag_core.model import BaseChat
from tests.core.test_conversation import ALONE, HISTORY, WHEN


class Parrot:
    """Replies what it was told to, each in its turn."""

    def __init__(self, *replies: str) -> None:
        self.replies = replies
        self.heard: list[list[Message]] = []

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        self.heard += map(list, conversations)
        return [Reply(text) for text in self.replies[: len(conversations)]]


class CutOff(Parrot):
    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        return [replace(reply, finish="length") for reply in super().reply(conversations)]


class NativeParrot(Parrot):
    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        await asyncio.sleep(0)
        return [Reply(f"async {reply.text}") for reply in self.reply(conversations)]


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
        (f"<think>\nThe bridge,\n\nsurely.\n</think>\n\n{ALONE}", ALONE),
        ("\n<think>\nThe bridge, sure", WHEN.question),  # it never came to say anything
        ("What does <think> mean in HTML?", "What does <think> mean in HTML?"),
    ],
)
def test_the_first_line_of_the_reply_is_the_question(reply: str, question: str) -> None:
    assert ChatCondenser(Parrot(reply)).condense([WHEN]) == [question]


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("When was the Velora", WHEN.question),
        (f"{ALONE}\nIt was built in 18", ALONE),  # what was cut off is none of it
    ],
)
def test_a_question_that_was_cut_off_is_none(reply: str, question: str) -> None:
    assert ChatCondenser(CutOff(reply)).condense([WHEN]) == [question]


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


def test_half_a_character_in_a_reply_is_replaced() -> None:
    """It can be searched for nowhere."""
    assert ChatCondenser(Parrot("When was \ud83d it?")).condense([WHEN]) == ["When was \ufffd it?"]
