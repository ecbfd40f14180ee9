"""llamaindex_openrag/spans.py: which spans LlamaIndex's instrumentation hears of, in which tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.dispatcher import instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import active_span_id
from llama_index_instrumentation.span_handlers import SimpleSpanHandler

from llamaindex_openrag import LlamaIndexChat, LlamaIndexRetriever, OpenRAGQueryEngine
from openrag_core import ChatGenerator, Draft, Gate, OpenRAG
from openrag_core.records import GateMode
from tests.fakes import FakeGenerator, tokens
from tests.llamaindex.fakes import FakeStreamingGenerator, ScriptedLLM, bridges

TREE = {
    ("FakeRetriever.retrieve", "OpenRAGQueryEngine._query"),
    ("FakeReranker.rerank", "OpenRAGQueryEngine._query"),
    ("OpenRAG.synthesize", "OpenRAGQueryEngine._query"),
    ("FakeGenerator.write", "OpenRAG.synthesize"),
    ("OpenRAGQueryEngine._query", "OpenRAGQueryEngine.query"),
    ("OpenRAGQueryEngine.query", ""),
}


class Spans(SimpleSpanHandler):
    """Spans by name, with what came of them and the events that belong to each."""

    ended: list[tuple[str, Any]] = []  # noqa: RUF012  (pydantic copies it)
    failed: list[tuple[str, BaseException | None]] = []  # noqa: RUF012
    tags: dict[str, Any] = {}  # noqa: RUF012

    def new_span(self, id_: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.tags[_name(id_)] = kwargs["tags"]
        return super().new_span(id_, *args, **kwargs)

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.ended.append((_name(id_), kwargs["result"]))
        return super().prepare_to_exit_span(id_, *args, **kwargs)

    def prepare_to_drop_span(self, id_: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.failed.append((_name(id_), kwargs["err"]))
        return super().prepare_to_drop_span(id_, *args, **kwargs)

    def tree(self) -> set[tuple[str, str]]:
        """Each span that is over, with the one around it."""
        assert not self.open_spans
        over = [*self.completed_spans, *self.dropped_spans]
        return {(_name(span.id_), _name(span.parent_id or "")) for span in over}


class Events(BaseEventHandler):
    """The span of each event."""

    heard: list[tuple[str, str]] = []  # noqa: RUF012  (pydantic copies it)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.heard.append((event.class_name(), _name(event.span_id or "")))


def _name(span_id: str) -> str:
    return span_id.partition("-")[0]


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    root_dispatcher.add_span_handler(spans)
    yield spans
    root_dispatcher.span_handlers.remove(spans)


@pytest.fixture
def events() -> Iterator[Events]:
    events = Events()
    root_dispatcher.add_event_handler(events)
    yield events
    root_dispatcher.event_handlers.remove(events)


def streaming(mode: GateMode) -> OpenRAGQueryEngine:
    generator = FakeStreamingGenerator(drafts={"When?": Draft("in 1893", tokens(0.9))})
    return OpenRAGQueryEngine(bridges(generator, top_k=1, gate=Gate(mode)), streaming=True)


@contextmanager
def span_of_the_caller() -> Iterator[str]:
    token = active_span_id.set("caller")
    try:
        yield "caller"
    finally:
        active_span_id.reset(token)


def test_every_stage_is_a_span_within_its_question(spans: Spans) -> None:
    response = OpenRAGQueryEngine(bridges()).query("When?")
    assert spans.tree() == TREE
    names, results = zip(*spans.ended, strict=True)
    assert names == (
        "FakeRetriever.retrieve",
        "FakeReranker.rerank",
        "FakeGenerator.write",
        "OpenRAG.synthesize",
        "OpenRAGQueryEngine._query",
        "OpenRAGQueryEngine.query",
    )
    found, ranked, written, answered, *_ = results
    assert [node.node_id for node in found] == ["f1", "b1"]
    assert [node.node_id for node in ranked] == ["b1", "f1"]
    assert written.text == "1893\n\n1912"
    assert answered == response


async def test_in_event_loops_too(spans: Spans) -> None:
    await OpenRAGQueryEngine(bridges()).aquery("When?")
    assert spans.tree() == {
        (name.replace("query", "aquery"), around.replace("query", "aquery"))
        for name, around in TREE
    }


def test_events_belong_to_the_span_of_their_stage(spans: Spans, events: Events) -> None:
    OpenRAGQueryEngine(bridges()).query("When?")
    assert events.heard == [
        ("QueryStartEvent", "OpenRAGQueryEngine.query"),
        ("RetrievalStartEvent", "FakeRetriever.retrieve"),
        ("RetrievalEndEvent", "FakeRetriever.retrieve"),
        ("ReRankStartEvent", "FakeReranker.rerank"),
        ("ReRankEndEvent", "FakeReranker.rerank"),
        ("SynthesizeStartEvent", "OpenRAG.synthesize"),
        ("LLMCompletionStartEvent", "FakeGenerator.write"),
        ("LLMCompletionEndEvent", "FakeGenerator.write"),
        ("SynthesizeEndEvent", "OpenRAG.synthesize"),
        ("QueryEndEvent", "OpenRAGQueryEngine.query"),
    ]
    assert len(spans.completed_spans) == len(TREE)


def test_a_draft_is_a_span_of_the_generator(spans: Spans) -> None:
    generator = FakeGenerator(drafts={"When?": Draft("1893", tokens(0.9))})
    OpenRAGQueryEngine(bridges(generator, gate=Gate("f_minp", 0.5))).query("When?")
    assert ("FakeGenerator.draft", "OpenRAGQueryEngine._query") in spans.tree()


def test_tags_reach_the_stages(spans: Spans) -> None:
    with instrument_tags({"session": "7"}):
        OpenRAGQueryEngine(bridges()).query("When?")
    assert spans.tags["FakeRetriever.retrieve"] == {"session": "7"}


class Failing(FakeGenerator):
    def write(self, *_: Any) -> Any:  # noqa: ANN401
        raise ZeroDivisionError("no paper")


def test_a_failure_drops_the_spans_that_are_open(spans: Spans, events: Events) -> None:
    with pytest.raises(ZeroDivisionError):
        OpenRAGQueryEngine(bridges(Failing())).query("When?")
    assert [name for name, _ in spans.failed] == [
        "Failing.write",
        "OpenRAG.synthesize",
        "OpenRAGQueryEngine._query",
        "OpenRAGQueryEngine.query",
    ]
    assert all(isinstance(error, ZeroDivisionError) for _, error in spans.failed)
    assert not spans.open_spans
    assert [name for name, _ in events.heard].count("SpanDropEvent") == len(spans.failed)


@pytest.mark.parametrize("mode", ["always", "never"])
def test_a_stream_leaves_the_callers_span_as_it_was(spans: Spans, mode: GateMode) -> None:
    """Though it goes on within its own when its text is read."""
    engine = streaming(mode)
    with span_of_the_caller() as around:
        response: Any = engine.query("When?")
        assert active_span_id.get() == around
        for _ in response.response_gen:
            assert active_span_id.get() == around
        assert active_span_id.get() == around
    if mode == "never":
        assert ("FakeStreamingGenerator.draft", "OpenRAGQueryEngine._query") in spans.tree()
    else:
        assert ("FakeStreamingGenerator.write", "OpenRAG.synthesize") in spans.tree()
        assert ("OpenRAG.synthesize", "OpenRAGQueryEngine._query") in spans.tree()


def test_the_parted_steps_leave_it_too(spans: Spans) -> None:
    engine, asked = streaming("always"), QueryBundle("When?")
    with span_of_the_caller() as around:
        response: Any = engine.synthesize(asked, engine.retrieve(asked))
        assert active_span_id.get() == around
        assert list(response.response_gen) == ["1893"]
        assert active_span_id.get() == around
    assert spans.tree() == {
        ("FakeRetriever.retrieve", around),
        ("FakeReranker.rerank", around),
        ("OpenRAG.synthesize", around),
        ("FakeStreamingGenerator.write", "OpenRAG.synthesize"),
    }


async def test_an_asynchronous_stream_leaves_it_too(spans: Spans) -> None:
    engine = streaming("never")
    run: Any = await engine.aquery("When?")
    assert active_span_id.get() is None
    assert "".join([text async for text in run.response_gen]) == "in 1893"
    assert active_span_id.get() is None
    assert ("FakeStreamingGenerator.draft", "OpenRAGQueryEngine._aquery") in spans.tree()


async def test_a_stream_that_is_given_up_leaves_none_open(spans: Spans) -> None:
    engine = streaming("never")
    stream: Any = engine.query("When?").response_gen  # type: ignore[union-attr]
    next(stream)
    stream.close()
    astream: Any = (await engine.aquery("When?")).response_gen  # type: ignore[union-attr]
    await anext(astream)
    await astream.aclose()
    assert [name for name, _ in spans.failed] == ["FakeStreamingGenerator.draft"] * 2
    assert not spans.open_spans


class Shelf(BaseRetriever):
    """A retriever of LlamaIndex's own."""

    def _retrieve(self, _: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(id_="b1", text="1893"), score=0.5)]


