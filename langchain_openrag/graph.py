"""The pipeline as a LangGraph graph (extra: langgraph)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import asdict
from typing import Annotated, Any

from openrag_core._extras import need

need("langgraph", "langgraph")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.messages import AIMessage, AnyMessage  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langgraph.checkpoint.base import BaseCheckpointSaver  # noqa: E402
from langgraph.config import get_stream_writer  # noqa: E402
from langgraph.graph import END, START, StateGraph  # noqa: E402
from langgraph.graph.message import add_messages  # noqa: E402
from langgraph.graph.state import CompiledStateGraph  # noqa: E402
from typing_extensions import TypedDict  # noqa: E402

from langchain_openrag.documents import to_document, to_passage  # noqa: E402
from langchain_openrag.output import CandidateOutput, Pieces, to_output  # noqa: E402
from langchain_openrag.questions import to_question  # noqa: E402
from openrag_core import Answer, ConfigError, Decision, Draft, OpenRAG, Passage, Question  # noqa: E402
from openrag_core.build import check_pipeline  # noqa: E402
from openrag_core.events import AnswerEvent, Event  # noqa: E402


class GraphInput(TypedDict, total=False):
    """What the graph takes: messages, of which the last human one is the question."""

    messages: Annotated[list[AnyMessage], add_messages]


class GraphState(GraphInput, total=False):
    """What its nodes hand on; at the end the same as the runnable's output."""

    question: str
    gate: dict[str, Any]
    draft: str | None
    context: list[Document]
    candidates: list[CandidateOutput]
    answer: str
    confidence: float
    probability: float | None
    grounded: bool
    abstained: bool
    truncated: bool


def build_graph(
    rag: OpenRAG, *, checkpointer: BaseCheckpointSaver[str] | None = None
) -> CompiledStateGraph[GraphState, None, GraphInput, GraphState]:
    """Make a graph: condense -> decide -> retrieve -> write, or answer from memory.

    With a checkpointer a thread remembers its conversation, and questions are read in it. With
    `stream_mode="custom"` the nodes tell what they do: {"node": "write", "answer": "..."} and the
    like, as the runnable streams it.

    Args:
        rag: The pipeline; its gate decides whether anything is retrieved.
        checkpointer: Such as `langgraph.checkpoint.memory.InMemorySaver()`.

    Raises:
        ConfigError: It is no pipeline, or reads chains of passages.
    """
    if check_pipeline(rag).hops != 1:
        raise ConfigError(
            f"the graph's nodes hand on single passages, and hops={rag.hops!r} asks for chains: "
            "use OpenRAGRunnable as a node of your own graph"
        )
    nodes = _Nodes(rag)
    graph = StateGraph(GraphState, input_schema=GraphInput)
    for name in ("condense", "decide", "retrieve", "write"):
        both = RunnableLambda(getattr(nodes, name), getattr(nodes, f"a{name}"), name=name)
        graph.add_node(name, both)
    graph.add_edge(START, "condense")
    graph.add_edge("condense", "decide")
    graph.add_conditional_edges("decide", _next, ["retrieve", END])
    graph.add_edge("retrieve", "write")
    graph.add_edge("write", END)
    return graph.compile(checkpointer=checkpointer, name="openrag")


def _next(state: GraphState) -> str:
    return "retrieve" if state["gate"]["retrieve"] else END


class _Nodes:
    """Each node, for threads and for event loops."""

    def __init__(self, rag: OpenRAG) -> None:
        self._rag = rag

    def condense(self, state: GraphState) -> GraphState:
        return _begun(self._rag.condense(_question(state)))

    async def acondense(self, state: GraphState) -> GraphState:
        return _begun(await self._rag.acondense(_question(state)))

    def decide(self, state: GraphState) -> GraphState:
        return self._decided(state, *self._rag.decide(state["question"]))

    async def adecide(self, state: GraphState) -> GraphState:
        return self._decided(state, *(await self._rag.adecide(state["question"])))

    def retrieve(self, state: GraphState) -> GraphState:
        return _found([to_document(one) for one in self._rag.retrieve(state["question"])])

    async def aretrieve(self, state: GraphState) -> GraphState:
        passages = await self._rag.aretrieve(state["question"])
        return _found([to_document(one) for one in passages])

    def write(self, state: GraphState) -> GraphState:
        tell, event = _teller(), None
        with closing(self._rag.stream_from(*_reading(state))) as events:
            for event in events:
                tell(event)
        return _written(event)

    async def awrite(self, state: GraphState) -> GraphState:
        tell, event = _teller(), None
        async with aclosing(self._rag.astream_from(*_reading(state))) as events:
            async for event in events:
                tell(event)
        return _written(event)

    def _decided(self, state: GraphState, decision: Decision, draft: Draft | None) -> GraphState:
        known: GraphState = {"gate": asdict(decision), "draft": draft.text if draft else None}
        if decision.retrieve:
            get_stream_writer()({"node": "decide", **known})
            return known
        answered = _answered(self._rag.from_memory(state["question"], decision, draft))
        told = {key: value for key, value in answered.items() if key != "messages"}
        get_stream_writer()({"node": "decide", **told})
        return answered


def _question(state: GraphState) -> Question:
    return to_question(state.get("messages", []))  # what else is there is of an earlier turn


def _begun(question: str) -> GraphState:
    get_stream_writer()({"node": "condense", "question": question})
    return {"question": question}


def _found(context: list[Document]) -> GraphState:
    get_stream_writer()({"node": "retrieve", "context": context})
    return {"context": context}


def _reading(state: GraphState) -> tuple[str, list[Passage], Decision]:
    passages = [to_passage(one) for one in state["context"]]
    return state["question"], passages, Decision(**state["gate"])


def _teller() -> Callable[[Event], None]:
    """Lets whoever streams the graph know of an event."""
    pieces, write = Pieces(), get_stream_writer()

    def tell(event: Event) -> None:
        for piece in pieces(event):
            piece.pop("draft", None)  # told by the gate's node, as the context by the one before
            if not piece.keys() & {"gate", "context"}:
                write({"node": "write", **piece})

    return tell


def _written(event: Event | None) -> GraphState:
    if not isinstance(event, AnswerEvent):
        raise TypeError(f"the last event must be an answer, not {event}")
    return _answered(event.answer)


def _answered(answer: Answer) -> GraphState:
    output = to_output(answer)
    if answer.draft is None:  # the gate's node has told of it
        output.pop("draft")  # type: ignore[misc]
    message = AIMessage(answer.text, response_metadata={"model_name": "openrag"})
    return {"messages": [message], **output}
