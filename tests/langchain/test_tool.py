"""langchain_openrag/tool.py: agents call it, and the sources come back."""

from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from langchain_openrag import OpenRAGRunnable, create_openrag_tool
from openrag_core import OpenRAG, Passage
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever

BRIDGE = Passage(id="b1", text="1893", title="Bridge", source="b.md")
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md")


def rag(best: float = 0.9) -> OpenRAG:
    reranker = FakeReranker({"b1": best, "f1": 0.2})
    return OpenRAG(FakeGenerator(), FakeRetriever([FERRY, BRIDGE]), reranker)


class TestUnit(ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return create_openrag_tool(rag())

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "When?"}


class TestIntegration(ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return create_openrag_tool(rag())

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "When?"}


def call(**args: object) -> dict[str, Any]:
    return {"name": "search_documents", "args": args, "id": "1", "type": "tool_call"}


class Caller(GenericFakeChatModel):
    """Calls the tool, then says what it read."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:  # noqa: ANN401
        assert [tool.name for tool in tools] == ["search_documents"]
        return self


async def test_an_agent_calls_it_and_keeps_the_sources() -> None:
    for asynchronous in (False, True):
        says = iter([AIMessage("", tool_calls=[call(question="When?")]), AIMessage("In 1893.")])
        agent = create_agent(Caller(messages=says), [create_openrag_tool(rag())])
        asked: Any = {"messages": [HumanMessage("When was the bridge opened?")]}
        state = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
        message = next(one for one in state["messages"] if isinstance(one, ToolMessage))
        assert message.content == "1893\nSources:\n[1] Bridge · b.md"
        assert [document.id for document in message.artifact["context"]] == ["b1", "f1"]
        assert message.artifact["grounded"]
        assert state["messages"][-1].content == "In 1893."


def test_another_text_of_the_same_id_is_no_source() -> None:
    other = replace(BRIDGE, text="1812", title="Causeway")
    pipeline = OpenRAG(FakeGenerator(), FakeRetriever([BRIDGE, other]), top_k=2)
    message = create_openrag_tool(pipeline).invoke(call(question="When?"))
    assert len(message.artifact["context"]) == 2
    assert message.content == "1893\nSources:\n[1] Bridge · b.md"


def test_its_schema_is_flat() -> None:
    tool = OpenRAGRunnable(rag=rag()).as_tool(name="ask", description="About bridges.")
    assert (tool.name, tool.description) == ("ask", "About bridges.")
    unnamed = OpenRAGRunnable(rag=rag()).as_tool(name=None)
    assert unnamed.name == create_openrag_tool(rag()).name
    schema = tool.tool_call_schema.model_json_schema()  # type: ignore[union-attr]
    assert list(schema["properties"]) == schema["required"] == ["question"]
    assert schema["properties"]["question"]["type"] == "string"
    with pytest.raises(TypeError, match="takes a question and nothing else"):
        OpenRAGRunnable(rag=rag()).as_tool(ToolMessage)


def test_a_call_with_other_fields_is_refused_in_words() -> None:
    tool = create_openrag_tool(rag())
    for args in (
        {"question": "When?", "k": 3},
        {"query": "When?"},
        {"question": {"text": "When?"}},
    ):
        message = tool.invoke(call(**args))
        assert message.status == "error"
        assert "one field, question" in message.content


async def test_a_question_that_cannot_be_answered_comes_back_in_words() -> None:
    tool = create_openrag_tool(rag())
    for message in (tool.invoke(call(question=" ")), await tool.ainvoke(call(question=" "))):
        assert message.content == "No answer: the question is empty: ask something"
        assert message.status == "error"
        assert message.artifact is None


def test_what_the_documents_do_not_tell_is_said() -> None:
    message = create_openrag_tool(rag(best=0.3)).invoke(call(question="When?"))
    assert message.content.startswith("The documents do not tell.")
    assert "Sources" not in message.content
    assert message.artifact["abstained"]
