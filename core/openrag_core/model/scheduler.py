"""One model, any number of callers: what threads and event loops want done at once is one batch."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from weakref import WeakSet

from openrag_core.model.decoding import Continuation, GreedyDecoder, Prompt

Continuations = list[Continuation]


class _Job:
    """What one caller wants continued, cut into pieces of at most a batch."""

    def __init__(self, prompts: Sequence[Prompt], pieces: Sequence[list[int]]) -> None:
        self.prompts = prompts
        self.pieces = deque(pieces)
        self.future: Future[Continuations] = Future()
        self._written: dict[int, Continuation] = {}

    def tokens(self, rows: list[int]) -> int:
        prompts = [self.prompts[row] for row in rows]
        return sum(len(prompt.ids) + prompt.max_new_tokens for prompt in prompts)

    def marked(self, row: int) -> Prompt:
        """A prompt in a group of this job's own, that stops where the caller gave up."""
        prompt = self.prompts[row]
        return replace(prompt, group=(id(self), prompt.group), stop=self._stop(prompt))

    def _stop(self, prompt: Prompt) -> Callable[[Continuation], bool]:
        own, cancelled = prompt.stop, self.future.cancelled
        if own is None:
            return lambda _: cancelled()
        return lambda written: cancelled() or own(written)

    def finish(self, rows: list[int], written: Continuations) -> None:
        self._written |= zip(rows, written, strict=True)
        if len(self._written) == len(self.prompts):
            with suppress(InvalidStateError):  # cancelled
                self.future.set_result([self._written[row] for row in range(len(self.prompts))])

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


_Piece = tuple[_Job, list[int]]


class Scheduler:
    """Owns a decoder and runs it in a thread of its own, one batch at a time.

    A request of several batches takes turns with the others, batch by batch; where a batch has
    room left, what else is waiting joins it. Cancelling a request's future takes its rows out of a
    running batch at the next token, and the rest is not begun.

    Args:
        decoder: Used by nobody else.
    """

    def __init__(self, decoder: GreedyDecoder) -> None:
        self._decoder = decoder
        self.start()
        _schedulers.add(self)

    def start(self) -> None:
        """Begin with nothing to do; in a forked process, where the thread is gone, once more."""
        self._waiting: deque[_Job] = deque()
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="openrag-model")

    def submit(self, prompts: Sequence[Prompt]) -> Future[Continuations]:
        """Ask for continuations, and come back at once.

        Args:
            prompts: Any number.

        Returns:
            Their continuations, in the order of the prompts. It can be cancelled at any time;
            `asyncio.wrap_future` makes it awaitable.
        """
        job = _Job(prompts, list(self._decoder.batches(prompts)))
        if not prompts:
            job.finish([], [])
            return job.future
        with self._lock:
            self._waiting.append(job)
        self._thread.submit(self._run_waiting)
        return job.future

    def _run_waiting(self) -> None:
        while pieces := self._take():
            if self._run(pieces) or len(pieces) == 1:
                continue
            for piece in pieces:  # nobody fails for what another one asked
                self._run([piece])

    def _take(self) -> list[_Piece]:
        """The next piece of the request whose turn it is, and of others as far as they fit."""
        pieces: list[_Piece] = []
        room = self._decoder.max_batch_tokens
        with self._lock:
            for _ in range(len(self._waiting)):
                job = self._waiting.popleft()
                if job.future.done():
                    continue
                room -= job.tokens(job.pieces[0])
                if pieces and room < 0:
                    self._waiting.appendleft(job)
                    break
                pieces.append((job, job.pieces.popleft()))
                if job.pieces:
                    self._waiting.append(job)
        return pieces

    def _run(self, pieces: list[_Piece]) -> bool:
        """Run pieces together; whether that went well. A single one that fails is told why."""
        try:
            written = iter(self._decoder([job.marked(row) for job, rows in pieces for row in rows]))
        except BaseException as error:  # whatever it is, the callers wait for it
            traceback.clear_frames(error.__traceback__)  # they hold the batch's tensors
            if len(pieces) == 1:
                pieces[0][0].fail(error)
            return False
        for job, rows in pieces:
            job.finish(rows, [next(written) for _ in rows])
        return True


_schedulers: WeakSet[Scheduler] = WeakSet()


def _start_anew() -> None:
    for scheduler in _schedulers:
        scheduler.start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
