"""A sequence of calls that is written once, and run by a thread or by an event loop.

Its author writes a generator that yields what is to be done and gets back what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from openrag_core.errors import ConfigError

_Result = TypeVar("_Result")
_owners: ContextVar[Sequence[int] | None] = ContextVar("owners", default=None)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a method; in an event loop its twin (`aretrieve` for `retrieve`) where there is one."""

    part: object
    method: str
    arguments: tuple[object, ...]
    owners: Sequence[int] | None = None
    """For which of the caller's questions each thing is asked, by places; None: one for each."""


@dataclass(frozen=True, slots=True)
class Start:
    """Begin other steps and go on; what comes back can be yielded to wait for, or cancelled.

    What those steps tell is heard by nobody.
    """

    steps: Steps[Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """Let whoever watches know of an event."""

    event: object


@dataclass(frozen=True, slots=True)
class Returned:
    """What the steps came to; the last event."""

    value: Any


Pending = Future[Any] | asyncio.Task[Any]
Steps = Generator[Call | Start | Tell | Pending, Any, _Result]


def stream(steps: Steps[Any]) -> Generator[object]:
    """Take the steps in this thread, as far as the events are asked for.

    What is started runs in another thread. Closing the generator ends the steps.

    Yields:
        What the steps tell, and `Returned` at last.
    """
    resume: Callable[[], Any] = partial(next, steps)
    with closing(steps):
        while True:
            try:
                step = resume()
            except StopIteration as end:
                yield Returned(end.value)
                return
            if isinstance(step, Tell):
                yield step.event
                resume = partial(next, steps)
                continue
            try:
                resume = partial(steps.send, _take(step))
            except Exception as error:
                resume = partial(steps.throw, error)


async def astream(steps: Steps[Any]) -> AsyncGenerator[object]:
    """As `stream`, in this event loop; methods without a twin run in threads."""
    resume: Callable[[], Any] = partial(next, steps)
    with closing(steps):
        while True:
            try:
                step = resume()
            except StopIteration as end:
                yield Returned(end.value)
                return
            if isinstance(step, Tell):
                yield step.event
                resume = partial(next, steps)
                continue
            try:
                resume = partial(steps.send, await _atake(step))
            except Exception as error:
                resume = partial(steps.throw, error)


def told(steps: Steps[Any]) -> Generator[Any]:
    """As `stream`, but for what the steps return."""
    with closing(stream(steps)) as events:
        yield from (one for one in events if not isinstance(one, Returned))


async def atold(steps: Steps[Any]) -> AsyncGenerator[Any]:
    """As `astream`, but for what the steps return."""
    async with aclosing(astream(steps)) as events:
        async for one in events:
            if not isinstance(one, Returned):
                yield one


def run(steps: Steps[_Result]) -> _Result:
    """Take the steps in this thread."""
    with closing(stream(steps)) as events:
        result: _Result = _value(list(events))
        return result


async def arun(steps: Steps[_Result]) -> _Result:
    """Take the steps in this event loop."""
    async with aclosing(astream(steps)) as events:
        result: _Result = _value([event async for event in events])
        return result


def _value(events: list[object]) -> Any:  # noqa: ANN401  (the steps' own)
    last = events[-1]
    assert isinstance(last, Returned)
    return last.value


def results_of(part: object, method: str, given: object, count: int | None = None) -> list[Any]:
    """What a part gave, where that is a list.

    Args:
        part: That was called.
        method: Of it.
        given: What came back.
        count: How many results were wanted, >= 0; None: any number.

    Raises:
        ConfigError: It is no list, or one of another length: nobody could tell what belongs to
            which question.
    """
    results: list[Any] | None = None
    if isinstance(given, Iterable) and not isinstance(given, str | Mapping):
        results = list(given)
    if results is not None and count in {None, len(results)}:
        return results
    each = "for each question" if count is None else f"of {count}, one for each it is asked"
    what = f"a {type(given).__name__}" if results is None else f"a list of {len(results)}"
    raise ConfigError(
        f"{type(part).__name__}.{method} must give a list {each}, in their order; it gave {what}"
    )


def lists_of(part: object, method: str, given: object, count: int) -> list[list[Any]]:
    """The same of a part that gives several results for each question, with any number of them."""
    return [results_of(part, method, own) for own in results_of(part, method, given, count)]


def owners() -> Sequence[int] | None:
    """Of the call that this part is answering; see `Call`."""
    return _owners.get()


@contextmanager
def _called(call: Call) -> Iterator[None]:
    token = _owners.set(call.owners)
    try:
        yield
    finally:
        _owners.reset(token)


def _ask(call: Call) -> object:
    """No StopIteration gets out: generators end at one, and futures that hold one are never done.

    Raises:
        ConfigError: The part raised one.
    """
    try:
        return getattr(call.part, call.method)(*call.arguments)
    except StopIteration as error:
        raise ConfigError(
            f"{type(call.part).__name__}.{call.method} raised StopIteration, as next() does where "
            "nothing is left: give next() a default there"
        ) from error


def _take(step: Call | Start | Pending) -> object:
    match step:
        case Call():
            with _called(step):
                return _ask(step)
        case Start(steps):
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="openrag-ahead")
            try:
                return thread.submit(copy_context().run, run, steps)
            finally:
                thread.shutdown(wait=False)
        case Future():
            return step.result()
    raise TypeError(f"an event loop's task in a thread: {step}")


async def _atake(step: Call | Start | Pending) -> object:
    match step:
        case Call(part, method, arguments):
            with _called(step):
                if twin := getattr(part, f"a{method}", None):
                    return await twin(*arguments)
                return await asyncio.to_thread(_ask, step)
        case Start(steps):
            task = asyncio.create_task(arun(steps))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return task
        case asyncio.Task():
            return await step
    raise TypeError(f"a thread's future in an event loop: {step}")
