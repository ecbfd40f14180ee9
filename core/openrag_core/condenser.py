"""Follow-up questions are rewritten, by a chat model, so that they stand alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from openrag_core.conversation import ChatModel, Conversation, Message, Reply, spoken
from openrag_core.steps import Call, Steps, arun, results_of, run
from openrag_core.words import well_formed

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
MAX_NEW_TOKENS = 128
"""Of a rewritten question; whatever an answer may have."""
_TURNS = 6  # of the conversation that are read, the last ones
_LONGEST = 300  # characters of each


class ChatCondenser:
    """Has a chat model rewrite the question; satisfies `Condenser`.

    The question stays as it is where the reply holds none, or one that was cut off.

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
        given = yield Call(self._chat, "reply", (prompts,))
        replies: list[Reply] = results_of(self._chat, "reply", given, len(prompts))
        pairs = zip(conversations, replies, strict=True)
        return [self._checked(one, reply) for one, reply in pairs]

    def _checked(self, conversation: Conversation, reply: Reply) -> str:
        rewritten = _first_line(reply)
        if not rewritten or (self._cautious and not _faithful(conversation, rewritten)):
            return conversation.question
        return rewritten


def _first_line(reply: Reply) -> str:
    """Of what was said, not thought; empty where there is none, or where it was cut off."""
    said = well_formed(spoken(reply).text)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cut_off = reply.finish == "length" and len(lines) == 1
    return lines[0] if lines and not cut_off else ""


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