@pytest.fixture
def theirs() -> OpenRAG:
    """With a retriever and a model of LlamaIndex's own."""
    chat = LlamaIndexChat(ScriptedLLM(replies=["1893"]))
    return OpenRAG(ChatGenerator(chat), LlamaIndexRetriever(Shelf()))


def test_in_a_stream_it_is_too(spans: Spans, theirs: OpenRAG) -> None:
    str(OpenRAGQueryEngine(theirs, streaming=True).query("When?"))
    assert ("ScriptedLLM.complete", "ChatGenerator.write") in spans.tree()


async def test_in_an_asynchronous_stream_it_is_too(spans: Spans, theirs: OpenRAG) -> None:
    response: Any = await OpenRAGQueryEngine(theirs, streaming=True).aquery("When?")
    assert [text async for text in response.response_gen] == ["1893"]
    assert ("ScriptedLLM.complete", "ChatGenerator.write") in spans.tree()


def test_what_a_part_does_is_within_its_stage(spans: Spans) -> None:
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(Shelf()))
    OpenRAGQueryEngine(rag).query("When?")
    assert ("Shelf.retrieve", "LlamaIndexRetriever.retrieve") in spans.tree()


async def test_in_event_loops_it_is_too(spans: Spans) -> None:
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(Shelf()))
    await OpenRAGQueryEngine(rag).aquery("When?")
    assert ("Shelf.retrieve", "LlamaIndexRetriever.retrieve") in spans.tree()
