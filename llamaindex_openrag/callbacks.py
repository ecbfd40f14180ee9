"""What the pipeline tells of its stages, for LlamaIndex's callbacks and instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from llama_index_instrumentation.base import BaseEvent

from llamaindex_openrag.nodes import to_node
from llamaindex_openrag.spans import StageSpan, dispatcher
from openrag_core import Draft, OpenRAG, Passage, Written
from openrag_core.events import Event, Stage, StageEnded, StageStarted

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

    The instrumentation hears of the same, each in a span of its own.

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
        self._rag = rag
        self._top_n = len(nodes) or rag.top_k
        self._nodes = list(nodes)
        self._open: dict[str, tuple[StageSpan, EventContext]] = {}

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
            dispatcher.event(SynthesizeEndEvent(query=self._query, response=response))
            self._close("synthesize", response, {EventPayload.RESPONSE: response})

    def fail(self, error: BaseException) -> None:
        """End what is open, the innermost first."""
        for span, event in reversed(list(self._open.values())):
            span.fail(error)
            event.on_end({EventPayload.EXCEPTION: error})
        self._open.clear()

    def _start(self, stage: Stage) -> None:
        query, question = self._query, self._query.query_str
        payload: dict[str, Any] = {EventPayload.QUERY_STR: question}
        begun: Callable[[], BaseEvent]  # an event belongs to the span in which it is made
        if stage == "write" and "synthesize" not in self._open:
            self._begin(
                "synthesize", self._rag, "synthesize", CBEventType.SYNTHESIZE, dict(payload)
            )
            dispatcher.event(SynthesizeStartEvent(query=query))
        part, method = self._work(stage)
        name = type(part).__name__
        match _TYPES[stage]:
            case CBEventType.RETRIEVE:
                begun = partial(RetrievalStartEvent, str_or_query_bundle=query)
            case CBEventType.RERANKING:
                begun = partial(
                    ReRankStartEvent,
                    query=query,
                    nodes=self._nodes,
                    top_n=self._top_n,
                    model_name=name,
                )
                payload |= {
                    EventPayload.NODES: self._nodes,
                    EventPayload.TOP_K: self._top_n,
                    EventPayload.MODEL_NAME: name,
                }
            case _:
                begun = partial(
                    LLMCompletionStartEvent,
                    prompt=question,
                    additional_kwargs={},
                    model_dict={"model_name": name},
                )
                payload = {EventPayload.PROMPT: question}
        self._begin(stage, part, method, _TYPES[stage], payload)
        dispatcher.event(begun())

    def _end(self, event: StageEnded) -> None:
        result = event.results[0]
        told: Any
        payload: dict[str, Any] = {EventPayload.ADDITIONAL_KWARGS: {"seconds": event.seconds}}
        match _TYPES[event.stage]:
            case CBEventType.RETRIEVE:
                self._nodes = told = _nodes(result)
                ended: BaseEvent = RetrievalEndEvent(str_or_query_bundle=self._query, nodes=told)
                payload[EventPayload.NODES] = told
            case CBEventType.RERANKING:
                self._nodes = told = _nodes(result)
                ended = ReRankEndEvent(nodes=told)
                payload[EventPayload.NODES] = told
            case _:
                prompt, told = self._query.query_str, CompletionResponse(text=_text(result))
                ended = LLMCompletionEndEvent(prompt=prompt, response=told)
                payload |= {EventPayload.PROMPT: prompt, EventPayload.COMPLETION: told}
        dispatcher.event(ended)
        self._close(event.stage, told, payload)

    def _work(self, stage: Stage) -> tuple[object, str]:
        """Which part does a stage's work, and by which method."""
        match stage:
            case "condense":
                return self._rag.condenser, stage
            case "retrieve":
                return self._rag.retriever, stage
            case "hops":
                return self._rag.retriever, "extend"
            case "rerank":
                return self._rag.reranker, stage
        return self._rag.generator, stage

    def _begin(
        self, name: str, part: object, method: str, type_: CBEventType, payload: dict[str, Any]
    ) -> None:
        event = EventContext(self._manager, type_)
        self._open[name] = StageSpan(part, method, self._query), event
        event.on_start(payload)

    def _close(self, name: str, result: object, payload: dict[str, Any]) -> None:
        span, event = self._open.pop(name)
        event.on_end(payload)
        span.end(result)


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
