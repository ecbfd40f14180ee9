"""core/openrag_core/steps.py: the same steps in a thread and in an event loop."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event, get_ident
from typing import Any

import pytest

from openrag_core.steps import Call, Start, Steps, arun, run

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
