"""What the pipeline tells of its stages, for LlamaIndex's callbacks and instrumentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base import EventContext
from llama_index.core.instrumentation.events.llm import (
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import (
    RetrievalEndEvent,
    RetrievalStartEvent,
)
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from llamaindex_openrag.nodes import to_node
from openrag_core import Draft, OpenRAG, Passage, Written
from openrag_core.events import Event, Stage, StageEnded, StageStarted

dispatcher = get_dispatcher(__name__)

_TYPES: Mapping[Stage, CBEventType] = {
    "condense": CBEventType.LLM,
    "draft": CBEventType.LLM,
    "retrieve": CBEventType.RETRIEVE,
    "hops": CBEventType.RETRIEVE,
    "rerank": CBEventType.RERANKING,
    "write": CBEventType.LLM,
}


class StageCallbacks:
    """Passes stages on as callback events: RETRIEVE, RERANKING, LLM; SYNTHESIZE around writing.

    Args:
        manager: Whose handlers hear of them.
        query: What is asked.
        rag: The pipeline that is asked.
        nodes: That are already found.
    """

    def __init__(
        self,
        manager: CallbackManager,
        query: QueryBundle,
        rag: OpenRAG,
        nodes: Sequence[NodeWithScore] = (),
    ) -> None:
        self._manager = manager
        self._query = query
        self._top_n = len(nodes) or rag.top_k
        self._model_name = type(rag.reranker).__name__
        self._generator_name = type(rag.generator).__name__
        self._nodes = list(nodes)
        self._open: dict[str, EventContext] = {}

    def hear(self, event: Event) -> None:
        """Pass an event on, if it is of a stage."""
        match event:
            case StageStarted(stage=stage):
                self._start(stage)
            case StageEnded():
                self._end(event)

    def finish(self, response: Response) -> None:
        """Say what came of it all."""
        if "synthesize" in self._open:
            self._close("synthesize", {EventPayload.RESPONSE: response})
            dispatcher.event(SynthesizeEndEvent(query=self._query, response=response))

    def fail(self, error: BaseException) -> None:
        """End what is open, the innermost first."""
        for name in reversed(list(self._open)):
            self._close(name, {EventPayload.EXCEPTION: error})

    def _start(self, stage: Stage) -> None:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: self._query.query_str}
        match _TYPES[stage]:
            case CBEventType.RETRIEVE:
                dispatcher.event(RetrievalStartEvent(str_or_query_bundle=self._query))
            case CBEventType.RERANKING:
                dispatcher.event(
                    ReRankStartEvent(
                        query=self._query,
                        nodes=self._nodes,
                        top_n=self._top_n,
                        model_name=self._model_name,
                    )
                )
                payload |= {
                    EventPayload.NODES: self._nodes,
                    EventPayload.TOP_K: self._top_n,
                    EventPayload.MODEL_NAME: self._model_name,
                }
            case _:
                payload = {EventPayload.PROMPT: self._query.query_str}
        if stage == "write" and "synthesize" not in self._open:
            dispatcher.event(SynthesizeStartEvent(query=self._query))
            asked: dict[str, Any] = {EventPayload.QUERY_STR: self._query.query_str}
            self._begin("synthesize", CBEventType.SYNTHESIZE, asked)
        if _TYPES[stage] is CBEventType.LLM:  # within the synthesis
            dispatcher.event(
                LLMCompletionStartEvent(
                    prompt=self._query.query_str,
                    additional_kwargs={},
                    model_dict={"model_name": self._generator_name},
                )
            )
        self._begin(stage, _TYPES[stage], payload)

    def _end(self, event: StageEnded) -> None:
        result = event.results[0]
        payload: dict[str, Any] = {EventPayload.ADDITIONAL_KWARGS: {"seconds": event.seconds}}
        match _TYPES[event.stage]:
            case CBEventType.RETRIEVE:
                self._nodes = _nodes(result)
                dispatcher.event(
                    RetrievalEndEvent(str_or_query_bundle=self._query, nodes=self._nodes)
                )
                payload[EventPayload.NODES] = self._nodes
            case CBEventType.RERANKING:
                self._nodes = _nodes(result)
                dispatcher.event(ReRankEndEvent(nodes=self._nodes))
                payload[EventPayload.NODES] = self._nodes
            case _:
                prompt, completion = self._query.query_str, CompletionResponse(text=_text(result))
                dispatcher.event(LLMCompletionEndEvent(prompt=prompt, response=completion))
                payload |= {EventPayload.PROMPT: prompt, EventPayload.COMPLETION: completion}
        self._close(event.stage, payload)

    def _begin(self, name: str, type_: CBEventType, payload: dict[str, Any]) -> None:
        self._open[name] = EventContext(self._manager, type_)
        self._open[name].on_start(payload)

    def _close(self, name: str, payload: dict[str, Any]) -> None:
        self._open.pop(name).on_end(payload)


def _nodes(found: Any) -> list[NodeWithScore]:  # noqa: ANN401  (of a stage: passages or chains)
    chains = [[one] if isinstance(one, Passage) else one for one in found]
    return [to_node(passage) for chain in chains for passage in chain]


def _text(result: Any) -> str:  # noqa: ANN401  (of a stage: a draft, answers, a question)
    match result:
        case str() as question:
            return question
        case Draft(text=text) | Written(text=text):
            return text
        case list() | tuple():
            return "\n\n".join(map(_text, result))
    return ""
