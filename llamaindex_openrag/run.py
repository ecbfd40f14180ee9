"""One question on its way through the pipeline, and the response that comes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, replace

from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)

from llamaindex_openrag.callbacks import StageCallbacks
from llamaindex_openrag.response import GrowingResponse
from openrag_core import Gate, OpenRAG, Passage
from openrag_core.events import AnswerEvent, Event


@dataclass(frozen=True, slots=True)
class Run:
    """A question, and what hears of it."""

    rag: OpenRAG
    question: str
    callbacks: StageCallbacks
    response: GrowingResponse

    def respond(self, streaming: bool) -> Response | StreamingResponse:
        """Answer; or, if it is to be streamed, go on until the source nodes are known."""
        if streaming:
            return self._stream(self.rag.stream(self.question))
        with self._failing(), closing(self.rag.stream_many([self.question])) as events:
            for event in events:
                self._hear(event)
        return self._whole

    async def arespond(self, streaming: bool) -> Response | AsyncStreamingResponse:
        """The same; the event loop goes on."""
        if streaming:
            return await self._astream(self.rag.astream(self.question))
        with self._failing():
            async with aclosing(self.rag.astream_many([self.question])) as events:
                async for event in events:
                    self._hear(event)
        return self._whole

    def _stream(self, events: Generator[Event]) -> StreamingResponse:
        begun = ""
        with self._failing():
            while not self.response.sources_known:
                begun += self._hear(next(events))
        context = copy_context()  # by the time that the text is read, the caller's may have changed

        def rest() -> Generator[str]:
            with closing(events), self._failing(context):
                if begun:
                    yield begun
                for event in events:
                    if new := context.run(self._hear, event):
                        yield new

        return StreamingResponse(rest(), self.response.source_nodes, self.response.metadata)

    async def _astream(self, events: AsyncGenerator[Event]) -> AsyncStreamingResponse:
        begun = ""
        with self._failing():
            while not self.response.sources_known:
                begun += self._hear(await anext(events))
        context = copy_context()

        async def rest() -> AsyncGenerator[str]:
            async with aclosing(events):
                with self._failing(context):
                    if begun:
                        yield begun
                    async for event in events:
                        if new := context.run(self._hear, event):
                            yield new

        return AsyncStreamingResponse(rest(), self.response.source_nodes, self.response.metadata)

    def _hear(self, event: Event) -> str:
        self.callbacks.hear(event)
        new = self.response.hear(event)
        if isinstance(event, AnswerEvent):
            self.callbacks.finish(self._whole)
        return new

    @property
    def _whole(self) -> Response:
        response = self.response
        return Response(response.text, response.source_nodes, response.metadata)

    @contextmanager
    def _failing(self, context: Context | None = None) -> Iterator[None]:
        """End what the callbacks were told of, if the question fails or is given up."""
        try:
            yield
        except BaseException as error:
            if context is None:
                self.callbacks.fail(error)
            else:
                context.run(self.callbacks.fail, error)
            raise


def over(rag: OpenRAG, passages: Sequence[Passage]) -> OpenRAG:
    """The pipeline over passages that are already found: they are ranked and read, all of them."""
    count = max(1, len(passages))
    found = _Found(passages)
    return replace(rag, retriever=found, gate=Gate(), hops=1, top_k=count, fetch_k=count)


@dataclass(frozen=True, slots=True)
class _Found:
    """Passages in place of a search; satisfies `Retriever`."""

    passages: Sequence[Passage]

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        return [list(self.passages[:top_k]) for _ in questions]

    async def aretrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        return self.retrieve(questions, top_k)
