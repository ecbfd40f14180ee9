"""Chat models that follow a script, and remember what they were asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from openrag_core import Message, Reply

Said = str | BaseException


@dataclass
class ScriptedChat:
    """Replies by a function of the last message; each reply reads 100 tokens and writes 10."""

    say: Callable[[str], Said]
    name: str = "scripted"
    pause: float = 0.0
    asked: list[Sequence[Message]] = field(default_factory=list)
    active: int = 0
    most: int = 0
    """Requests that were made at the same time."""
    lock: Any = field(default_factory=Lock)

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each."""
        said = [self._begin(conversation) for conversation in conversations]
        time.sleep(self.pause)
        return self._end(said)

    def _begin(self, conversation: Sequence[Message]) -> Said:
        with self.lock:
            self.asked.append(conversation)
            self.active += 1
            self.most = max(self.most, self.active)
            return self.say(conversation[-1].text)

    def _end(self, said: Sequence[Said]) -> list[Reply]:
        with self.lock:
            self.active -= len(said)
        for one in said:
            if isinstance(one, BaseException):
                raise one
        return [Reply(str(one), prompt_tokens=100, new_tokens=10) for one in said]


@dataclass
class AsyncChat(ScriptedChat):
    """One that is at home in event loops."""

    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each."""
        said = [self._begin(conversation) for conversation in conversations]
        await asyncio.sleep(self.pause)
        return self._end(said)


def in_turn(*replies: Said) -> Callable[[str], Said]:
    """Each reply once, in their order; one more request is a fault."""
    rest = list(replies)
    return lambda _: rest.pop(0)
