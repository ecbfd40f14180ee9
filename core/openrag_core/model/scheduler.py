"""One model, any number of callers: what threads and event loops want done at once is one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Lock

from openrag_core.model.decoding import Continuation, GreedyDecoder, Prompt

Continuations = list[Continuation]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What one caller wants continued."""

    prompts: Sequence[Prompt]
    future: Future[Continuations] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return sum(len(prompt.ids) + prompt.max_new_tokens for prompt in self.prompts)

    def marked(self) -> list[Prompt]:
        """The prompts, in groups of this job's own, and stopping where the caller gave up."""
        return [
            replace(prompt, group=(id(self), prompt.group), stop=self._stop(prompt))
            for prompt in self.prompts
        ]

    def _stop(self, prompt: Prompt) -> Callable[[Continuation], bool]:
        own, cancelled = prompt.stop, self.future.cancelled
        if own is None:
            return lambda _: cancelled()
        return lambda written: cancelled() or own(written)


class Scheduler:
    """Owns a decoder and runs it in a thread of its own.

    While it is busy, requests wait; then as many as fit into a batch are run together, first come,
    first served. Cancelling a request's future takes its rows out of a running batch at the next
    token.

    Args:
        decoder: Used by nobody else.
    """

    def __init__(self, decoder: GreedyDecoder) -> None:
        self._decoder = decoder
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
        job = _Job(prompts)
        with self._lock:
            self._waiting.append(job)
        self._thread.submit(self._run_waiting)
        return job.future

    def _run_waiting(self) -> None:
        if jobs := self._take():
            self._run(jobs)

    def _take(self) -> list[_Job]:
        """The requests that have waited longest, as many as fit into a batch."""
        jobs: list[_Job] = []
        tokens = 0
        with self._lock:
            while self._waiting:
                tokens += self._waiting[0].tokens
                if jobs and tokens > self._decoder.max_batch_tokens:
                    break
                job = self._waiting.popleft()
                if not job.future.cancelled():
                    jobs.append(job)
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        try:
            written = iter(self._decoder([prompt for job in jobs for prompt in job.marked()]))
        except BaseException as error:  # whatever it is, the callers wait for it
            if len(jobs) > 1:  # nobody fails for what another one asked
                for job in jobs:
                    self._run([job])
                return
            with suppress(InvalidStateError):
                jobs[0].future.set_exception(error)
            return
        for job in jobs:
            own = [next(written) for _ in job.prompts]
            with suppress(InvalidStateError):  # cancelled
                job.future.set_result(own)
