"""The pipeline as a Runnable: it stands in any LCEL chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import AddableDict
from pydantic import ConfigDict, SkipValidation
from typing_extensions import TypedDict

from langchain_openrag.documents import to_document, to_question
from openrag_core import Answer, OpenRAG, QuestionError
from openrag_core.conversation import check_questions

RunnableInput = str | dict[str, Any] | list[Any] | BaseMessage | PromptValue


class RunnableOutput(TypedDict):
    """What comes back."""

    answer: str
    context: list[Document]
    """Every passage that was read, the answer's own first."""
    confidence: float
    grounded: bool
    abstained: bool
    truncated: bool
    """Whether the passage was too long for the model, so that only its beginning was read."""
    gate: dict[str, Any]


class OpenRAGRunnable(RunnableSerializable[RunnableInput, RunnableOutput]):
    """Answers questions with an `OpenRAG` pipeline.

    Takes a string, a dict with "question", "input", "query" or "messages", a prompt, or a list of
    messages; gives a dict with "answer", "context", "confidence", "grounded", "abstained",
    "truncated" and "gate". Earlier turns of a conversation are not read.

    `batch` answers its questions together. `stream` gives the context first and then the rest; the
    answer comes in one piece, since it is chosen among candidates that are written to the end.
    """

    rag: SkipValidation[OpenRAG]
    """The pipeline; `openrag_core.build.build()` makes one."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def invoke(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> RunnableOutput:
        """Answer one question.

        Raises:
            QuestionError: There is no question in the input.
        """
        return self._call_with_config(self._answer, input, config, **kwargs)

    async def ainvoke(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> RunnableOutput:
        """Answer one question; the event loop goes on."""
        return await self._acall_with_config(self._aanswer, input, config, **kwargs)

    def batch(
        self,
        inputs: list[RunnableInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RunnableOutput]:
        """Answer several questions together."""
        return self._batch_with_config(
            self._answer_many, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[RunnableInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RunnableOutput]:
        """Answer several questions together; the event loop goes on."""
        return await self._abatch_with_config(
            self._aanswer_many, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def transform(
        self,
        input: Iterator[RunnableInput],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[RunnableOutput]:
        """Answer the question that the pieces add up to; context first."""
        yield from self._transform_stream_with_config(input, self._pieces, config, **kwargs)

    async def atransform(
        self,
        input: AsyncIterator[RunnableInput],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunnableOutput]:
        """Answer the question that the pieces add up to; context first."""
        async for piece in self._atransform_stream_with_config(
            input, self._apieces, config, **kwargs
        ):
            yield piece

    def stream(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[RunnableOutput]:
        """Give the context, then the rest."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunnableOutput]:
        """Give the context, then the rest."""

        async def single() -> AsyncIterator[RunnableInput]:
            yield input

        async for piece in self.atransform(single(), config, **kwargs):
            yield piece

    def _answer(self, value: object) -> RunnableOutput:
        return _output(self.rag.answer(to_question(value)))

    async def _aanswer(self, value: object) -> RunnableOutput:
        return _output(await self.rag.aanswer(to_question(value)))

    def _answer_many(self, values: list[RunnableInput]) -> list[RunnableOutput | Exception]:
        """Answer the good questions together; each bad one gets its own exception."""
        asked = [_checked(value) for value in values]
        good = [one for one in asked if isinstance(one, str)]
        try:
            return _in_order(asked, self.rag.answer_many(good))
        except QuestionError:  # too long for the model; the others are not to suffer
            return _in_order(asked, [self._alone(question) for question in good])

    async def _aanswer_many(self, values: list[RunnableInput]) -> list[RunnableOutput | Exception]:
        asked = [_checked(value) for value in values]
        good = [one for one in asked if isinstance(one, str)]
        try:
            return _in_order(asked, await self.rag.aanswer_many(good))
        except QuestionError:  # too long for the model; the others are not to suffer
            alone = (self.rag.aanswer(question) for question in good)
            return _in_order(asked, await asyncio.gather(*alone, return_exceptions=True))

    def _alone(self, question: str) -> Answer | Exception:
        try:
            return self.rag.answer(question)
        except Exception as error:  # of whatever part; it belongs to this question
            return error

    def _pieces(self, values: Iterator[RunnableInput]) -> Iterator[RunnableOutput]:
        yield from _split(self._answer(_sum(list(values))))

    async def _apieces(self, values: AsyncIterator[RunnableInput]) -> AsyncIterator[RunnableOutput]:
        for piece in _split(await self._aanswer(_sum([value async for value in values]))):
            yield piece


def _checked(value: RunnableInput) -> str | QuestionError:
    try:
        question = to_question(value)
        check_questions([question])
    except QuestionError as error:
        return error
    return question


def _in_order(
    asked: list[str | QuestionError], answers: Sequence[Answer | BaseException]
) -> list[RunnableOutput | Exception]:
    """The answer to each good question, and the error of each bad one."""
    rest = iter(answers)
    outcomes = [next(rest) if isinstance(one, str) else one for one in asked]
    return [_output(one) if isinstance(one, Answer) else _raisable(one) for one in outcomes]


def _raisable(error: BaseException) -> Exception:
    if not isinstance(error, Exception):
        raise error
    return error


def _output(answer: Answer) -> RunnableOutput:
    return RunnableOutput(
        answer=answer.text,
        context=[
            to_document(passage, candidate)
            for candidate in answer.candidates
            for passage in candidate.evidence
        ],
        confidence=answer.confidence,
        grounded=answer.grounded,
        abstained=answer.abstained,
        truncated=answer.truncated,
        gate=asdict(answer.decision),
    )


def _split(output: RunnableOutput) -> Iterator[Any]:
    rest = dict(output)
    yield AddableDict(context=rest.pop("context"))
    yield AddableDict(rest)


def _sum(values: list[Any]) -> Any:  # noqa: ANN401  (pieces of whatever came in)
    """The pieces added up; where they cannot be, the last one, as everywhere in LangChain."""
    if not values:
        raise QuestionError("nothing came in")
    try:
        return reduce(add, values)
    except TypeError:
        return values[-1]
