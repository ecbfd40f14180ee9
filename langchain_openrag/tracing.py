"""The pipeline's stages as child runs of LangChain's callbacks, with their timings."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, Self, TypeVar

from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from langchain_openrag.documents import to_document
from openrag_core.events import (
    CondensedEvent,
    Event,
    Stage,
    StageEnded,
    StageStarted,
    TokenEvent,
)
from openrag_core.records import Draft, Passage, Written
from openrag_core.steps import owners

_Result = TypeVar("_Result")
_RETRIEVING = ("retrieve", "rerank", "hops")
_asked: ContextVar[Sequence[RunnableConfig]] = ContextVar("asked", default=())
"""Configs of the questions that the pipeline is at, in their order."""


@contextmanager
def inner_configs(number: int) -> Iterator[list[RunnableConfig]]:
    """Configs for a part of the pipeline that is LangChain's own, as a child of its runs.

    While the part runs, they are hidden: a pipeline within it has a config of its own.

    Args:
        number: Of what the part is asked at once.

    Yields:
        So many, each of the question for which something is asked; empty ones outside of a run, or
        where nobody knows which is whose.
    """
    configs, places = list(_asked.get()), owners()
    if len(configs) == 1:
        configs *= number
    elif places and max(places) < len(configs):
        configs = [configs[place] for place in places]
    hidden = _asked.set(())
    try:
        yield configs if len(configs) == number else [RunnableConfig()] * number
    finally:
        _asked.reset(hidden)


@contextmanager
def asking(configs: Sequence[RunnableConfig]) -> Iterator[None]:
    """Tell the parts of a pipeline whose configs they work under."""
    before = _asked.set(configs)
    try:
        yield
    finally:
        _asked.reset(before)


class Tracing:
    """Tells the callbacks of each question what becomes of it, and the parts its config.

    Args:
        configs: One for each question; their callbacks are children of its run.
        questions: As they stand alone.
    """

    def __init__(self, configs: Sequence[RunnableConfig], questions: Sequence[str]) -> None:
        self._configs = configs
        self._questions = list(questions)
        self._open: dict[tuple[Stage, int], Any] = {}
        self._before: Sequence[RunnableConfig] = ()

    async def tell(self, event: Event) -> None:
        """Begin or end the runs that an event speaks of."""
        match event:
            case CondensedEvent(question, text):
                self._questions[question] = text
            case TokenEvent(question, text):
                await self._show(question, text)
            case StageStarted(stage, questions):
                _asked.set([self._configs[row] for row in questions])
                for row in questions:
                    self._open[stage, row] = await self._begin(stage, row)
            case StageEnded(stage, questions, _, results):
                _asked.set(self._configs)
                for row, result in zip(questions, results, strict=True):
                    await self._end(stage, self._open.pop((stage, row)), result)

    def __enter__(self) -> Self:
        """What is open when an error passes ends as failed."""
        self._before = _asked.get()  # no token: a stream may be closed in another context
        _asked.set(self._configs)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _asked.set(self._before)
        if error is not None:
            at_once(self._fail(error))

    async def __aenter__(self) -> Self:
        """The same, for callbacks of event loops."""
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _asked.set(self._before)
        if error is not None:
            await self._fail(error)

    async def _fail(self, error: BaseException) -> None:
        for (stage, _), run in self._open.items():
            name = "on_retriever_error" if stage in _RETRIEVING else "on_llm_error"
            await _done(getattr(run, name)(error))
        self._open.clear()

    async def _show(self, question: int, text: str) -> None:
        """What is open of the question writes the text."""
        for run in (run for (_, row), run in self._open.items() if row == question):
            await _done(run.on_llm_new_token(text, chunk=GenerationChunk(text=text)))

    async def _begin(self, stage: Stage, row: int) -> Any:  # noqa: ANN401  (of either kind)
        child: Any = self._configs[row]["callbacks"]
        serialized, question = {"name": stage}, self._questions[row]
        if stage in _RETRIEVING:
            return await _done(child.on_retriever_start(serialized, question, name=stage))
        return (await _done(child.on_llm_start(serialized, [question], name=stage)))[0]

    @staticmethod
    async def _end(stage: Stage, run: Any, result: object) -> None:  # noqa: ANN401
        if stage in _RETRIEVING:
            await _done(run.on_retriever_end([to_document(p) for p in _passages(result)]))
        else:
            generations = [[Generation(text=text) for text in _texts(result)]]
            await _done(run.on_llm_end(LLMResult(generations=generations)))


def at_once(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run what awaits nothing, for callbacks of threads, which are called and done."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    raise AssertionError("a callback of a thread waits for an event loop")


async def _done(called: Any) -> Any:  # noqa: ANN401
    return await called if isawaitable(called) else called


def _passages(result: Any) -> list[Passage]:  # noqa: ANN401
    """Of a list of passages, or of chains of them."""
    flat = [p for one in result for p in ([one] if isinstance(one, Passage) else one)]
    return list({passage.key: passage for passage in flat}.values())


def _texts(result: Any) -> list[str]:  # noqa: ANN401
    if isinstance(result, str):
        return [result]
    written = [result] if isinstance(result, Draft) else result
    return [one.text for one in written if isinstance(one, Draft | Written)]
