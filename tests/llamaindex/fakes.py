"""Scripted parts: a generator that is read while it writes, an LLM that says what it was told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback

from openrag_core import Draft, OpenRAG, Passage, Token, Written
from openrag_core.ports import Piece
from openrag_core.records import Evidence
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever

BRIDGE = Passage(
    id="b1", text="1893", title="Bridge", source="b.md", metadata={"page": 3}, retrieval_score=0.5
)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


@dataclass
class FakeStream:
    """Gives its pieces one by one."""

    pieces: deque[Piece[Any]]
    endless: bool = False
    """Whether the second piece never comes."""
    given: int = 0
    cancelled: bool = False

    def next(self) -> Piece[Any] | None:
        self.given += 1
        return self.pieces.popleft() if self.pieces else None

    async def anext(self) -> Piece[Any] | None:
        if self.endless and self.given:
            await asyncio.Event().wait()
        return self.next()

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeStreamingGenerator(FakeGenerator):
    """As `FakeGenerator`; its texts can be read word by word."""

    endless: bool = False
    streams: list[FakeStream] = field(default_factory=list)

    def begin_draft(self, question: str) -> FakeStream:
        return self._begin([self.drafts[question]])

    def begin_write(self, question: str, evidence: Sequence[Evidence]) -> FakeStream:
        return self._begin(self.write([question], [evidence])[0])

    def _begin(self, results: Sequence[Draft | Written]) -> FakeStream:
        pieces: deque[Piece[Any]] = deque()
        for place, result in enumerate(results):
            words = result.text.split(" ")
            for number, word in enumerate(words):
                last = number == len(words) - 1
                text = word if last else f"{word} "
                pieces.append(Piece(place, Token(text, log(0.9)), text, result if last else None))
        self.streams.append(FakeStream(pieces, self.endless))
        return self.streams[-1]


class ScriptedLLM(CustomLLM):
    """Says one reply after the other, the last one for ever; what it was asked is on record."""

    replies: list[str]
    probability: float | None = None
    is_chat: bool = False
    asked: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=self.is_chat)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:  # noqa: ARG002
        self.asked.append(prompt)
        text = self.replies[min(len(self.asked), len(self.replies)) - 1]
        if self.probability is None:
            return CompletionResponse(text=text)
        likely = [LogProb(token=text, logprob=log(self.probability)), LogProb(token="?")]
        return CompletionResponse(text=text, logprobs=[likely])

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        reply = self.complete(prompt, formatted, **kwargs)
        return (CompletionResponse(text=reply.text, delta=reply.text) for _ in range(1))


def bridges(generator: FakeGenerator | None = None, **settings: Any) -> OpenRAG:
    """A pipeline that knows when the bridge was opened, and the ferry."""
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2, "n1": 0.8})
    found = FakeRetriever([FERRY, BRIDGE])
    return OpenRAG(generator or FakeGenerator(), found, reranker, **settings)
