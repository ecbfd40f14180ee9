"""What chains and agents hand over: a question, its conversation, and documents to be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_openrag.documents import to_passage
from openrag_core import Conversation, Message, Passage, Question, QuestionError

QUESTION_KEYS = ("question", "input", "query")
HISTORY_KEYS = ("chat_history", "history")
_SPEAKER = re.compile(r"^(Human|AI|User|Assistant): ", re.MULTILINE | re.IGNORECASE)


def to_question(value: object) -> Question:
    """The question in what a chain hands over.

    Args:
        value: A string; a message; a dict with "question", "input" or "query", and "chat_history"
            or "history" where there was a conversation, or with "messages"; a prompt; or a list of
            messages. Of messages the last human one is the question, and what comes before it is
            its history.

    Raises:
        QuestionError: There is none in it.
    """
    match value:
        case str():
            return value
        case BaseMessage():
            return str(value.text)
        case PromptValue():
            return _last_human(value.to_messages())
        case Mapping():
            return _of_keys(value)
        case Sequence():
            return _last_human(_messages(value))
    raise QuestionError(
        f"no question in what is {type(value).__name__}: give a string, dict or messages"
    )


def to_passages(value: object, key: str) -> list[Passage]:
    """The documents in what a chain hands over, as passages.

    Args:
        value: A dict with the documents, or a single one.
        key: Under which they are.

    Raises:
        QuestionError: There are none under it; an empty list is one.
    """
    found = value.get(key) if isinstance(value, Mapping) else None
    documents = [found] if isinstance(found, Document) else found
    if not isinstance(documents, list | tuple) or not all(
        isinstance(one, Document) for one in documents
    ):
        got = type(value).__name__ if found is None else f"{type(found).__name__} under {key!r}"
        raise QuestionError(
            f'no documents in what is {got}: give {{"question": ..., {key!r}: [Document, ...]}}, '
            "as a retriever finds them and before they are made a text"
        )
    return list(map(to_passage, documents))


def _of_keys(value: Mapping[str, Any]) -> Question:
    found = [value[key] for key in QUESTION_KEYS if isinstance(value.get(key), str | BaseMessage)]
    if found:
        asked = found[0] if isinstance(found[0], str) else str(found[0].text)
        history = next((value[key] for key in HISTORY_KEYS if value.get(key)), ())
        return _asked(asked, _messages(_told(history) if isinstance(history, str) else history))
    if "messages" in value:
        return _last_human(_messages(value["messages"]))
    raise QuestionError(
        f"no question in a dict with the keys {sorted(map(str, value))}: "
        f"give one of {', '.join(QUESTION_KEYS)} as a string (and {HISTORY_KEYS[0]}), or messages"
    )


def _last_human(messages: Sequence[BaseMessage]) -> Question:
    for place in reversed(range(len(messages))):
        if isinstance(messages[place], HumanMessage):
            return _asked(str(messages[place].text), messages[:place])
    raise QuestionError(f"no human message among {len(messages)} messages: add the question")


def _asked(question: str, before: Sequence[BaseMessage]) -> Question:
    said = [
        Message("user" if isinstance(one, HumanMessage) else "assistant", str(one.text))
        for one in before
        if isinstance(one, HumanMessage | AIMessage) and str(one.text).strip()
    ]
    return Conversation(question, tuple(said)) if said else question


def _told(history: str) -> list[tuple[str, str]]:
    """A conversation as LangChain's classic memories write it: "Human: ...", "AI: ...".

    Raises:
        QuestionError: It is written in another way.
    """
    _, *parts = _SPEAKER.split(history)
    if not parts:
        raise QuestionError(
            f"no conversation in {history[:40]!r}: give messages, or lines that begin with "
            '"Human: " and "AI: "'
        )
    return list(zip(map(str.lower, parts[::2]), map(str.strip, parts[1::2]), strict=True))


def _messages(values: Any) -> Sequence[BaseMessage]:  # noqa: ANN401  (a user's)
    if isinstance(values, str | BaseMessage):
        values = [values]
    if not isinstance(values, Sequence) or isinstance(values, bytes):
        raise QuestionError(
            f"what stands under messages are none, but a {type(values).__name__}: give a list"
        )
    try:
        return convert_to_messages(list(values))
    except KeyError as error:
        raise QuestionError(f"one of the messages has no {error.args[0]}") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise QuestionError(f"what stands under messages are none: {error}") from error
