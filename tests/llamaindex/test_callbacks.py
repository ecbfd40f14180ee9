"""llamaindex_openrag/callbacks.py: which events LlamaIndex hears of, in which tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import Draft, Gate, OpenRAG, Token
from tests.fakes import FakeGenerator, FakeRetriever, tokens
from tests.llamaindex.fakes import FakeStreamingGenerator, bridges

Payload = dict[str, Any]


class Recorder(BaseCallbackHandler):
    """Every event, with the name of its parent."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.names: dict[str | None, str] = {"root": "root"}
        self.began: list[tuple[str, str]] = []
        self.payloads: dict[str, tuple[Payload, Payload]] = {}
        self.ended: list[str] = []

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: Payload | None = None,
        event_id: str = "",
        parent_id: str = "",
        **_: Any,
    ) -> str:
        self.names[event_id] = event_type.value
        self.began.append((event_type.value, self.names[parent_id]))
        self.payloads[event_type.value] = (payload or {}, {})
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: Payload | None = None,
        event_id: str = "",
        **_: Any,
    ) -> None:
        assert self.names[event_id] == event_type.value
        self.ended.append(event_type.value)
        self.payloads[event_type.value][1].update(payload or {})

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing."""

    def end_trace(
        self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None
    ) -> None:
        """Nothing."""


class Listener(BaseEventHandler):
    """Every event of the instrumentation."""

    heard: list[BaseEvent] = []  # noqa: RUF012  (pydantic copies it)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.heard.append(event)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    root_dispatcher.add_event_handler(listener)
    yield listener
    root_dispatcher.event_handlers.remove(listener)


def engine(rag: OpenRAG, recorder: Recorder, *, streaming: bool = False) -> OpenRAGQueryEngine:
    return OpenRAGQueryEngine(
        rag, streaming=streaming, callback_manager=CallbackManager([recorder])
    )


READ = [
    ("query", "root"),
    ("retrieve", "query"),
    ("reranking", "query"),
    ("synthesize", "query"),
    ("llm", "synthesize"),
]


def test_stages_are_children_of_the_query(recorder: Recorder) -> None:
    engine(bridges(), recorder).query("When?")
    assert recorder.began == READ
    assert recorder.ended == ["retrieve", "reranking", "llm", "synthesize", "query"]


async def test_in_event_loops_too(recorder: Recorder) -> None:
    await engine(bridges(), recorder).aquery("When?")
    assert recorder.began == READ
    assert recorder.ended == ["retrieve", "reranking", "llm", "synthesize", "query"]


def test_they_carry_what_went_in_and_came_out(recorder: Recorder) -> None:
    response = engine(bridges(top_k=1), recorder).query("When?")
    asked, found = recorder.payloads["retrieve"]
    assert asked[EventPayload.QUERY_STR] == "When?"
    assert [node.node_id for node in found[EventPayload.NODES]] == ["f1", "b1"]
    before, after = recorder.payloads["reranking"]
    assert [node.score for node in before[EventPayload.NODES]] == [0.4, 0.5]
    assert (before[EventPayload.TOP_K], before[EventPayload.MODEL_NAME]) == (1, "FakeReranker")
    assert [node.score for node in after[EventPayload.NODES]] == [0.9]
    asked, written = recorder.payloads["llm"]
    assert asked[EventPayload.PROMPT] == "When?"
    assert written[EventPayload.COMPLETION].text == "1893"
    assert written[EventPayload.ADDITIONAL_KWARGS]["seconds"] >= 0
    assert recorder.payloads["synthesize"][1][EventPayload.RESPONSE] == response
    assert recorder.payloads["query"][1][EventPayload.RESPONSE] == response


def test_a_stream_ends_its_synthesis_when_its_text_ends(recorder: Recorder) -> None:
    streaming = engine(bridges(FakeStreamingGenerator(), top_k=1), recorder, streaming=True)
    response = streaming.query("When?")
    assert recorder.ended == ["retrieve", "reranking", "query"]
    assert str(response) == "1893"
    assert recorder.began == READ
    assert recorder.ended[3:] == ["llm", "synthesize"]
    again = recorder.began.copy()
    str(streaming.query("When?"))
    assert recorder.began == [*again, *READ]  # the caller's own events were left as they were


async def test_an_asynchronous_stream_too(recorder: Recorder) -> None:
    rag = bridges(FakeStreamingGenerator(), top_k=1)
    response = await engine(rag, recorder, streaming=True).aquery("When?")
    assert [text async for text in response.response_gen] == ["1893"]  # type: ignore[union-attr]
    assert recorder.began == READ
    assert recorder.ended[3:] == ["llm", "synthesize"]


def test_a_draft_is_a_call_of_the_model(recorder: Recorder) -> None:
    generator = FakeGenerator(drafts={"When?": Draft("1893", tokens(0.9))})
    engine(bridges(generator, gate=Gate("f_minp", 0.5)), recorder).query("When?")
    assert recorder.began == [("query", "root"), ("llm", "query")]
    assert recorder.payloads["llm"][1][EventPayload.COMPLETION].text == "1893"


class Failing(FakeGenerator):
    def write(self, *_: Any) -> Any:  # noqa: ANN401
        raise ZeroDivisionError


def test_a_failure_ends_what_has_begun(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError):
        engine(bridges(Failing()), recorder).query("When?")
    assert recorder.ended == ["retrieve", "reranking", "llm", "synthesize", "query"]
    for name in ("llm", "synthesize"):
        error = recorder.payloads[name][1][EventPayload.EXCEPTION]
        assert isinstance(error, ZeroDivisionError)


async def test_a_stream_that_is_given_up_ends_what_has_begun(recorder: Recorder) -> None:
    """And stops the model, though handlers hold on to the error and all that hangs on it."""
    generator = FakeStreamingGenerator(answers={"b1": (Token("in 1893", -0.1),)})
    streaming = engine(bridges(generator, top_k=1), recorder, streaming=True)
    stream: Any = streaming.query("When?").response_gen  # type: ignore[union-attr]
    next(stream)
    stream.close()
    assert recorder.ended == ["retrieve", "reranking", "query", "llm", "synthesize"]
    astream: Any = (await streaming.aquery("When?")).response_gen  # type: ignore[union-attr]
    await anext(astream)
    await astream.aclose()
    assert recorder.ended[5:] == recorder.ended[:5]
    assert [one.cancelled for one in generator.streams] == [True, True]


def test_the_parted_steps_tell_of_themselves(recorder: Recorder) -> None:
    parted = engine(bridges(), recorder)
    bundle = QueryBundle("When?")
    nodes = parted.retrieve(bundle)
    assert recorder.began == [("retrieve", "root")]
    parted.synthesize(bundle, nodes)
    assert recorder.began[1:] == [
        ("reranking", "root"),
        ("synthesize", "root"),
        ("llm", "synthesize"),
    ]
    assert recorder.payloads["reranking"][0][EventPayload.NODES] == nodes


class Broken(FakeRetriever):
    def retrieve(self, *_: Any) -> Any:  # noqa: ANN401
        raise ZeroDivisionError


def test_a_search_that_fails_is_over(recorder: Recorder) -> None:
    parted = engine(OpenRAG(FakeGenerator(), Broken([])), recorder)
    with pytest.raises(ZeroDivisionError):
        parted.retrieve(QueryBundle("When?"))
    assert recorder.ended == ["retrieve"]


def test_the_instrumentation_hears_the_same(recorder: Recorder, listener: Listener) -> None:
    response = engine(bridges(), recorder).query("When?")
    names = [event.class_name() for event in listener.heard]
    assert names == [
        "QueryStartEvent",
        "RetrievalStartEvent",
        "RetrievalEndEvent",
        "ReRankStartEvent",
        "ReRankEndEvent",
        "SynthesizeStartEvent",
        "LLMCompletionStartEvent",
        "LLMCompletionEndEvent",
        "SynthesizeEndEvent",
        "QueryEndEvent",
    ]
    heard: dict[str, Any] = dict(zip(names, listener.heard, strict=True))
    assert [n.node_id for n in heard["RetrievalEndEvent"].nodes] == ["f1", "b1"]
    assert heard["ReRankStartEvent"].model_name == "FakeReranker"
    assert [n.node_id for n in heard["ReRankEndEvent"].nodes] == ["b1", "f1"]
    assert heard["LLMCompletionStartEvent"].prompt == "When?"
    assert heard["LLMCompletionStartEvent"].model_dict == {"model_name": "FakeGenerator"}
    assert heard["LLMCompletionEndEvent"].response.text == "1893\n\n1912"
    assert heard["SynthesizeEndEvent"].response == response
