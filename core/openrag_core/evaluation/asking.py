"""A chat model that is asked many things: a few at a time, again where it fails, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from tenacity import AsyncRetrying, Retrying, stop_after_attempt, wait_random_exponential

from openrag_core.cache import JsonCache
from openrag_core.conversation import (
    ChatModel,
    Message,
    Reply,
    chat_name,
    known_chat_name,
    spoken,
)
from openrag_core.errors import ChatModelError, ConfigError
from openrag_core.replies import Read, read_json
from openrag_core.steps import Call, Steps, arun, results_of, run

_Result = TypeVar("_Result")
_IN_A_ROW = 5  # requests that failed for good, after which it is the service that is broken
_REPAIR = (
    "That cannot be used: {reason}. Reply with one JSON object in the form that was asked for, and "
    "nothing else."
)


@dataclass(frozen=True, slots=True)
class Price:
    """What a chat model costs, per million tokens, in any currency; >= 0.

    Raises:
        ConfigError: One is negative.
    """

    prompt: float = 0.0
    new: float = 0.0

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and self.new >= 0):
            raise ConfigError(f"prices must be >= 0, got {self.prompt} and {self.new}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a chat model was asked for; tokens are those that it tells, which some never do."""

    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.new_tokens + other.new_tokens,
        )

    def cost(self, price: Price) -> float:
        """In the currency of the price."""
        return (self.prompt_tokens * price.prompt + self.new_tokens * price.new) / 1e6


FREE, NOTHING = Price(), Usage()


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Result]):
    """What came of asking for JSON."""

    value: _Result | None
    """None where there was no reply, or none that could be read."""
    failure: str = ""
    """Why there is none."""
    usage: Usage = NOTHING
    """Of all replies, whenever they were given."""
    paid: Usage = NOTHING
    """Of the replies that were given now; the others came from the cache."""


