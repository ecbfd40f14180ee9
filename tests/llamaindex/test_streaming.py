"""llamaindex_openrag/run.py: what a streaming response holds, and when; stopping in the middle."""

import asyncio

import pytest
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.schema import QueryBundle

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import Draft, Gate, Token
from tests.fakes import tokens
from tests.llamaindex.fakes import FakeStreamingGenerator, bridges

LONG = {"b1": (Token("opened in 1893", -0.1),)}


def engine(generator: FakeStreamingGenerator, **settings: object) -> OpenRAGQueryEngine:
    return OpenRAGQueryEngine(bridges(generator, **settings), streaming=True)


def test_one_passage_is_answered_live() -> None:
    generator = FakeStreamingGenerator(answers=LONG)
    response = engine(generator, top_k=1).query("When?")
    assert isinstance(response, StreamingResponse)
    assert [node.node_id for node in response.source_nodes] == ["b1"]
    assert response.metadata is not None
    assert response.metadata["gate"]["mode"] == "always"
    assert not generator.streams  # sources come before the first token
    assert list(response.response_gen) == ["opened ", "in ", "1893"]
    assert response.metadata["grounded"] is True
    assert response.metadata["candidates"][0]["text"] == "opened in 1893"


def test_where_no_text_is_certain_the_answer_comes_in_one_piece() -> None:
    response = engine(FakeStreamingGenerator(answers=LONG)).query("When?")
    assert isinstance(response, StreamingResponse)
    assert list(response.response_gen) == ["opened in 1893"]
    assert [node.score for node in response.source_nodes] == pytest.approx([0.9, 0.2])


def test_an_answer_from_memory_is_live_and_has_no_sources() -> None:
    generator = FakeStreamingGenerator(drafts={"When?": Draft("In 1893.", tokens(0.9))})
    response = engine(generator, gate=Gate("never")).query("When?")
    assert isinstance(response, StreamingResponse)
    assert generator.streams[0].given == 1
    assert list(response.response_gen) == ["In ", "1893."]
    assert response.source_nodes == []


def test_its_text_can_be_had_whole() -> None:
    response = engine(FakeStreamingGenerator(answers=LONG), top_k=1).query("When?")
    assert str(response) == "opened in 1893"
    assert isinstance(response, StreamingResponse)
    assert response.get_response().source_nodes[0].node_id == "b1"


def test_nodes_that_are_found_are_read_live_too() -> None:
    live = engine(FakeStreamingGenerator(answers=LONG))
    bundle = QueryBundle("When?")
    nodes = live.retrieve(bundle)
    response = live.synthesize(bundle, nodes[:1], additional_source_nodes=nodes[1:])
    assert isinstance(response, StreamingResponse)
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert list(response.response_gen) == ["opened ", "in ", "1893"]
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]


async def test_event_loops_are_served_alike() -> None:
    live = engine(FakeStreamingGenerator(answers=LONG), top_k=1)
    response = await live.aquery("When?")
    assert isinstance(response, AsyncStreamingResponse)
    assert response.source_nodes[0].node_id == "b1"
    assert [text async for text in response.async_response_gen()] == ["opened ", "in ", "1893"]
    assert response.metadata is not None
    assert response.metadata["grounded"] is True


def test_closing_the_stream_stops_the_model() -> None:
    generator = FakeStreamingGenerator(answers=LONG)
    response = engine(generator, top_k=1).query("When?")
    assert isinstance(response, StreamingResponse)
    assert next(response.response_gen) == "opened "
    response.response_gen.close()
    assert generator.streams[0].cancelled
    assert generator.streams[0].given == 1


async def test_cancelling_the_task_stops_the_model() -> None:
    generator = FakeStreamingGenerator(answers=LONG, endless=True)
    response = await engine(generator, top_k=1).aquery("When?")
    assert isinstance(response, AsyncStreamingResponse)
    shown: list[str] = []
    first = asyncio.Event()

    async def read() -> None:
        async for text in response.async_response_gen():
            shown.append(text)
            first.set()

    task = asyncio.create_task(read())
    await first.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shown == ["opened "]
    assert generator.streams[0].cancelled


async def test_a_stream_that_nobody_reads_costs_nothing() -> None:
    generator = FakeStreamingGenerator(answers=LONG)
    live = engine(generator, top_k=1)
    response = live.query("When?")
    del response
    aresponse = await live.aquery("When?")
    del aresponse
    await asyncio.sleep(0)
    assert generator.calls == []
    remembering = FakeStreamingGenerator(drafts={"When?": Draft("In 1893.", tokens(0.9))})
    response = engine(remembering, gate=Gate("never")).query("When?")
    del response
    assert remembering.streams[0].cancelled  # it had begun, to find out that there are no sources
