"""Our rerankers as a node postprocessor."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from llamaindex_openrag.nodes import to_node, to_passage
from openrag_core import QuestionError, Reranker
from openrag_core.ports import ranked_by
from openrag_core.steps import Call, Steps, arun, run

dispatcher = get_dispatcher(__name__)


class OpenRAGPostprocessor(BaseNodePostprocessor):
    """Puts the best nodes first, by any of our rerankers; their ids and metadata stay.

    Args:
        reranker: Such as `openrag_core.build.build(...).reranker`.
        top_n: Nodes that are left, >= 1.
        min_score: Nodes of a lower score are left out; `reranker.min_relevance` is the score from
            which a reranker calls a passage relevant. By default none is.
        callback_manager: Of LlamaIndex.
    """

    reranker: Reranker = Field(description="Scores the nodes.", exclude=True)
    top_n: int = Field(default=5, ge=1, description="Nodes that are left.")
    min_score: float | None = Field(default=None, description="Lower scores are left out.")

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex's serialization names it."""
        return "OpenRAGPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _asked(query_bundle)
        with self._reranking(nodes, query) as done:
            done.nodes = run(self._ranked(nodes, query))
        return done.nodes

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _asked(query_bundle)
        with self._reranking(nodes, query) as done:
            done.nodes = await arun(self._ranked(nodes, query))
        return done.nodes

    def _ranked(
        self, nodes: Sequence[NodeWithScore], query: QueryBundle
    ) -> Steps[list[NodeWithScore]]:
        if not nodes:
            return []
        passages = [to_passage(one) for one in nodes]
        given = yield Call(self.reranker, "rerank", ([query.query_str], [passages], self.top_n))
        (ranked,) = ranked_by(self.reranker, given, 1, self.top_n)
        scored = list(map(to_node, ranked))
        least = self.min_score
        return [one for one in scored if least is None or one.get_score() >= least]

    @contextmanager
    def _reranking(self, nodes: list[NodeWithScore], query: QueryBundle) -> Generator[_Done]:
        name = type(self.reranker).__name__
        dispatcher.event(
            ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=name)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        done = _Done()
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield done
            event.on_end(payload={EventPayload.NODES: done.nodes})
        dispatcher.event(ReRankEndEvent(nodes=done.nodes))


@dataclass
class _Done:
    nodes: list[NodeWithScore] = field(default_factory=list)


def _asked(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise QuestionError(
            "nodes are ranked for a question: give query_str or query_bundle with them"
        )
    return query
