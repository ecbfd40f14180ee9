"""The pipeline as a workflow, whose events and steps can be used in others."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import NodeWithScore
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from workflows.handler import WorkflowHandler

from llamaindex_openrag.messages import to_history
from llamaindex_openrag.nodes import to_node, to_passage
from llamaindex_openrag.response import to_response
from openrag_core import ConfigError, Decision, Draft, OpenRAG
from openrag_core.build import check_pipeline
from openrag_core.conversation import Conversation
from openrag_core.events import AnswerEvent, CandidateEvent, TokenEvent, rest_of


class QuestionEvent(StartEvent):
    """What `OpenRAGWorkflow.run` takes.

    Raises:
        ConfigError: There is no question, or another input.
    """

    question: str = Field(description='What is asked; "query" is another name for it.')
    chat_history: list[ChatMessage] = Field(
        default_factory=list, description="What was said before, the oldest first."
    )

    def __init__(self, **given: Any) -> None:
        if "query" in given and "question" not in given:
            given["question"] = given.pop("query")
        if given.keys() - {"question", "chat_history"} or "question" not in given:
            raise ConfigError(
                f"the workflow takes question (or query) and chat_history, and was given "
                f"{', '.join(sorted(given)) or 'nothing'}"
            )
        super().__init__(**given)


class DecidedEvent(Event):
    """The gate has decided."""

    question: str
    """It stands alone."""
    decision: Decision
    draft: Draft | None
    """Where one was written; there is one where nothing is to be retrieved."""


class RetrievedEvent(Event):
    """The nodes are found that an answer is to be written from."""

    question: str
    decision: Decision
    draft: Draft | None = None
    """Where the gate wrote one."""
    nodes: list[NodeWithScore]


class CandidateWrittenEvent(Event):
    """Streamed: an answer was written from a part of the nodes, perhaps the best one."""

    text: str
    total: float
    """What candidates are ranked by."""
    node_ids: list[str]


class TextEvent(Event):
    """Streamed: a piece of the answer; together they are the response.

    Below a text that was shown and is not believed after all stands what is said instead, which
    then is the response alone.
    """

    text: str


class OpenRAGWorkflow(Workflow):
    """decide -> retrieve -> answer, or decide -> answer from memory.

    `run(question=..., chat_history=...)` gives a `Response` with source nodes and metadata. All
    events but the first are also streamed. A subclass may replace a step.

    Args:
        rag: The pipeline; one with a condenser, if there is to be a history.
        timeout: Longest run, in seconds; None is no limit.
        **settings: Of `Workflow`.

    Raises:
        ConfigError: It is no pipeline, or reads chains of passages, which the steps would take
            apart.
    """

    def __init__(self, rag: OpenRAG, *, timeout: float | None = None, **settings: Any) -> None:
        super().__init__(timeout=timeout, **settings)
        if check_pipeline(rag).hops != 1:
            raise ConfigError(
                f"the workflow hands on single passages, and hops={rag.hops!r} makes chains of "
                "them: use OpenRAGQueryEngine, or hops=1"
            )
        self.rag = rag

    def run(
        self, ctx: Context | None = None, start_event: StartEvent | None = None, **given: Any
    ) -> WorkflowHandler:
        """Answer a question, in an event loop; see `QuestionEvent` for what it takes.

        Raises:
            ConfigError: There is no question, another input, or an event that no step waits for.
        """
        if start_event is not None and type(start_event) is not self.start_event_class:
            raise ConfigError(
                f"no step waits for a {type(start_event).__name__}: give question=..., or a "
                f"{self.start_event_class.__name__}"
            )
        return super().run(ctx, start_event, **given)

    @step
    async def decide(self, ctx: Context, ev: QuestionEvent) -> DecidedEvent:
        """Make the question stand alone, and ask the gate."""
        asked = Conversation(ev.question, to_history(ev.chat_history))
        question = await self.rag.acondense(asked)
        decision, draft = await self.rag.adecide(question)
        decided = DecidedEvent(question=question, decision=decision, draft=draft)
        ctx.write_event_to_stream(decided)
        return decided

    @step
    async def retrieve(self, ctx: Context, ev: DecidedEvent) -> RetrievedEvent | StopEvent:
        """Find and rank nodes, unless the draft is the answer."""
        if not ev.decision.retrieve:
            answer = self.rag.from_memory(ev.question, ev.decision, ev.draft)
            ctx.write_event_to_stream(TextEvent(text=answer.text))
            return StopEvent(result=to_response(answer))
        nodes = [to_node(passage) for passage in await self.rag.aretrieve(ev.question)]
        retrieved = RetrievedEvent(
            question=ev.question, decision=ev.decision, draft=ev.draft, nodes=nodes
        )
        ctx.write_event_to_stream(retrieved)
        return retrieved

    @step
    async def answer(self, ctx: Context, ev: RetrievedEvent) -> StopEvent:
        """Write an answer from each node, and keep the best."""
        shown = ""
        passages = [to_passage(node) for node in ev.nodes]
        reading = self.rag.astream_from(ev.question, passages, ev.decision)
        async with aclosing(reading) as events:
            async for event in events:
                match event:
                    case CandidateEvent(candidate=candidate):
                        ctx.write_event_to_stream(
                            CandidateWrittenEvent(
                                text=candidate.text,
                                total=candidate.total,
                                node_ids=[passage.id for passage in candidate.evidence],
                            )
                        )
                    case TokenEvent(text=text):
                        shown += text
                        ctx.write_event_to_stream(TextEvent(text=text))
                    case AnswerEvent(answer=answer):
                        if rest := rest_of(answer.text, shown):
                            ctx.write_event_to_stream(TextEvent(text=rest))
        return StopEvent(result=to_response(replace(answer, draft=ev.draft)))
