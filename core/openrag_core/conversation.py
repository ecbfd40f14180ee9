"""Conversations: chat models, and questions that are asked in the middle of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from openrag_core.errors import ConfigError, QuestionError
from openrag_core.records import Token
from openrag_core.steps import Call, Steps, arun, run

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question, and what was said before it."""

    question: str
    history: tuple[Message, ...] = ()
    """The oldest first."""


Question = str | Conversation
"""One that stands alone, or one that has to be read in its conversation."""


def question_of(question: Question) -> str:
    """What is asked, without what was said before."""
    return question if isinstance(question, str) else question.question


def check_questions(questions: Sequence[Question]) -> None:
    """Refuse questions that nothing can be answered to.

    Raises:
        QuestionError: One is blank, or holds what is no Unicode character, or they are no list.
    """
    if isinstance(questions, str):
        raise QuestionError(f"{questions!r} is one question: give a list of them")
    for asked in questions:
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
    """What a chat model replies to a single message."""
    (reply,) = chat.reply([[Message("user", text)]])
    return reply.text


@runtime_checkable
class Condenser(Protocol):
    """Makes questions stand alone; one at home in event loops adds `acondense`."""

    def condense(self, conversations: Sequence[Conversation]) -> list[str]:
        """One question for each conversation."""
        ...


INSTRUCTION = (
    "Rewrite the last question so that it can be understood without the conversation. "
    "Change nothing else, and do not answer it."
)
_EXAMPLES = (
    ("Who wrote Emma?", "Jane Austen", "When was she born?", "When was Jane Austen born?"),
    ("How long is the Rhine?", "1,230 km", "Where does it begin?", "Where does the Rhine begin?"),
    ("What does a Model T cost?", "850 dollars", "Who built it?", "Who built the Model T?"),
    (
        "Who painted the Mona Lisa?",
        "Leonardo da Vinci",
        "Where did he live?",
        "Where did Leonardo da Vinci live?",
    ),
    ("What is the capital of Spain?", "Madrid", "And of Italy?", "What is the capital of Italy?"),
    (
        "When does the library open?",
        "At nine",
        "And on Sundays?",
        "When does the library open on Sundays?",
    ),
    ("Who discovered radium?", "Marie Curie", "How do plants grow?", "How do plants grow?"),
)
_TURNS = 6  # of the conversation that are read, the last ones
_LONGEST = 300  # characters of each


class ChatCondenser:
    """Has a chat model rewrite the question; satisfies `Condenser`.

    Args:
        chat: The chat model.
        cautious: Whether a rewriting counts only if it keeps the question's own words and adds
            none that are not in the conversation, for small models; the question stays as it is
            otherwise.
    """

    def __init__(self, chat: ChatModel, *, cautious: bool = False) -> None:
        self._chat = chat
        self._cautious = cautious

    def condense(self, conversations: Sequence[Conversation]) -> list[str]:
        """One question for each conversation."""
        return run(self._condense(conversations))

    async def acondense(self, conversations: Sequence[Conversation]) -> list[str]:
        """The same; the event loop goes on."""
        return await arun(self._condense(conversations))

    def _condense(self, conversations: Sequence[Conversation]) -> Steps[list[str]]:
        prompts = [prompt(one) for one in conversations]
        replies: list[Reply] = yield Call(self._chat, "reply", (prompts,))
        pairs = zip(conversations, replies, strict=True)
        return [self._checked(one, reply.text) for one, reply in pairs]

    def _checked(self, conversation: Conversation, reply: str) -> str:
        rewritten = next((line.strip() for line in reply.splitlines() if line.strip()), "")
        if not rewritten or (self._cautious and not _faithful(conversation, rewritten)):
            return conversation.question
        return rewritten


def prompt(conversation: Conversation) -> list[Message]:
    """What the chat model is asked: the task, examples, and the conversation's last turns."""
    messages = [Message("system", INSTRUCTION)]
    for question, answer, next_question, rewritten in _EXAMPLES:
        history = (Message("user", question), Message("assistant", answer))
        messages += [
            Message("user", _shown(history, next_question)),
            Message("assistant", rewritten),
        ]
    said = [one for one in conversation.history if one.role != "system"][-_TURNS:]
    return [*messages, Message("user", _shown(said, conversation.question))]


def _shown(history: Sequence[Message], question: str) -> str:
    lines = [f"{one.role.capitalize()}: {one.text[:_LONGEST]}" for one in history]
    return "\n".join([*lines, f"User: {question}", "Means:"])


_REFERRING = frozenset(
    """it its he him his she her hers they them their this that these those there one and or of in
    on at to for a an the is are was were be been do does did has have had what who whom whose
    which when where why how about with from by as then so also s
    """.split()  # noqa: SIM905  (a list of words reads worse)
)


def _faithful(conversation: Conversation, rewritten: str) -> bool:
    own, new = _words(conversation.question), _words(rewritten)
    known = own.union(*(_words(one.text) for one in conversation.history))
    return own - _REFERRING <= new and new - _REFERRING <= known


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
