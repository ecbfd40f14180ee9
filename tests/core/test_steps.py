"""core/openrag_core/steps.py: the same steps in a thread and in an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from threading import Event, get_ident
from typing import Any

import pytest

from openrag_core.steps import Call, Returned, Start, Steps, Tell, arun, astream, run, stream

NAME = ContextVar("NAME", default="nobody")
Runner = Callable[[Steps[Any]], Any]


@pytest.fixture(params=["thread", "event loop"])
def runner(request: pytest.FixtureRequest) -> Runner:
    return run if request.param == "thread" else lambda steps: asyncio.run(arun(steps))


class Part:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.begun, self.go_on = Event(), Event()

    def double(self, number: int) -> int:
        self.calls.append("double")
        return 2 * number

    def fail(self) -> None:
        raise KeyError("lost")

    def wait(self) -> str:
        self.begun.set()
        assert self.go_on.wait(10)
        return NAME.get()

    def release(self) -> bool:
        """True if what was started runs at the same time."""
        begun = self.begun.wait(10)
        self.go_on.set()
        return begun

    def thread(self) -> int:
        return get_ident()


class Native(Part):
    async def adouble(self, number: int) -> int:
        self.calls.append("adouble")
        return 2 * number


def test_results_come_back(runner: Runner) -> None:
    def steps(part: Part) -> Steps[Any]:
        once = yield Call(part, "double", (3,))
        return (yield Call(part, "double", (once,)))

    assert runner(steps(Part())) == 12


def test_an_event_loop_calls_the_twin_where_there_is_one() -> None:
    def steps(part: Part) -> Steps[Any]:
        return (yield Call(part, "double", (3,)))

    native, plain = Native(), Part()
    assert [asyncio.run(arun(steps(part))) for part in (native, plain)] == [6, 6]
    assert (native.calls, plain.calls) == (["adouble"], ["double"])
    run(steps(native))
    assert native.calls == ["adouble", "double"]


def test_a_method_without_a_twin_blocks_no_event_loop(runner: Runner) -> None:
    def steps() -> Steps[Any]:
        return (yield Call(Part(), "thread", ()))

    assert (runner(steps()) == get_ident()) == (runner is run)


def test_errors_are_raised_where_the_step_was(runner: Runner) -> None:
    def steps() -> Steps[str]:
        try:
            yield Call(Part(), "fail", ())
        except KeyError:
            return "caught"
        return "missed"

    def careless() -> Steps[None]:
        yield Call(Part(), "fail", ())

    assert runner(steps()) == "caught"
    with pytest.raises(KeyError, match="lost"):
        runner(careless())


def test_what_is_started_runs_meanwhile_and_can_be_waited_for(runner: Runner) -> None:
    part = Part()

    def ahead() -> Steps[Any]:
        return (yield Call(part, "wait", ()))

    def steps() -> Steps[tuple[bool, str]]:
        NAME.set("somebody")
        pending = yield Start(ahead())
        together = yield Call(part, "release", ())
        return together, (yield pending)

    assert runner(steps()) == (True, "somebody")  # tracers keep their place in a context variable


def test_what_is_started_and_fails_is_nobodys_business_until_it_is_waited_for(
    runner: Runner,
) -> None:
    part = Part()

    def ahead() -> Steps[None]:
        yield Call(part, "fail", ())

    def careless() -> Steps[Any]:
        yield Start(ahead())
        return (yield Call(part, "double", (1,)))

    def careful() -> Steps[None]:
        pending = yield Start(ahead())
        yield pending

    assert runner(careless()) == 2
    with pytest.raises(KeyError, match="lost"):
        runner(careful())


async def test_a_cancelled_task_cleans_up() -> None:
    cleaned = []

    class Slow:
        async def awork(self) -> None:
            await asyncio.sleep(10)

    def steps() -> Steps[None]:
        try:
            yield Call(Slow(), "work", ())
        finally:
            cleaned.append(True)

    task = asyncio.create_task(arun(steps()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned


Teller = Callable[[Steps[Any]], list[object]]


async def gathered(events: AsyncGenerator[object]) -> list[object]:
    return [event async for event in events]


@pytest.fixture(params=["thread", "event loop"])
def told(request: pytest.FixtureRequest) -> Teller:
    """Everything that steps tell."""
    if request.param == "thread":
        return lambda steps: list(stream(steps))
    return lambda steps: asyncio.run(gathered(astream(steps)))


def telling(part: Part, number: int = 3) -> Steps[int]:
    yield Tell("begun")
    doubled = yield Call(part, "double", (number,))
    answer = yield Tell(("doubled", doubled))
    assert answer is None
    return int(doubled)


def test_what_is_told_is_heard_and_the_result_comes_last(told: Teller, runner: Runner) -> None:
    assert told(telling(Part())) == ["begun", ("doubled", 6), Returned(6)]
    assert runner(telling(Part())) == 6  # where nobody listens


def test_steps_are_taken_only_as_far_as_their_events_are_asked_for() -> None:
    part = Part()
    events = stream(telling(part))
    assert next(events) == "begun"
    assert part.calls == []
    assert next(events) == ("doubled", 6)
    assert list(events) == [Returned(6)]


def test_steps_within_steps_are_heard_and_those_that_are_started_are_not(told: Teller) -> None:
    def steps(part: Part) -> Steps[int]:
        own: int = yield from telling(part)
        pending = yield Start(telling(part, 4))
        started: int = yield pending
        return own + started

    assert told(steps(Part())) == ["begun", ("doubled", 6), Returned(14)]


def test_an_error_comes_after_what_was_told_before_it() -> None:
    def steps() -> Steps[None]:
        yield Tell("begun")
        yield Call(Part(), "fail", ())

    events = stream(steps())
    assert next(events) == "begun"
    with pytest.raises(KeyError, match="lost"):
        next(events)
    assert list(events) == []


async def test_whoever_stops_listening_ends_the_steps() -> None:
    ended: list[str] = []

    def steps(name: str) -> Steps[None]:
        try:
            yield Tell("begun")
            yield Tell("never heard")
        finally:
            ended.append(name)

    events = stream(steps("thread"))
    assert next(events) == "begun"
    events.close()
    async with aclosing(astream(steps("event loop"))) as others:
        assert await anext(others) == "begun"
    stream(steps("not begun")).close()
    await astream(steps("not begun")).aclose()
    assert ended == ["thread", "event loop"]
