"""Tokens on their way from the model's thread to whoever reads along."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import Generic, Protocol, TypeVar

from openrag_core.model.decoding import Continuation, Prompt, complete
from openrag_core.ports import Piece
from openrag_core.records import Token

_Result = TypeVar("_Result")
_HALF = "\N{REPLACEMENT CHARACTER}"  # what a character that is not complete decodes to


class Model(Protocol):
    """What continues prompts, and turns what comes of it into text."""

    @property
    def ends(self) -> frozenset[int]:
        """Ids that end a text."""
        ...

    def submit(self, prompts: Sequence[Prompt]) -> Future[list[Continuation]]:
        """Ask for continuations; see `Scheduler.submit`."""
        ...

    def text(self, ids: list[int]) -> str:
        """The text that ids stand for."""
        ...

    def tokens(self, written: Continuation) -> tuple[Token, ...]:
        """The ids as records."""
        ...


@dataclass(frozen=True, slots=True)
class _Item:
    place: int
    written: Continuation
    """It may go on growing in the model's thread."""
    length: int
    last: bool


class Texts(Generic[_Result]):
    """Continuations of prompts, token by token; satisfies `TextStream`.

    It is read by one thread (`next`) or one event loop (`anext`); who gives up waiting loses
    nothing. Where the model begins a batch anew, since its memory ran out, what was given already
    is not given again.

    Args:
        model: Continues them.
        prompts: To be continued.
        finish: What a whole continuation is made into; given its place.
        visible: What of a text is sure to stay as it is; told whether it is complete.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Prompt],
        finish: Callable[[int, Continuation], _Result],
        visible: Callable[[str, bool], str] = lambda text, _: text,
    ) -> None:
        self._model = model
        self._finish = finish
        self._visible = visible
        self._items: deque[_Item | None] = deque()
        self._waiting: Future[None] | None = None
        self._lock = Lock()
        self._watched = [0] * len(prompts)
        self._complete = [False] * len(prompts)
        self._shown = [0] * len(prompts)
        watched = [replace(one, stop=self._watch(n, one)) for n, one in enumerate(prompts)]
        self._future = model.submit(watched)
        self._future.add_done_callback(lambda _: self._put(None))

    def next(self) -> Piece[_Result] | None:
        """Wait for the next token; None after the last one."""
        self._arrival().result()
        return self._piece()

    async def anext(self) -> Piece[_Result] | None:
        """The same; the event loop goes on."""
        await asyncio.wrap_future(self._arrival())
        return self._piece()

    def cancel(self) -> None:
        """Let the model stop, if it is not done."""
        self._future.cancel()

    def _watch(self, place: int, prompt: Prompt) -> Callable[[Continuation], bool]:
        def watch(written: Continuation) -> bool:
            length = len(written.ids)
            stopped = prompt.stop is not None and prompt.stop(written)
            last = stopped or complete(prompt, written, self._model.ends)
            if not self._complete[place] and (last or length > self._watched[place]):
                self._watched[place], self._complete[place] = length, last
                self._put(_Item(place, written, length, last))
            return stopped

        return watch

    def _put(self, item: _Item | None) -> None:
        with self._lock:
            self._items.append(item)
            waiting, self._waiting = self._waiting, None
            if waiting is not None and waiting.set_running_or_notify_cancel():
                waiting.set_result(None)

    def _arrival(self) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if self._items:
                future.set_result(None)
            else:
                self._waiting = future
        return future

    def _piece(self) -> Piece[_Result] | None:
        item = self._items[0]
        if item is None:  # it stays, for whoever asks again
            if not self._future.cancelled():
                self._future.result()  # raises what went wrong
            return None
        self._items.popleft()
        one = Continuation(
            item.written.ids[: item.length],
            item.written.logprobs[: item.length],
            item.written.watched[: item.length],
        )
        result = self._finish(item.place, one) if item.last else None
        text = self._model.text(one.ids)
        text = self._visible(text if item.last else text.rstrip(_HALF), item.last).strip()
        piece = text[self._shown[item.place] :]
        self._shown[item.place] = max(self._shown[item.place], len(text))
        newest = Continuation(one.ids[-1:], one.logprobs[-1:], one.watched[-1:])
        return Piece(item.place, self._model.tokens(newest)[0], piece, result)
