"""Conversations: chat models, and questions that are asked in the middle of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, Protocol, runtime_checkable

from openrag_core.errors import ConfigError, QuestionError
from openrag_core.records import Token

Role = Literal["system", "user", "assistant"]
_THOUGHT = re.compile(
    r"\A(?:\s*<think>.*?(?:</think>|\Z))+\s*"
    r"|\A(?:(?!<think>).)*?</think>\s*",  # of models whose prompt ends with the opening tag
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question, and what was said before it.

    Raises:
        QuestionError: The question is no string, or the history holds anything but messages.
    """

    question: str
    history: tuple[Message, ...] = ()
    """The oldest first."""

    def __post_init__(self) -> None:
        if not isinstance(self.question, str):
            raise QuestionError(f"a question is a string; got {self.question!r}")
        listed = isinstance(self.history, Sequence)
        if not listed or not all(isinstance(one, Message) for one in self.history):
            raise QuestionError(
                'a history is a sequence of messages, such as Message("user", "Who built it?"); '
                f"got {self.history!r}"
            )


Question = str | Conversation
"""One that stands alone, or one that has to be read in its conversation."""


def question_of(question: Question) -> str:
    """What is asked, without what was said before."""
    return question if isinstance(question, str) else question.question


def check_questions(questions: Iterable[Question]) -> list[Question]:
    """The questions as a list; those that nothing can be answered to are refused.

    Raises:
        QuestionError: One is blank, or holds what is no Unicode character, or they are no list.
    """
    if isinstance(questions, Question):
        raise QuestionError(f"{questions!r} is one question: give a list of them")
    if not isinstance(questions, Iterable):
        raise QuestionError(f"{questions!r} is no list of questions: give one")
    listed = list(questions)
    for asked in listed:
        if not isinstance(asked, Question):
            raise QuestionError(f"a question is a string or a Conversation; got {asked!r}")
        question = question_of(asked)
        if not question.strip():
            raise QuestionError("the question is empty: ask something")
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise QuestionError(
                f"the question {question!r} holds what is no Unicode character: "
                "check the terminal's encoding"
            ) from error
    return listed


@dataclass(frozen=True, slots=True)
class Reply:
    """What a chat model says."""

    text: str
    tokens: tuple[Token, ...] = ()
    """Empty where the model does not tell their probabilities."""
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: Literal["stop", "length"] = "stop"
    """Whether the model came to an end, or to the most tokens that it may write."""


def spoken(reply: Reply) -> Reply:
    """The reply without the thought that a reasoning model begins with, and without its tokens.

    A thought that was cut off leaves nothing.
    """
    text = _THOUGHT.sub("", reply.text)
    return replace(reply, text=text, tokens=_after_thought(reply.tokens))


def _after_thought(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    thought = _THOUGHT.match("".join(token.text for token in tokens))
    if thought is None:
        return tokens
    ends = accumulate(len(token.text) for token in tokens)
    return tuple(t for t, end in zip(tokens, ends, strict=True) if end > thought.end())


@runtime_checkable
class ChatModel(Protocol):
    """Replies to conversations; one at home in event loops adds `areply`.

    What it says can be kept where it tells by `name` what tells it from other models.
    """

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each."""
        ...


def chat_name(chat: ChatModel, name: str | None = None) -> str:
    """By which a chat model is known: the name that is given, or its own; empty without either.

    Raises:
        ConfigError: It is no chat model.
    """
    if not isinstance(chat, ChatModel):
        raise ConfigError(
            f"expected a chat model with `reply`, got {type(chat).__name__}: put LangChain's into "
            "langchain_openrag.LangChainChat(model), LlamaIndex's into "
            "llamaindex_openrag.LlamaIndexChat(llm)"
        )
    return name or str(getattr(chat, "name", None) or "")


def known_chat_name(chat: ChatModel, name: str | None = None) -> str:
    """As `chat_name`, of a model whose replies are kept.

    Raises:
        ConfigError: It is no chat model, or has no name.
    """
    if known := chat_name(chat, name):
        return known
    raise ConfigError(
        "the chat model does not tell its name, under which its replies are kept: give one "
        'by name="..."'
    )


def say(chat: ChatModel, text: str) -> str:
    """What a chat model replies to a single message, without a thought before it."""
    (reply,) = chat.reply([[Message("user", text)]])
    return spoken(reply).text


@runtime_checkable
class Condenser(Protocol):
    """Makes questions stand alone; one at home in event loops adds `acondense`."""

    def condense(self, conversations: Sequence[Conversation]) -> list[str]:
        """One question for each conversation."""
        ...
