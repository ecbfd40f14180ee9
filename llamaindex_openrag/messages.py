"""Chat messages: LlamaIndex's in ours, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock

from openrag_core import QuestionError
from openrag_core.conversation import Message, Role

_ROLES: Mapping[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def to_messages(messages: Iterable[ChatMessage]) -> list[Message]:
    """LlamaIndex's messages as ours.

    Raises:
        QuestionError: One is the result of a tool, or holds more than text, or nobody says
            anything.
    """
    said = [_read(message) for message in messages]
    if not any(one.text.strip() for one in said if one.role != "system"):
        raise QuestionError("there is nothing to reply to: add a user's message that has a text")
    return said


def to_history(messages: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """What was said in them: the texts of user and assistant, without what tools gave."""
    told = ((_ROLES.get(one.role), (one.content or "").strip()) for one in messages)
    return tuple(
        Message(role, text) for role, text in told if role not in {None, "system"} and text
    )


def from_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Ours as LlamaIndex's."""
    return [ChatMessage(role=MessageRole(one.role), content=one.text) for one in messages]


def _read(message: ChatMessage) -> Message:
    if message.role not in _ROLES:
        raise QuestionError(
            f"the model cannot read a message of the role {message.role.value!r}: "
            f"give one of {', '.join(role.value for role in _ROLES)}"
        )
    for block in message.blocks:
        if not isinstance(block, TextBlock):
            raise QuestionError(f"the model reads text only, and was given a {block.block_type!r}")
    return Message(_ROLES[message.role], message.content or "")
