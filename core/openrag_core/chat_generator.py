"""Any chat model as the generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from openrag_core.conversation import ChatModel, Message, Reply, spoken
from openrag_core.errors import ConfigError
from openrag_core.ports import Settled
from openrag_core.prompts import reading_messages
from openrag_core.records import Draft, Evidence, Written
from openrag_core.steps import Call, Steps, arun, results_of, run


class ChatGenerator:
    """Drafts and writes answers with a chat model; satisfies `Generator`.

    It knows no reflection tokens, so the reranker judges the passages. The gates "f_minp" and
    "f_meanp" need a model that tells the probabilities of its tokens. What a reasoning model
    thinks before it answers (<think>...</think>) is no part of the answer.

    Args:
        chat: The chat model.
    """

    reflection_trained = False

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    @property
    def chat(self) -> ChatModel:
        """The chat model."""
        return self._chat

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """Refused: there are no reflection tokens.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f'a chat model cannot be asked {questions} by "f_ret", which needs trained reflection '
            'tokens: use the gate "f_minp", "f_meanp", "always" or "never"'
        )

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        """Answer each question without reading.

        Raises:
            ConfigError: The gate asks for probabilities, and the model tells none.
        """
        return run(self._draft(questions, settled))

    async def adraft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        """The same; the event loop goes on."""
        return await arun(self._draft(questions, settled))

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """Answer each question once from each piece of its evidence, in their order."""
        return run(self._write(questions, evidence))

    async def awrite(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """The same; the event loop goes on."""
        return await arun(self._write(questions, evidence))

    def _draft(self, questions: Sequence[str], settled: Settled | None) -> Steps[list[Draft]]:
        prompts = [[Message("user", question)] for question in questions]
        given = yield Call(self._chat, "reply", (prompts,))
        said: list[Reply] = results_of(self._chat, "reply", given, len(prompts))
        replies = [spoken(reply) for reply in said]
        if settled is not None and any(reply.text and not reply.tokens for reply in replies):
            raise ConfigError(
                "the chat model does not tell the probabilities of its tokens, which this gate "
                'compares: have it return log-probabilities, or use the gate "always"'
            )
        return [Draft(reply.text, reply.tokens) for reply in replies]

    def _write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> Steps[list[list[Written]]]:
        prompts = [
            _reading(question, one)
            for question, own in zip(questions, evidence, strict=True)
            for one in own
        ]
        owners = [place for place, own in enumerate(evidence) for _ in own]
        given = yield Call(self._chat, "reply", (prompts,), owners)
        rest: Iterator[Reply] = iter(results_of(self._chat, "reply", given, len(prompts)))
        return [[_written(one, next(rest)) for one in own] for own in evidence]


def _reading(question: str, evidence: Evidence) -> list[Message]:
    passages = [{"title": passage.title, "text": passage.text} for passage in evidence]
    system, user = reading_messages(question, passages)
    return [Message("system", system["content"]), Message("user", user["content"])]


def _written(evidence: Evidence, reply: Reply) -> Written:
    said = spoken(reply)
    return Written(tuple(evidence), said.text, said.tokens)
