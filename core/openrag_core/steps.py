"""A sequence of calls that is written once, and run by a thread or by an event loop.

Its author writes a generator that yields what is to be done and gets back what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Call:
    """Call a method; in an event loop its twin (`aretrieve` for `retrieve`) where there is one."""

    part: object
    method: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Begin other steps and go on; what comes back can be yielded to wait for, or cancelled."""

    steps: Steps[Any]


Pending = Future[Any] | asyncio.Task[Any]
Steps = Generator[Call | Start | Pending, Any, _Result]


def run(steps: Steps[_Result]) -> _Result:
    """Take the steps in this thread; what is started runs in another one."""
    resume: Callable[[], Any] = partial(next, steps)
    try:
        while True:
            step = resume()
            try:
                resume = partial(steps.send, _take(step))
            except Exception as error:
                resume = partial(steps.throw, error)
    except StopIteration as end:
        result: _Result = end.value
        return result
    finally:
        steps.close()


async def arun(steps: Steps[_Result]) -> _Result:
    """Take the steps in this event loop; methods without a twin run in threads."""
    resume: Callable[[], Any] = partial(next, steps)
    try:
        while True:
            step = resume()
            try:
                resume = partial(steps.send, await _atake(step))
            except Exception as error:
                resume = partial(steps.throw, error)
    except StopIteration as end:
        result: _Result = end.value
        return result
    finally:
        steps.close()


def _take(step: Call | Start | Pending) -> object:
    match step:
        case Call(part, method, arguments):
            return getattr(part, method)(*arguments)
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
            if twin := getattr(part, f"a{method}", None):
                return await twin(*arguments)
            return await asyncio.to_thread(getattr(part, method), *arguments)
        case Start(steps):
            task = asyncio.create_task(arun(steps))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return task
        case asyncio.Task():
            return await step
    raise TypeError(f"a thread's future in an event loop: {step}")
