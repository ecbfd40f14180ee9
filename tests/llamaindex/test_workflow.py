"""llamaindex_openrag/workflow.py: the pipeline as steps, with their events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, Event, JsonSerializer, StartEvent, StopEvent, step

from llamaindex_openrag import (
    CandidateWrittenEvent,
    DecidedEvent,
    LlamaIndexChat,
    OpenRAGWorkflow,
    QuestionEvent,
    RetrievedEvent,
    TextEvent,
)
from openrag_core import ConfigError, Decision, Draft, Gate, OpenRAG, QuestionError, Token
from openrag_core.condenser import ChatCondenser
from openrag_core.retrieval import MultihopRetriever
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, tokens
from tests.llamaindex.fakes import BRIDGE, FakeStreamingGenerator, ScriptedLLM, bridges

LONG = {"b1": (Token("opened in 1893", -0.1),)}


async def told(workflow: OpenRAGWorkflow, **given: Any) -> tuple[Any, list[Event]]:
    handler = workflow.run(**given)
    events = [event async for event in handler.stream_events()]
    assert isinstance(events.pop(), StopEvent)
    return await handler, events


async def test_it_answers_with_sources_and_tells_of_its_steps() -> None:
    response, events = await told(OpenRAGWorkflow(bridges()), question="When?")
    assert str(response) == "1893"
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert response.metadata["grounded"] is True
    decided, retrieved, *candidates, text = events
    assert decided == DecidedEvent(
        question="When?", decision=Decision(retrieve=True, mode="always"), draft=None
    )
    assert isinstance(retrieved, RetrievedEvent)
    assert [node.score for node in retrieved.nodes] == [0.9, 0.2]
    assert [(c.text, c.node_ids) for c in candidates if isinstance(c, CandidateWrittenEvent)] == [
        ("1893", ["b1"]),
        ("1912", ["f1"]),
    ]
    assert text == TextEvent(text="1893")


async def test_a_draft_that_was_not_sure_enough_is_told() -> None:
    drafts = {"When?": Draft("maybe", tokens(0.2))}
    rag = bridges(FakeGenerator(drafts=drafts), gate=Gate("f_minp", 0.5))
    response, _ = await told(OpenRAGWorkflow(rag), question="When?")
    assert str(response) == "1893"
    assert response.metadata["draft"] == "maybe"


async def test_text_is_streamed_where_it_is_certain() -> None:
    rag = bridges(FakeStreamingGenerator(answers=LONG), top_k=1)
    _, events = await told(OpenRAGWorkflow(rag), query="When?")
    assert [e.text for e in events if isinstance(e, TextEvent)] == ["opened ", "in ", "1893"]


async def test_an_answer_from_memory_needs_no_nodes() -> None:
    generator = FakeGenerator(drafts={"When?": Draft("In 1893.", tokens(0.9))})
    rag = bridges(generator, gate=Gate("f_minp", 0.5))
    response, events = await told(OpenRAGWorkflow(rag), question="When?")
    assert (str(response), response.source_nodes) == ("In 1893.", [])
    assert response.metadata["gate"]["value"] == pytest.approx(0.9)
    assert [type(event) for event in events] == [DecidedEvent, TextEvent]
    generator.drafts = {"When?": Draft("Perhaps.", tokens(0.1))}
    response, _ = await told(OpenRAGWorkflow(rag), question="When?")
    assert str(response) == "1893"
    assert response.metadata["gate"]["value"] == pytest.approx(0.1)  # the gate was asked once


async def test_a_question_is_read_in_its_conversation() -> None:
    llm = ScriptedLLM(replies=["When was the bridge opened?"])
    rag = bridges(condenser=ChatCondenser(LlamaIndexChat(llm)))
    history = [
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="user", content="Is there a bridge?"),
        ChatMessage(role="assistant", content="Yes."),
        ChatMessage(role="tool", content="Bridge: yes"),
    ]
    response, events = await told(OpenRAGWorkflow(rag), question="When?", chat_history=history)
    assert isinstance(events[0], DecidedEvent)
    assert events[0].question == "When was the bridge opened?"
    assert response.metadata["question"] == "When was the bridge opened?"
    assert llm.asked[0].endswith(
        "User: Is there a bridge?\nAssistant: Yes.\nUser: When?\nMeans:\nassistant: "
    )
    await told(OpenRAGWorkflow(rag), question="When?")
    assert len(llm.asked) == 1


@pytest.mark.parametrize("given", [{}, {"input": "When?"}, {"question": "When?", "top_k": 3}])
async def test_other_inputs_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"takes question \(or query\) and chat_history"):
        OpenRAGWorkflow(bridges()).run(**given)


class OwnQuestionEvent(QuestionEvent):
    """LlamaIndex gives events to steps by their very class."""


async def test_an_event_that_no_step_waits_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="waits for a OwnQuestionEvent"):
        OpenRAGWorkflow(bridges()).run(start_event=OwnQuestionEvent(question="When?"))
    with pytest.raises(ConfigError, match=r"waits for a StartEvent: give .* or a QuestionEvent"):
        OpenRAGWorkflow(bridges()).run(start_event=StartEvent())
    assert str(await OpenRAGWorkflow(bridges()).run(start_event=QuestionEvent(query="When?")))


async def test_questions_that_cannot_be_answered_are_refused() -> None:
    with pytest.raises(QuestionError, match="empty"):
        await OpenRAGWorkflow(bridges()).run(question=" ")
    history = [ChatMessage(role="user", content="Is there a bridge?")]
    with pytest.raises(ConfigError, match="needs a condenser"):
        await OpenRAGWorkflow(bridges()).run(question="When?", chat_history=history)


def test_chains_are_not_taken_apart() -> None:
    retriever = MultihopRetriever(FakeRetriever([BRIDGE]), reranker=FakeReranker({"b1": 0.9}))
    with pytest.raises(ConfigError, match="hops=2 makes chains"):
        OpenRAGWorkflow(OpenRAG(FakeGenerator(), retriever, hops=2))


def test_its_graph_is_whole() -> None:
    workflow = OpenRAGWorkflow(bridges())
    assert workflow.validate() is False  # nobody is asked in the middle
    assert workflow.start_event_class is QuestionEvent
    assert {event.__name__ for event in workflow.events} >= {"DecidedEvent", "RetrievedEvent"}


class Elsewhere(OpenRAGWorkflow):
    """Finds its nodes somewhere else."""

    @step
    async def retrieve(self, ctx: Context, ev: DecidedEvent) -> RetrievedEvent | StopEvent:
        node = NodeWithScore(node=TextNode(id_="n1", text="1953"), score=1.0)
        retrieved = RetrievedEvent(question=ev.question, decision=ev.decision, nodes=[node])
        ctx.write_event_to_stream(retrieved)
        return retrieved


async def test_a_step_can_be_replaced() -> None:
    response, _ = await told(Elsewhere(bridges()), question="When?")
    assert str(response) == "1953"
    assert [node.node_id for node in response.source_nodes] == ["n1"]


def test_events_can_be_stored() -> None:
    decision = Decision(retrieve=True, mode="f_minp", value=0.4, threshold=0.5)
    json = JsonSerializer()
    for event in (
        QuestionEvent(query="When?", chat_history=[ChatMessage(role="user", content="Hello")]),
        DecidedEvent(question="When?", decision=decision, draft=Draft("In", tokens(0.4))),
        CandidateWrittenEvent(text="1953", total=0.9, node_ids=["n1"]),
        TextEvent(text="1953"),
    ):
        assert json.deserialize(json.serialize(event)) == event
    assert issubclass(QuestionEvent, StartEvent)


async def test_cancelling_a_run_stops_the_model() -> None:
    generator = FakeStreamingGenerator(answers=LONG, endless=True)
    handler = OpenRAGWorkflow(bridges(generator, top_k=1)).run(question="When?")
    async for event in handler.stream_events():
        if isinstance(event, TextEvent):
            break
    await handler.cancel_run()
    for _ in range(50):
        await asyncio.sleep(0.01)
        if generator.streams[0].cancelled:
            break
    assert generator.streams[0].cancelled
