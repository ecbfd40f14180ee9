"""The pipeline as a query engine: it stands wherever LlamaIndex takes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base import EventContext
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_openrag.nodes import to_node, to_passage
from openrag_core import Answer, OpenRAG


class OpenRAGQueryEngine(BaseQueryEngine):
    """Answers questions with an `OpenRAG` pipeline.

    The response's `source_nodes` are the passages that were read, the answer's own first; its
    `metadata` holds the gate's decision, the confidence, and whether the answer is grounded.

    Args:
        rag: The pipeline; `openrag_core.build.build()` makes one.
        callback_manager: Of LlamaIndex.
    """

    def __init__(self, rag: OpenRAG, callback_manager: CallbackManager | None = None) -> None:
        super().__init__(callback_manager)
        self.rag = rag

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The passages that an answer would be written from; the gate is not asked."""
        return [to_node(passage) for passage in self.rag.retrieve(query_bundle.query_str)]

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The same; the event loop goes on."""
        return [to_node(passage) for passage in await self.rag.aretrieve(query_bundle.query_str)]

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from nodes that are already found; the additional ones are only handed on."""
        passages = [to_passage(node) for node in nodes]
        answer = self.rag.answer_from(query_bundle.query_str, passages)
        return _response(answer, additional_source_nodes or ())

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The same; the event loop goes on."""
        passages = [to_passage(node) for node in nodes]
        answer = await self.rag.aanswer_from(query_bundle.query_str, passages)
        return _response(answer, additional_source_nodes or ())

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._event(query_bundle) as event:
            response = _response(self.rag.answer(query_bundle.query_str))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._event(query_bundle) as event:
            response = _response(await self.rag.aanswer(query_bundle.query_str))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _event(self, query_bundle: QueryBundle) -> AbstractContextManager[EventContext]:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        """There are none: an Open-RAG model is asked in the layout it was trained on."""


def _response(answer: Answer, additional: Sequence[NodeWithScore] = ()) -> Response:
    return Response(
        response=answer.text,
        source_nodes=[
            *(to_node(p, candidate) for candidate in answer.candidates for p in candidate.evidence),
            *additional,
        ],
        metadata={
            "gate": asdict(answer.decision),
            "confidence": answer.confidence,
            "grounded": answer.grounded,
            "abstained": answer.abstained,
            "truncated": answer.truncated,
            "seconds": dict(answer.seconds),
        },
    )
