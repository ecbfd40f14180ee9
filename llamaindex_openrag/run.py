"""One question on its way through the pipeline, and the response that comes of it."""

from __future__ import annotations

from asyncio import create_task
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass

from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_openrag.callbacks import StageCallbacks
from llamaindex_openrag.nodes import to_passage
from llamaindex_openrag.response import GrowingResponse
from openrag_core import OpenRAG, Passage
from openrag_core.events import AnswerEvent, Event


@dataclass(frozen=True, slots=True)
class Run:
    """A question, and what hears of it."""

    rag: OpenRAG
    question: str
    callbacks: StageCallbacks
    response: GrowingResponse
    passages: Sequence[Passage] | None = None
    """That are already found: they are ranked and read, all of them; None to look for some."""

    @classmethod
    def asking(cls, rag: OpenRAG, query: QueryBundle, manager: CallbackManager) -> Run:
        """A question to the whole pipeline."""
        callbacks = StageCallbacks(manager, query, rag)
        return cls(rag, query.query_str, callbacks, GrowingResponse())

    @classmethod
    def reading(
        cls,
        rag: OpenRAG,
        query: QueryBundle,
        manager: CallbackManager,
        nodes: Sequence[NodeWithScore],
        additional: Sequence[NodeWithScore],
    ) -> Run:
        """A question to nodes that are already found; the additional ones are only handed on."""
        callbacks = StageCallbacks(manager, query, rag, nodes)
        passages = list(map(to_passage, nodes))
        return cls(rag, query.query_str, callbacks, GrowingResponse(additional), passages)

    def respond(self, streaming: bool) -> Response | StreamingResponse:
        """Answer; or, if it is to be streamed, go on until the source nodes are known."""
        if streaming:
            return self._stream(self._events(live=True))
        with self._failing(), closing(self._events(live=False)) as events:
            for event in events:
                self._hear(event)
        return self._whole

    async def arespond(self, streaming: bool) -> Response | AsyncStreamingResponse:
        """The same; the event loop goes on."""
        if streaming:
            return await self._astream(self._aevents(live=True))
        with self._failing():
            async with aclosing(self._aevents(live=False)) as events:
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
                while (event := context.run(next, events, None)) is not None:
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
                    while (event := await create_task(_next(events), context=context)) is not None:
                        if new := context.run(self._hear, event):
                            yield new

        return AsyncStreamingResponse(rest(), self.response.source_nodes, self.response.metadata)

    def _events(self, *, live: bool) -> Generator[Event]:
        if self.passages is None:
            return self.rag.stream_many([self.question], live=live)
        return self.rag.stream_from(self.question, self.passages, live=live)

    def _aevents(self, *, live: bool) -> AsyncGenerator[Event]:
        if self.passages is None:
            return self.rag.astream_many([self.question], live=live)
        return self.rag.astream_from(self.question, self.passages, live=live)

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


async def _next(events: AsyncGenerator[Event]) -> Event | None:
    return await anext(events, None)
