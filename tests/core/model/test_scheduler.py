"""core/openrag_core/model/scheduler.py: callers share batches, and hurt nobody."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Event, get_ident
from typing import cast
from weakref import ref

import pytest

from openrag_core.model.decoding import Continuation, GreedyDecoder, Prompt
from openrag_core.model.scheduler import Scheduler

WAIT = 10  # seconds, at most


class Recorder:
    """A decoder that writes 0, 1, 2, ... and can be held up."""

    def __init__(self, max_batch_tokens: int = 100) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.runs: list[list[list[int]]] = []
        self.groups: list[list[object]] = []
        self.threads: set[int] = set()
        self.steps = 0
        self.started, self.go_on = Event(), Event()
        self.go_on.set()

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """One row each, where they do not fit together."""
        rows = list(range(len(prompts)))
        tokens = sum(len(prompt.ids) + prompt.max_new_tokens for prompt in prompts)
        yield from [rows] if tokens <= self.max_batch_tokens else [[row] for row in rows]

    def __call__(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        self.threads.add(get_ident())
        self.runs.append([prompt.ids for prompt in prompts])
        self.groups.append([prompt.group for prompt in prompts])
        self.started.set()
        assert self.go_on.wait(WAIT)
        if any(prompt.ids == [666] for prompt in prompts):
            raise ZeroDivisionError
        return [self._write(prompt) for prompt in prompts]

    def _write(self, prompt: Prompt) -> Continuation:
        written = Continuation()
        while len(written.ids) < prompt.max_new_tokens:
            self.steps += 1
            written.ids.append(len(written.ids))
            if prompt.stop and prompt.stop(written):
                break
        return written


@pytest.fixture
def decoder() -> Recorder:
    return Recorder()


@pytest.fixture
def scheduler(decoder: Recorder) -> Scheduler:
    return Scheduler(cast("GreedyDecoder", decoder))


def hold(decoder: Recorder, scheduler: Scheduler) -> Future[list[Continuation]]:
    """Keep the decoder busy with a first request."""
    decoder.go_on.clear()
    busy = scheduler.submit([Prompt([0], 1)])
    assert decoder.started.wait(WAIT)
    return busy


def test_what_waits_is_run_together(decoder: Recorder, scheduler: Scheduler) -> None:
    busy = hold(decoder, scheduler)
    futures = [
        scheduler.submit([Prompt([n], limit, group=0) for limit in (1, 2)]) for n in (1, 2, 3)
    ]
    decoder.go_on.set()
    lengths = [[len(row.ids) for row in future.result(WAIT)] for future in futures]
    assert lengths == [[1, 2]] * 3
    assert busy.result(WAIT)
    assert decoder.runs == [[[0]], [[1], [1], [2], [2], [3], [3]]]
    assert len(set(decoder.groups[1])) == 3  # groups of unlike callers stay apart
    assert len(decoder.threads) == 1
    assert get_ident() not in decoder.threads


def test_no_more_than_fits_is_run_together_and_in_turn() -> None:
    decoder = Recorder(max_batch_tokens=5)
    scheduler = Scheduler(cast("GreedyDecoder", decoder))
    hold(decoder, scheduler)
    sizes = {1: 1, 2: 1, 3: 9, 4: 1}
    futures = [scheduler.submit([Prompt([n], size)]) for n, size in sizes.items()]
    decoder.go_on.set()
    assert [len(future.result(WAIT)[0].ids) for future in futures] == [1, 1, 9, 1]
    assert decoder.runs == [[[0]], [[1], [2]], [[3]], [[4]]]


def test_a_large_request_takes_turns_with_the_others() -> None:
    decoder = Recorder(max_batch_tokens=5)
    scheduler = Scheduler(cast("GreedyDecoder", decoder))
    hold(decoder, scheduler)
    large = scheduler.submit([Prompt([n], 3) for n in (11, 12, 13)])
    small = [scheduler.submit([Prompt([n], 3)]) for n in (21, 22)]
    decoder.go_on.set()
    assert len(large.result(WAIT)) == 3
    assert all(future.result(WAIT) for future in small)
    assert decoder.runs == [[[0]], [[11]], [[21]], [[22]], [[12]], [[13]]]


def test_what_is_left_of_a_cancelled_request_is_not_begun() -> None:
    decoder = Recorder(max_batch_tokens=5)
    scheduler = Scheduler(cast("GreedyDecoder", decoder))
    decoder.go_on.clear()
    large = scheduler.submit([Prompt([n], 4) for n in (1, 2, 3)])
    assert decoder.started.wait(WAIT)
    assert large.cancel()
    decoder.go_on.set()
    scheduler.submit([Prompt([9], 1)]).result(WAIT)
    assert decoder.runs == [[[1]], [[9]]]


def test_what_is_left_of_a_failed_request_is_not_begun() -> None:
    decoder = Recorder(max_batch_tokens=5)
    scheduler = Scheduler(cast("GreedyDecoder", decoder))
    large = scheduler.submit([Prompt([n], 4) for n in (666, 2, 3)])
    with pytest.raises(ZeroDivisionError):
        large.result(WAIT)
    scheduler.submit([Prompt([9], 1)]).result(WAIT)
    assert decoder.runs == [[[666]], [[9]]]


def test_an_error_holds_no_tensors() -> None:
    class Tensors:
        pass

    class Broken(Recorder):
        def __call__(self, _: Sequence[Prompt]) -> list[Continuation]:
            held = Tensors()
            self.held = ref(held)
            raise ZeroDivisionError

    decoder = Broken()
    future = Scheduler(cast("GreedyDecoder", decoder)).submit([Prompt([1], 1)])
    assert isinstance(future.exception(WAIT), ZeroDivisionError)
    assert decoder.held() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own(decoder: Recorder, scheduler: Scheduler) -> None:
    scheduler.submit([Prompt([1], 2)]).result(WAIT)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os._exit(len(scheduler.submit([Prompt([2], 2)]).result(WAIT)[0].ids))
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert decoder.runs == [[[1]]]


def test_who_cancels_while_waiting_is_not_run(decoder: Recorder, scheduler: Scheduler) -> None:
    hold(decoder, scheduler)
    given_up, other = scheduler.submit([Prompt([1], 1)]), scheduler.submit([Prompt([2], 1)])
    assert given_up.cancel()
    decoder.go_on.set()
    assert other.result(WAIT)
    assert decoder.runs == [[[0]], [[2]]]
    with pytest.raises(CancelledError):
        given_up.result(WAIT)


def test_who_cancels_while_running_stops_at_the_next_token(
    decoder: Recorder, scheduler: Scheduler
) -> None:
    stops: list[int] = []

    def stop(written: Continuation) -> bool:
        stops.append(len(written.ids))
        return False

    hold(decoder, scheduler)
    given_up = scheduler.submit([Prompt([1], 50, stop=stop)])
    other = scheduler.submit([Prompt([2], 3)])
    decoder.started.clear()
    decoder.go_on.set()
    other.result(WAIT)
    assert stops == list(range(1, 51))  # its own reason to stop is still asked

    decoder.steps = 0
    decoder.started.clear()
    decoder.go_on.clear()
    given_up = scheduler.submit([Prompt([3], 50)])
    assert decoder.started.wait(WAIT)
    assert given_up.cancel()
    decoder.go_on.set()
    scheduler.submit([Prompt([4], 1)]).result(WAIT)
    assert decoder.steps == 1 + 1


def test_a_failed_batch_is_let_go_before_its_parts_are_run() -> None:
    class Tensors:
        pass

    class Faulty(Recorder):
        def __call__(self, prompts: Sequence[Prompt]) -> list[Continuation]:
            if len(prompts) == 2:
                held = Tensors()
                self.held = ref(held)
                raise ZeroDivisionError
            if len(self.runs) > 1:
                assert self.held() is None
            return super().__call__(prompts)

    decoder = Faulty()
    scheduler = Scheduler(cast("GreedyDecoder", decoder))
    hold(decoder, scheduler)
    both = [scheduler.submit([Prompt([n], 1)]) for n in (1, 2)]
    decoder.go_on.set()
    assert [len(future.result(WAIT)) for future in both] == [1, 1]
    assert decoder.runs == [[[0]], [[1]], [[2]]]


def test_nobody_fails_for_another(decoder: Recorder, scheduler: Scheduler) -> None:
    hold(decoder, scheduler)
    good, bad = scheduler.submit([Prompt([1], 1)]), scheduler.submit([Prompt([666], 1)])
    decoder.go_on.set()
    assert good.result(WAIT)[0].ids == [0]
    with pytest.raises(ZeroDivisionError):
        bad.result(WAIT)


async def test_an_event_loop_waits_and_cancels(decoder: Recorder, scheduler: Scheduler) -> None:
    hold(decoder, scheduler)
    waiting = [asyncio.wrap_future(scheduler.submit([Prompt([n], 2)])) for n in range(1, 4)]
    waiting[0].cancel()
    await asyncio.sleep(0)
    decoder.go_on.set()
    got = await asyncio.gather(*waiting[1:])
    assert [[row.ids for row in own] for own in got] == [[[0, 1]]] * 2
    assert decoder.runs[1:] == [[[2], [3]]]


def test_nothing_in_nothing_out(scheduler: Scheduler) -> None:
    assert scheduler.submit([]).result(WAIT) == []