class ChatClient:
    """Asks a chat model for JSON.

    Every reply is kept as soon as it is there, also one that cannot be read: whoever asks the same
    again, after an interruption too, gets the same replies and pays nothing for them.

    Args:
        chat: The chat model.
        name: What tells it from others; replies are kept under it. By default its own `name`.
        concurrency: Most requests at once; >= 1.
        attempts: How often a request is made before giving up where the model fails, and how many
            replies are asked for where they cannot be read; >= 1.
        cache: Keeps the replies; by default in memory.
        longest_pause: Between attempts, in seconds. Pauses grow, and are drawn at random.

    Raises:
        ConfigError: A number is below 1, or replies are to be kept of a model without a name.
    """

    def __init__(
        self,
        chat: ChatModel,
        *,
        name: str | None = None,
        concurrency: int = 8,
        attempts: int = 3,
        cache: JsonCache | None = None,
        longest_pause: float = 60.0,
    ) -> None:
        _check(concurrency=concurrency, attempts=attempts)
        self.name = (chat_name if cache is None else known_chat_name)(chat, name)
        self.concurrency = concurrency
        self._chat = chat
        self._attempts = attempts
        self._cache = cache or JsonCache()
        self._lock = Lock()
        self._failed = 0  # in a row
        stop, wait = stop_after_attempt(attempts), wait_random_exponential(max=longest_pause)
        self._retrying = Retrying(stop=stop, wait=wait, reraise=True)
        self._aretrying = AsyncRetrying(stop=stop, wait=wait, reraise=True)

    def ask_json(
        self, conversation: Sequence[Message], read: Read[_Result]
    ) -> Steps[Outcome[_Result]]:
        """Ask for one JSON object; a reply that cannot be read is sent back with the reason.

        Args:
            conversation: Says what is asked for.
            read: Makes the result of the object; raises ValueError for one that is of no use.
        """
        messages, failure = tuple(conversation), ""
        usage = paid = NOTHING
        for _ in range(self._attempts):
            try:
                text, used, fresh = yield Call(self, "ask", (messages,))
            except _RequestError as error:
                return Outcome(None, str(error), usage, paid)
            usage, paid = usage + used, paid + (used if fresh else NOTHING)
            try:
                return Outcome(read_json(spoken(Reply(text)).text, read), "", usage, paid)
            except ValueError as error:
                failure = str(error)
            repair = Message("user", _REPAIR.format(reason=failure))
            messages = (*messages, Message("assistant", text or "(nothing)"), repair)
        return Outcome(None, f"no usable reply in {self._attempts} ({failure})", usage, paid)

    def ask(self, conversation: Sequence[Message]) -> tuple[str, Usage, bool]:
        """One reply, what it took, and whether it was given now.

        Raises:
            ChatModelError: So many requests in a row have failed that there is no point in more.
        """
        if kept := self._kept(conversation):
            return kept
        try:
            given = self._retrying.copy()(self._chat.reply, [conversation])
            (reply,) = results_of(self._chat, "reply", given, 1)
        except Exception as error:  # models of any make fail in any way
            raise self._failure(error) from error
        return self._keep(conversation, reply)

    async def aask(self, conversation: Sequence[Message]) -> tuple[str, Usage, bool]:
        """The same; the event loop goes on."""
        areply = getattr(self._chat, "areply", None)
        if areply is None:
            return await asyncio.to_thread(self.ask, conversation)
        if kept := self._kept(conversation):
            return kept
        try:
            given: object = await self._aretrying.copy()(areply, [conversation])
            (reply,) = results_of(self._chat, "areply", given, 1)
        except Exception as error:
            raise self._failure(error) from error
        return self._keep(conversation, reply)

    def gather(
        self, jobs: Sequence[Steps[_Result]], progress: Callable[[int], None]
    ) -> list[_Result]:
        """Take the steps of all jobs, `concurrency` of them at the same time.

        Args:
            jobs: Of `ask_json`, and what else they do.
            progress: Called with how many are done since the last call.

        Returns:
            What each came to, in their order.
        """
        self._failed = 0
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="openrag-chat")
        try:
            futures = [pool.submit(copy_context().run, run, job) for job in jobs]
            for done in as_completed(futures):
                done.result()
                progress(1)
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)  # waits for what is paid already

    async def agather(
        self, jobs: Sequence[Steps[_Result]], progress: Callable[[int], None]
    ) -> list[_Result]:
        """The same, in this event loop."""
        self._failed = 0
        limit = asyncio.Semaphore(self.concurrency)

        async def take(job: Steps[_Result]) -> _Result:
            async with limit:
                result = await arun(job)
            progress(1)
            return result

        tasks = [asyncio.create_task(take(job)) for job in jobs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _kept(self, conversation: Sequence[Message]) -> tuple[str, Usage, bool] | None:
        kept = self._cache.get(*self._key(conversation))
        return kept and (kept["text"], Usage(1, kept["prompt_tokens"], kept["new_tokens"]), False)

    def _keep(self, conversation: Sequence[Message], reply: Reply) -> tuple[str, Usage, bool]:
        self._failed = 0
        used = Usage(1, reply.prompt_tokens, reply.new_tokens)
        kept = {"text": reply.text, "prompt_tokens": reply.prompt_tokens}
        self._cache.put({**kept, "new_tokens": reply.new_tokens}, *self._key(conversation))
        return reply.text, used, True

    def _key(self, conversation: Sequence[Message]) -> tuple[object, ...]:
        return ("chat", self.name, *([one.role, one.text] for one in conversation))

    def _failure(self, error: Exception) -> Exception:
        reason = f"{type(error).__name__}: {error}"
        with self._lock:
            self._failed += 1
            broken = self._failed >= _IN_A_ROW
        if broken:
            return ChatModelError(
                f"the chat model {self.name} failed in {_IN_A_ROW} requests in a row, the last "
                f"time with {reason}. Every reply before is kept if there is a cache: run it again"
            )
        return _RequestError(f"the chat model failed ({reason})")


class _RequestError(Exception):
    """One request came to nothing; the others may fare better."""


def _check(**least_one: int) -> None:
    for what, value in least_one.items():
        if type(value) is not int or value < 1:
            raise ConfigError(f"{what} must be a whole number >= 1, got {value!r}")
