"""The pipeline as a tool of agents, whose sources survive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict, Field

from langchain_openrag.output import RunnableOutput
from openrag_core import ConfigError, OpenRAG, OpenRAGError
from openrag_core.html import place

if TYPE_CHECKING:
    from langchain_openrag.runnable import OpenRAGRunnable

DESCRIPTION = (
    "Answers a question from the user's own documents and names the sources. "
    "Ask one whole question that can be understood without the conversation."
)
_REFUSED = "The tool takes one field, question, a string; ask again with that alone."


class ToolInput(BaseModel):
    """What the tool takes."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(description="The question, such as: Who opened the Velora Bridge?")


def create_openrag_tool(
    rag: OpenRAG | OpenRAGRunnable,
    *,
    name: str = "search_documents",
    description: str | None = None,
) -> BaseTool:
    """Make a tool.

    What an agent reads is the answer with its sources, numbered; the message's `artifact` is the
    whole output, as the runnable gives it. A call with other fields, and a question that cannot be
    answered, come back to the agent as a message of status "error" that says what to do.

    Args:
        rag: The pipeline.
        name: As the agent sees it.
        description: Of what the documents are about; it decides when an agent uses the tool.

    Raises:
        ConfigError: The runnable reads documents that it is given.
    """
    from langchain_openrag.runnable import OpenRAGRunnable  # noqa: PLC0415  (which makes tools)

    runnable = rag if isinstance(rag, OpenRAGRunnable) else OpenRAGRunnable(rag=rag)
    if runnable.context_key is not None:
        raise ConfigError(
            "an agent gives a question and no documents: make the tool of a runnable without "
            f"context_key; it is {runnable.context_key!r}"
        )

    def answer(question: str, config: RunnableConfig) -> tuple[str, RunnableOutput]:
        with _told():
            output = runnable.invoke(question, config)
        return _shown(output), output

    async def aanswer(question: str, config: RunnableConfig) -> tuple[str, RunnableOutput]:
        with _told():
            output = await runnable.ainvoke(question, config)
        return _shown(output), output

    return StructuredTool.from_function(
        func=answer,
        coroutine=aanswer,
        name=name,
        description=description or DESCRIPTION,
        args_schema=ToolInput,
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=_REFUSED,
    )


@contextmanager
def _told() -> Iterator[None]:
    """What our errors say is for the agent to read."""
    try:
        yield
    except OpenRAGError as error:
        raise ToolException(f"No answer: {error}") from error


def _shown(output: RunnableOutput) -> str:
    """The answer with what it rests on; an abstention names the nearest passages itself."""
    if output["abstained"] or not output["candidates"]:
        return output["answer"]
    sources = output["context"][: len(output["candidates"][0]["context"])]  # they come first
    lines = [f"[{n}] {_name(one)}" for n, one in enumerate(sources, start=1)]
    return "\n".join([output["answer"], "Sources:", *lines])


def _name(document: Document) -> str:
    metadata = document.metadata
    named = {name: str(metadata.get(name) or "") for name in ("title", "source")}
    return place({**named, "id": document.id, "metadata": metadata})
