"""langchain_openrag/graph.py: the pipeline as a graph that remembers."""

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_openrag.graph import build_graph
from openrag_core import (
    ChatCondenser,
    ConfigError,
    Draft,
    Gate,
    Message,
    OpenRAG,
    Passage,
    QuestionError,
    Reply,
)
from tests.core.test_pipeline_hops import FakeChains
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, tokens

BRIDGE = Passage(id="b1", text="1893", title="Bridge", source="b.md", retrieval_score=0.5)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


class Echo:
    """Says the last thing that was said before the question, and the question."""

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        return [Reply(one[-1].text.splitlines()[-3] + " / sure") for one in conversations]


def rag(**settings: Any) -> OpenRAG:
    drafts = {"sure": Draft("memory", tokens(0.9)), "unsure": Draft("maybe", tokens(0.2))}
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2})
    return OpenRAG(
        FakeGenerator(drafts=drafts), FakeRetriever([FERRY, BRIDGE]), reranker, **settings
    )


def asked(question: str) -> Any:  # noqa: ANN401
    return {"messages": [HumanMessage(question)]}


async def test_it_retrieves_where_the_gate_says_so() -> None:
    graph = build_graph(rag(gate=Gate("f_minp", 0.5)))
    for state in (graph.invoke(asked("unsure")), await graph.ainvoke(asked("unsure"))):
        assert state["answer"] == state["messages"][-1].content == "1893"
        assert isinstance(state["messages"][-1], AIMessage)
        assert [document.id for document in state["context"]] == ["b1", "f1"]
        assert state["gate"] == {
            "retrieve": True,
            "mode": "f_minp",
            "value": pytest.approx(0.2),
            "threshold": 0.5,
            "probability": None,
        }
        assert (state["draft"], state["grounded"], state["abstained"]) == ("maybe", True, False)
        assert [one["answer"] for one in state["candidates"]] == ["1893", "1912"]


async def test_it_answers_from_memory_where_the_gate_stays_shut() -> None:
    pipeline = rag(gate=Gate("f_minp", 0.5))
    graph = build_graph(pipeline)
    for state in (graph.invoke(asked("sure")), await graph.ainvoke(asked("sure"))):
        assert state["messages"][-1].content == state["answer"] == "memory"
        assert (state["context"], state["grounded"]) == ([], False)
        assert state["confidence"] == pytest.approx(0.9)
    assert pipeline.retriever.calls == []  # type: ignore[attr-defined]


async def test_progress_is_streamed() -> None:
    graph = build_graph(rag(gate=Gate("f_minp", 0.5)))
    known: Any = list(graph.stream(asked("sure"), stream_mode="custom"))[-1]
    assert (known["node"], known["answer"], known["draft"]) == ("decide", "memory", "memory")
    told: list[Any] = list(graph.stream(asked("unsure"), stream_mode="custom"))
    assert [(one.pop("node"), *one) for one in told] == [
        ("condense", "question"),
        ("decide", "gate", "draft"),
        ("retrieve", "context"),
        ("write", "candidates"),
        ("write", "candidates"),
        (
            *("write", "question", "answer", "confidence", "probability"),
            *("grounded", "abstained", "truncated"),
        ),
    ]
    again: list[Any] = [one async for one in graph.astream(asked("unsure"), stream_mode="custom")]
    assert [{k: v for k, v in one.items() if k != "node"} for one in again] == told


def test_candidates_are_not_streamed_as_messages() -> None:
    graph = build_graph(rag())
    told: list[Any] = list(graph.stream(asked("When?"), stream_mode="messages"))
    assert [message.content for message, _ in told] == ["1893"]


async def test_a_thread_remembers_its_conversation() -> None:
    pipeline = rag(condenser=ChatCondenser(Echo()))
    graph = build_graph(pipeline, checkpointer=InMemorySaver())
    one: Any = {"configurable": {"thread_id": "one"}}
    graph.invoke(asked("When?"), one)
    state = graph.invoke(asked("And the ferry?"), one)
    assert state["question"] == "Assistant: 1893 / sure"
    assert [message.content for message in state["messages"]] == [
        "When?",
        "1893",
        "And the ferry?",
        "1893",
    ]
    assert state["candidates"][0]["answer"] == "1893"  # of this turn alone
    other = await graph.ainvoke(asked("When?"), {"configurable": {"thread_id": "two"}})
    assert (other["question"], len(other["messages"])) == ("When?", 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(QuestionError, match="no human message"):
        build_graph(rag()).invoke({"messages": []})
    chained = OpenRAG(FakeGenerator(), FakeChains([BRIDGE]), hops=2)
    with pytest.raises(ConfigError, match="hops=2 asks for chains"):
        build_graph(chained)
