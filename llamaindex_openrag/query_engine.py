"""The pipeline as a query engine: it stands wherever LlamaIndex takes one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base import EventContext
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_openrag.callbacks import StageCallbacks
from llamaindex_openrag.fixed_prompts import FixedPrompts
from llamaindex_openrag.nodes import to_node
from llamaindex_openrag.run import Run
from openrag_core import ConfigError, OpenRAG, Passage
from openrag_core.build import check_pipeline
from openrag_core.events import StageEnded, StageStarted


class OpenRAGQueryEngine(FixedPrompts, BaseQueryEngine):
    """Answers questions with an `OpenRAG` pipeline; threads and event loops may share it.

    The response's `source_nodes` are the passages that were read, the answer's own first, with
    the scores of the answers; its `metadata` holds the question as it was understood, the gate's
    decision, every candidate, the confidence, and whether the answer is grounded.

    Args:
        rag: The pipeline; `openrag_core.build.build()` makes one, and `dataclasses.replace(rag,
            top_k=3)` a variant of it that shares its model.
        streaming: Whether to respond while the answer is still being written. Source nodes are
            there from the beginning, the rest of the metadata once the text has ended.
        callback_manager: Of LlamaIndex.

    Raises:
        ConfigError: It is no pipeline.
    """

    def __init__(
        self,
        rag: OpenRAG,
        *,
        streaming: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager)
        self.rag = check_pipeline(rag)
        self.streaming = streaming

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The passages that an answer would be written from; the gate is not asked."""
        with self._retrieving(query_bundle) as found:
            found.extend(self.rag.retrieve(query_bundle.query_str))
        return [to_node(passage) for passage in found]

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The same; the event loop goes on."""
        with self._retrieving(query_bundle) as found:
            found.extend(await self.rag.aretrieve(query_bundle.query_str))
        return [to_node(passage) for passage in found]

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from nodes that are already found; the additional ones are only handed on.

        Raises:
            ConfigError: The pipeline reads chains of passages, which nodes do not tell.
        """
        return self._reading(query_bundle, nodes, additional_source_nodes).respond(self.streaming)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The same; the event loop goes on."""
        run = self._reading(query_bundle, nodes, additional_source_nodes)
        return await run.arespond(self.streaming)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._event(query_bundle) as event:
            response = self._asking(query_bundle).respond(self.streaming)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._event(query_bundle) as event:
            response = await self._asking(query_bundle).arespond(self.streaming)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _asking(self, query: QueryBundle) -> Run:
        _check_transformed(query)
        return Run.asking(self.rag, query, self.callback_manager)

    def _reading(
        self,
        query: QueryBundle,
        nodes: Sequence[NodeWithScore],
        additional: Sequence[NodeWithScore] | None,
    ) -> Run:
        return Run.reading(self.rag, query, self.callback_manager, nodes, additional or ())

    def _event(self, query_bundle: QueryBundle) -> AbstractContextManager[EventContext]:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    @contextmanager
    def _retrieving(self, query: QueryBundle) -> Iterator[list[Passage]]:
        _check_transformed(query)
        callbacks = StageCallbacks(self.callback_manager, query, self.rag)
        started = perf_counter()
        callbacks.hear(StageStarted("retrieve", (0,)))
        found: list[Passage] = []
        try:
            yield found
        except BaseException as error:
            callbacks.fail(error)
            raise
        callbacks.hear(StageEnded("retrieve", (0,), perf_counter() - started, (found,)))


def _check_transformed(query: QueryBundle) -> None:
    if query.custom_embedding_strs not in (None, [query.query_str]):
        raise ConfigError(
            "a query transform gives other texts to search with, and the pipeline searches "
            "with the question: transform what its retriever gets, "
            "LlamaIndexRetriever(TransformRetriever(OpenRAGRetriever(index), transform))"
        )
