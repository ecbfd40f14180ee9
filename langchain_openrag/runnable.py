"""The pipeline as a Runnable: it stands in any LCEL chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, Self

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, SkipValidation, field_validator, model_validator

from langchain_openrag.batches import Outcome, differ, in_order, parted
from langchain_openrag.output import Pieces, RunnableOutput, to_output
from langchain_openrag.questions import to_passages, to_question
from langchain_openrag.tool import create_openrag_tool
from langchain_openrag.tracing import Tracing, at_once
from openrag_core import (
    Answer,
    Filter,
    Gate,
    OpenRAG,
    Passage,
    Question,
    QuestionError,
    ScoreWeights,
)
from openrag_core.build import check_pipeline
from openrag_core.conversation import question_of
from openrag_core.errors import IndexLockedError, IndexMismatchError, IndexNotFoundError
from openrag_core.events import AnswerEvent, Event
from openrag_core.ports import narrowed
from openrag_core.records import GateMode

RunnableInput = str | dict[str, Any] | list[Any] | BaseMessage | PromptValue
_OF_ALL = (IndexNotFoundError, IndexMismatchError, IndexLockedError)
"""Errors that every question would meet."""


class OpenRAGRunnable(RunnableSerializable[RunnableInput, RunnableOutput]):
    """Answers questions with an `OpenRAG` pipeline.

    Takes a string, a dict with "question", "input" or "query" (and "chat_history") or "messages", a
    prompt, or a list of messages; what was said before the question is condensed into it.

    `batch` answers its questions together. `stream` gives what there is as soon as it is there: the
    gate, the context, each candidate, and the answer, token by token where only one text can become
    it; see `openrag_core.events.TokenEvent`.
    """

    rag: SkipValidation[OpenRAG]
    """The pipeline; `openrag_core.build.build()` makes one."""
    gate: GateMode | None = None
    """In place of the pipeline's; like the next ones for `configurable_fields`."""
    threshold: float | None = None
    """Of the gate, in place of the pipeline's; in [0, 1]. "always" and "never" have none."""
    top_k: int | None = None
    """Passages that answers are written from, in place of the pipeline's; >= 1."""
    weights: ScoreWeights | None = None
    """Of the scores, in place of the pipeline's."""
    filter: SkipValidation[Filter] | dict[str, Any] | None = None
    """Only passages of which it holds are found, and those of the pipeline's own filter."""
    context_key: str | None = None
    """Key of the input's documents, "context" in most chains, which are all ranked and read in
    place of what the retriever would find; the gate is not asked either."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @field_validator("rag")
    @classmethod
    def _check_rag(cls, rag: object) -> object:
        return check_pipeline(rag)

    @model_validator(mode="after")
    def _check_context_key(self) -> Self:
        searching = ("gate", "threshold", "top_k", "filter")
        given = [name for name in searching if getattr(self, name) not in (None, {})]
        if self.context_key is not None and self.rag.hops != 1:
            raise ValueError(
                f"context_key={self.context_key!r} gives single passages, and the pipeline's "
                f"hops={self.rag.hops!r} asks for chains of them: leave one or the other out"
            )
        if self.context_key is not None and given:
            raise ValueError(
                f"{', '.join(given)} would do nothing: with context_key={self.context_key!r} the "
                "documents of the input are read, all of them; leave one or the other out"
            )
        return self

    def as_tool(self, args_schema: Any = None, **kwargs: Any) -> BaseTool:  # noqa: ANN401
        """A tool that takes a question and keeps the sources; see `create_openrag_tool`."""
        if args_schema is not None or kwargs.pop("arg_types", None) is not None:
            raise TypeError("the tool takes a question and nothing else: leave the schema out")
        given = {name: value for name, value in kwargs.items() if value is not None}
        return create_openrag_tool(self, **given)

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
        return self._call_with_config(self._invoke, input, config, **kwargs)  # type: ignore[arg-type]

    async def ainvoke(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> RunnableOutput:
        """Answer one question; the event loop goes on, and cancelling the task stops the model."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)  # type: ignore[arg-type]

    def batch(
        self,
        inputs: list[RunnableInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RunnableOutput]:
        """Answer several questions together; each by itself where their fields differ.

        With a `context_key` too, in threads whose work the model does together.
        """
        if differ(config) or self.context_key is not None:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return self._batch_with_config(
            self._batch,  # type: ignore[arg-type]
            inputs,
            config,
            return_exceptions=return_exceptions,
            **kwargs,
        )

    async def abatch(
        self,
        inputs: list[RunnableInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RunnableOutput]:
        """As `batch`; the event loop goes on."""
        if differ(config) or self.context_key is not None:
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )
        return await self._abatch_with_config(
            self._abatch,  # type: ignore[arg-type]
            inputs,
            config,
            return_exceptions=return_exceptions,
            **kwargs,
        )

    def transform(
        self,
        input: Iterator[RunnableInput],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[RunnableOutput]:
        """Answer the question that the pieces add up to, piece by piece."""
        yield from self._transform_stream_with_config(
            input,
            self._transform,  # type: ignore[arg-type]
            config,
            **kwargs,
        )

    async def atransform(
        self,
        input: AsyncIterator[RunnableInput],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunnableOutput]:
        """Answer the question that the pieces add up to, piece by piece."""
        pieces = self._atransform_stream_with_config(
            input,
            self._atransform,  # type: ignore[arg-type]
            config,
            **kwargs,
        )
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    def stream(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[RunnableOutput]:
        """Give what there is as soon as it is there; closing the iterator stops the model."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self,
        input: RunnableInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunnableOutput]:
        """Give what there is as soon as it is there; the event loop goes on."""

        async def single() -> AsyncIterator[RunnableInput]:
            yield input

        pieces = self.atransform(single(), config, **kwargs)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    @property
    def configured(self) -> OpenRAG:
        """The pipeline with what is set here.

        Raises:
            ConfigError: A value is outside its range, or the retriever takes no filter.
            FilterError: A dict is no filter.
        """
        changes: dict[str, Any] = {}
        if self.gate is not None or self.threshold is not None:
            gate = self.rag.gate if isinstance(self.rag.gate, Gate) else self.rag.gate.gate
            mode = self.gate or gate.mode
            same = self.threshold is None and mode == gate.mode
            changes["gate"] = gate if same else Gate.of(mode, self.threshold)
        if self.top_k is not None:
            fetch_k = max(self.top_k, self.rag.fetch_k)
            changes |= {"top_k": self.top_k, "fetch_k": fetch_k}
        if self.weights is not None:
            changes["weights"] = self.weights
        if self.filter:
            changes["retriever"] = narrowed(self.rag.retriever, self.filter)
        return replace(self.rag, **changes) if changes else self.rag

    def _invoke(self, value: object, config: RunnableConfig) -> RunnableOutput:
        return to_output(self._answer([to_question(value)], [config], self._given(value))[0])

    async def _ainvoke(self, value: object, config: RunnableConfig) -> RunnableOutput:
        answers = await self._aanswer([to_question(value)], [config], self._given(value))
        return to_output(answers[0])

    def _batch(
        self, values: list[RunnableInput], config: list[RunnableConfig]
    ) -> list[RunnableOutput | Exception]:
        """Answer the good questions together; each bad one gets its own exception."""
        asked, good, configs = parted(values, config)
        try:
            answers: Sequence[Outcome] = self._answer(good, configs)
        except _OF_ALL as error:
            answers = [error] * len(good)
        except Exception:  # of one of them, perhaps; the others are not to suffer
            answers = [self._alone(*pair) for pair in zip(good, configs, strict=True)]
        return in_order(asked, answers)

    async def _abatch(
        self, values: list[RunnableInput], config: list[RunnableConfig]
    ) -> list[RunnableOutput | Exception]:
        asked, good, configs = parted(values, config)
        try:
            answers: Sequence[Outcome | BaseException] = await self._aanswer(good, configs)
        except _OF_ALL as error:
            answers = [error] * len(good)
        except Exception:  # of one of them, perhaps; the others are not to suffer
            pairs = zip(good, configs, strict=True)
            alone = (self._aanswer([question], [own]) for question, own in pairs)
            outcomes = await asyncio.gather(*alone, return_exceptions=True)
            answers = [one[0] if isinstance(one, list) else one for one in outcomes]
        return in_order(asked, answers)

    def _alone(self, question: Question, config: RunnableConfig) -> Outcome:
        try:
            return self._answer([question], [config])[0]
        except Exception as error:  # of whatever part; it belongs to this question
            return error

    def _given(self, value: object) -> list[Passage] | None:
        """The passages that are to be read; None where the retriever is to find them."""
        return None if self.context_key is None else to_passages(value, self.context_key)

    def _answer(
        self,
        questions: list[Question],
        configs: Sequence[RunnableConfig],
        given: list[Passage] | None = None,
    ) -> list[Answer]:
        tracing = _tracing(configs, questions)
        answers: list[Answer] = []
        with tracing, closing(self._events(questions, given)) as events:
            for event in events:
                at_once(tracing.tell(event))
                if isinstance(event, AnswerEvent):
                    answers.append(event.answer)
        return answers

    async def _aanswer(
        self,
        questions: list[Question],
        configs: Sequence[RunnableConfig],
        given: list[Passage] | None = None,
    ) -> list[Answer]:
        tracing = _tracing(configs, questions)
        answers: list[Answer] = []
        async with tracing, aclosing(self._aevents(questions, given)) as events:
            async for event in events:
                await tracing.tell(event)
                if isinstance(event, AnswerEvent):
                    answers.append(event.answer)
        return answers

    def _transform(self, values: Iterator[RunnableInput], config: RunnableConfig) -> Generator[Any]:
        value = _sum(list(values))
        question = to_question(value)
        tracing, pieces = _tracing([config], [question]), Pieces()
        with tracing, closing(self._events([question], self._given(value), live=True)) as events:
            for event in events:
                at_once(tracing.tell(event))
                yield from pieces(event)

    async def _atransform(
        self, values: AsyncIterator[RunnableInput], config: RunnableConfig
    ) -> AsyncIterator[Any]:
        value = _sum([value async for value in values])
        question, given = to_question(value), self._given(value)
        tracing, pieces = _tracing([config], [question]), Pieces()
        async with tracing, aclosing(self._aevents([question], given, live=True)) as events:
            async for event in events:
                await tracing.tell(event)
                for piece in pieces(event):
                    yield piece

    def _events(
        self, questions: list[Question], given: list[Passage] | None, *, live: bool = False
    ) -> Generator[Event]:
        if given is None:
            return self.configured.stream_many(questions, live=live)
        return self.configured.stream_from(questions[0], given, live=live)

    def _aevents(
        self, questions: list[Question], given: list[Passage] | None, *, live: bool = False
    ) -> AsyncGenerator[Event]:
        if given is None:
            return self.configured.astream_many(questions, live=live)
        return self.configured.astream_from(questions[0], given, live=live)


def _tracing(configs: Sequence[RunnableConfig], questions: Sequence[Question]) -> Tracing:
    return Tracing(configs, [question_of(question) for question in questions])


def _sum(values: list[Any]) -> Any:  # noqa: ANN401  (pieces of whatever came in)
    """The pieces added up; where they cannot be, the last one, as everywhere in LangChain."""
    if not values:
        raise QuestionError("nothing came in")
    try:
        return reduce(add, values)
    except TypeError:
        return values[-1]
