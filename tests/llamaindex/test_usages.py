"""The engine where LlamaIndex's users have one: tools, routers, sub questions, chats, agents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.base_selector import (
    BaseSelector,
    MultiSelection,
    SelectorResult,
    SingleSelection,
)
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import OpenRAG, Passage, Token
from tests.fakes import FakeGenerator, FakeRetriever
from tests.llamaindex.fakes import FakeStreamingGenerator, ScriptedLLM, bridges


@pytest.fixture
def tool() -> QueryEngineTool:
    return QueryEngineTool.from_defaults(
        OpenRAGQueryEngine(bridges()), name="bridges", description="When bridges were opened."
    )


def ferries() -> QueryEngineTool:
    passage = Passage(id="f2", text="25 minutes", title="Timetable", retrieval_score=0.7)
    rag = OpenRAG(FakeGenerator(), FakeRetriever([passage]))
    return QueryEngineTool.from_defaults(OpenRAGQueryEngine(rag), name="ferries")


def ids(response: Any) -> list[str]:  # noqa: ANN401  (any kind of response)
    return [node.node_id for node in response.source_nodes]


async def test_it_is_a_tool_whose_sources_survive(tool: QueryEngineTool) -> None:
    for output in (tool.call("When?"), await tool.acall(input="When?")):
        assert output.content == "1893"
        assert ids(output.raw_output) == ["b1", "f1"]


class Questions(BaseQuestionGenerator):
    def generate(self, tools: Sequence[ToolMetadata], query: QueryBundle) -> list[SubQuestion]:
        return [
            SubQuestion(sub_question=f"{query.query_str} ({tool.name})", tool_name=tool.get_name())
            for tool in tools
        ]

    async def agenerate(
        self, tools: Sequence[ToolMetadata], query: QueryBundle
    ) -> list[SubQuestion]:
        return self.generate(tools, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: dict[str, Any]) -> None:
        """There are none."""


def sub_questions(tool: QueryEngineTool) -> SubQuestionQueryEngine:
    return SubQuestionQueryEngine.from_defaults(
        [tool, ferries()],
        llm=MockLLM(),
        question_gen=Questions(),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        verbose=False,
    )


async def test_sub_questions_are_answered_in_one_event_loop(tool: QueryEngineTool) -> None:
    response = await sub_questions(tool).aquery("When?")
    assert "Sub question: When? (bridges)\nResponse: 1893" in str(response)
    assert "Sub question: When? (ferries)\nResponse: 25 minutes" in str(response)
    assert ids(response)[-3:] == ["b1", "f1", "f2"]


def test_and_in_event_loops_of_several_threads(tool: QueryEngineTool) -> None:
    engine = sub_questions(tool)

    def ask(number: int) -> str:
        if number % 2:
            return str(engine.query(f"When {number}?"))  # it makes an event loop of its own
        return str(asyncio.run(engine.aquery(f"When {number}?")))

    with ThreadPoolExecutor(4) as threads:
        for number, text in enumerate(threads.map(ask, range(8))):
            assert f"When {number}? (bridges)\nResponse: 1893" in text


class Chosen(BaseSelector):
    def __init__(self, *places: int) -> None:
        self._places = places

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        assert len(choices) == 2
        assert query.query_str == "When?"
        return MultiSelection(
            selections=[SingleSelection(index=place, reason="told so") for place in self._places]
        )

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: dict[str, Any]) -> None:
        """There are none."""


async def test_a_router_chooses_it(tool: QueryEngineTool) -> None:
    router = RouterQueryEngine.from_defaults([ferries(), tool], llm=MockLLM(), selector=Chosen(1))
    for response in (router.query("When?"), await router.aquery("When?")):
        assert str(response) == "1893"
        assert ids(response) == ["b1", "f1"]
        assert response.metadata is not None
        assert response.metadata["grounded"] is True
        assert response.metadata["selector_result"].ind == 1


async def test_a_router_joins_it_with_another(tool: QueryEngineTool) -> None:
    router = RouterQueryEngine.from_defaults(
        [ferries(), tool], llm=MockLLM(), selector=Chosen(0, 1)
    )
    for response in (router.query("When?"), await router.aquery("When?")):
        assert "25 minutes" in str(response)
        assert "1893" in str(response)
        assert ids(response) == ["f2", "b1", "f1"]


def chat(llm: ScriptedLLM, *, streaming: bool) -> CondenseQuestionChatEngine:
    answers = {"b1": (Token("opened in 1893", -0.1),)}
    rag = bridges(FakeStreamingGenerator(answers=answers), top_k=1)
    return CondenseQuestionChatEngine.from_defaults(
        OpenRAGQueryEngine(rag, streaming=streaming),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(token_limit=1000),
    )


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(replies=["When was the bridge opened?"])


async def test_a_chat_asks_it_whole_questions(llm: ScriptedLLM) -> None:
    engine = chat(llm, streaming=False)
    assert str(engine.chat("Is there a bridge?")) == "opened in 1893"
    response = await engine.achat("When was it opened?")
    assert str(response) == "opened in 1893"
    assert response.sources[0].raw_input == {"query": "When was the bridge opened?"}
    assert ids(response) == ["b1"]
    assert [message.content for message in engine.chat_history] == [
        "Is there a bridge?",
        "opened in 1893",
        "When was it opened?",
        "opened in 1893",
    ]


def test_a_chat_streams_with_its_sources(llm: ScriptedLLM) -> None:
    engine = chat(llm, streaming=True)
    response = engine.stream_chat("When was it opened?")
    assert ids(response) == ["b1"]
    assert list(response.response_gen) == ["opened ", "in ", "1893"]
    assert engine.chat_history[-1].content == "opened in 1893"


async def test_a_chat_streams_in_event_loops(llm: ScriptedLLM) -> None:
    engine = chat(llm, streaming=True)
    response = await engine.astream_chat("When was it opened?")
    assert [text async for text in response.async_response_gen()] == ["opened ", "in ", "1893"]
    assert ids(response.sources[0].raw_output) == ["b1"]
    await asyncio.sleep(0)
    assert engine.chat_history[-1].content == "opened in 1893"


def function_calling(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """Call the tool once, then repeat what it said."""
    if messages[-1].role == MessageRole.TOOL:
        return ChatMessage(role="assistant", content=f"It was {messages[-1].content}.")
    call = ToolCallBlock(
        tool_call_id="1", tool_name="bridges", tool_kwargs={"input": messages[-1].content}
    )
    return ChatMessage(role="assistant", blocks=[call])


# Of LlamaIndex's own agents: they look at every attribute of themselves, and whether they run.
agents = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)


async def calls_of(agent: FunctionAgent | ReActAgent) -> tuple[str, list[ToolCallResult]]:
    handler = agent.run("When was the bridge opened?")
    calls = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    return str(await handler), calls


@agents
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_calling_agent_gets_sources_back(
    tool: QueryEngineTool, streaming: bool
) -> None:
    llm = MockFunctionCallingLLM(response_generator=function_calling, is_chat_model=True)
    agent = FunctionAgent(tools=[tool], llm=llm, streaming=streaming)
    text, calls = await calls_of(agent)
    assert text == "It was 1893."
    assert calls[0].tool_kwargs == {"input": "When was the bridge opened?"}
    assert ids(calls[0].tool_output.raw_output) == ["b1", "f1"]
    assert calls[0].tool_output.raw_output.metadata["grounded"] is True


@agents
async def test_a_reasoning_agent_gets_sources_back(tool: QueryEngineTool) -> None:
    llm = ScriptedLLM(
        replies=[
            'Thought: I look it up.\nAction: bridges\nAction Input: {"input": "When?"}',
            "Thought: I can answer without using any more tools.\nAnswer: It was 1893.",
        ]
    )
    text, calls = await calls_of(ReActAgent(tools=[tool], llm=llm))
    assert text == "It was 1893."
    assert "Observation: 1893" in llm.asked[1]
    assert ids(calls[0].tool_output.raw_output) == ["b1", "f1"]


def test_a_streaming_engine_is_a_tool_too() -> None:
    rag = bridges(FakeStreamingGenerator(), top_k=1)
    tool = QueryEngineTool.from_defaults(OpenRAGQueryEngine(rag, streaming=True), name="bridges")
    assert tool.call("When?").content == "1893"
