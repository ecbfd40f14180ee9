"""core/openrag_core/pipeline.py: whoever stops reading along stops the work."""

import asyncio
import gc
import logging
from collections.abc import Sequence
from contextlib import aclosing
from threading import Event as Flag

import pytest

from openrag_core import Draft, Gate, OpenRAG, Passage
from openrag_core.events import AnswerEvent, DraftEvent, Event, StageStarted, TokenEvent
from openrag_core.ports import Piece
from tests.core.test_pipeline import BRIDGE, SURE, UNSURE
from tests.core.test_stream import WORDS, rag, text, writing
from tests.fakes import FakeGenerator, FakeRetriever, FakeStreamingGenerator, FakeTexts

KINDS = ["write", "draft"]


def answering(kind: str) -> tuple[OpenRAG, FakeStreamingGenerator]:
    """A pipeline that shows what it reads, or a draft."""
    generator = writing()
    generator.drafts = {"When?": Draft("1893", WORDS)}
    return rag(generator, gate=Gate("always" if kind == "write" else "never")), generator


@pytest.mark.parametrize("kind", KINDS)
def test_closing_in_the_middle_of_a_text_stops_the_model(kind: str) -> None:
    pipeline, generator = answering(kind)
    events = pipeline.stream("When?")
    while not isinstance(next(events), TokenEvent):
        assert not any(stream.cancelled for stream in generator.streams)
    events.close()
    assert [(stream.cancelled, len(stream.pieces)) for stream in generator.streams] == [(True, 1)]


@pytest.mark.parametrize("kind", KINDS)
async def test_so_it_does_in_an_event_loop(kind: str) -> None:
    pipeline, generator = answering(kind)
    async with aclosing(pipeline.astream("When?")) as events:
        async for event in events:
            if isinstance(event, TokenEvent):
                break
    assert [(stream.cancelled, len(stream.pieces)) for stream in generator.streams] == [(True, 1)]


async def test_a_loop_that_is_left_without_closing_stops_the_model_too() -> None:
    pipeline, generator = answering("write")
    async for event in pipeline.astream("When?"):
        if isinstance(event, TokenEvent):
            break
    gc.collect()
    for _ in range(5):  # the event loop closes what was dropped
        await asyncio.sleep(0)
    assert [stream.cancelled for stream in generator.streams] == [True]


@pytest.mark.parametrize("steps", range(9))
async def test_it_can_be_closed_after_any_event(
    steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        pipeline, generator = answering(kind)
        events, again = pipeline.stream("When?"), pipeline.astream("When?")
        for _ in range(steps):
            next(events, None)
            await anext(again, None)
        events.close()
        await again.aclose()
        assert all(stream.cancelled for stream in generator.streams)
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Stuck(FakeTexts[object]):
    """Waits for a model that is at its first token."""

    waiting = False

    async def anext(self) -> Piece[object] | None:
        self.waiting = True
        await asyncio.Event().wait()
        raise AssertionError


async def test_cancelling_the_task_stops_a_model_that_is_waited_for() -> None:
    stuck = Stuck([])

    class Slow(FakeStreamingGenerator):
        def begin_write(self, *_: object) -> FakeTexts[object]:  # type: ignore[override]
            return stuck

    async def watch() -> None:
        async for _ in rag(Slow()).astream("When?"):
            pass

    task = asyncio.create_task(watch())
    while not stuck.waiting:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stuck.cancelled


class Ahead(FakeRetriever):
    """Is asked while the gate decides, takes its time, and fails at last."""

    local = True

    def __init__(self) -> None:
        super().__init__([BRIDGE])
        self.begun, self.go_on, self.done = Flag(), Flag(), Flag()

    def retrieve(self, *_: object) -> list[list[Passage]]:
        self.begun.set()
        assert self.go_on.wait(10)
        self.done.set()
        raise ConnectionError


class AfterTheSearch(FakeGenerator):
    """Drafts once the search has begun."""

    def __init__(self, search: Ahead, draft: Draft) -> None:
        super().__init__(drafts={"When?": draft})
        self.search = search

    def draft(self, questions: Sequence[str], settled: object = None) -> list[Draft]:
        assert self.search.begun.wait(10)
        return super().draft(questions, settled)  # type: ignore[arg-type]


def looked_up_ahead(draft: Draft) -> tuple[OpenRAG, Ahead]:
    search = Ahead()
    return OpenRAG(AfterTheSearch(search, draft), search, gate=Gate("f_minp", 0.5)), search


def test_closing_does_not_wait_for_a_search_that_was_made_ahead() -> None:
    pipeline, search = looked_up_ahead(UNSURE)
    events = pipeline.stream("When?")
    while not isinstance(next(events), DraftEvent):
        pass
    events.close()
    assert not search.done.is_set()
    search.go_on.set()
    assert search.done.wait(10)


@pytest.mark.parametrize("draft", [SURE, UNSURE])
async def test_nor_does_it_in_an_event_loop(draft: Draft, caplog: pytest.LogCaptureFixture) -> None:
    pipeline, search = looked_up_ahead(draft)
    events = pipeline.astream("When?")
    while not isinstance(await anext(events), DraftEvent):
        pass
    await events.aclose()
    assert not search.done.is_set()
    search.go_on.set()
    assert await asyncio.to_thread(search.done.wait, 10)
    await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_search_of_the_event_loops_own_is_cancelled() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Native(FakeRetriever):
        local = True

        async def aretrieve(self, *_: object) -> list[list[Passage]]:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

    class Drafting(FakeGenerator):
        async def adraft(self, questions: Sequence[str], settled: object = None) -> list[Draft]:
            await begun.wait()
            return self.draft(questions, settled)  # type: ignore[arg-type]

    generator = Drafting(drafts={"When?": SURE})
    pipeline = OpenRAG(generator, Native([]), gate=Gate("f_minp", 0.5))
    assert (await pipeline.aanswer("When?")).text == "sure"
    await asyncio.wait_for(cancelled.wait(), 5)


def test_a_search_in_vain_does_not_hold_up_the_answer() -> None:
    pipeline, search = looked_up_ahead(SURE)
    last = list(pipeline.stream("When?"))[-1]
    assert isinstance(last, AnswerEvent)
    assert last.answer.text == "sure"
    assert not search.done.is_set()
    search.go_on.set()
    assert search.done.wait(10)


async def test_one_that_is_closed_leaves_the_others_alone() -> None:
    pipeline, generator = answering("write")

    async def watch(give_up: bool) -> list[Event]:
        told: list[Event] = []
        async with aclosing(pipeline.astream("When?")) as events:
            async for event in events:
                told.append(event)
                if give_up and isinstance(event, StageStarted) and event.stage == "write":
                    break
        return told

    told = await asyncio.gather(*(watch(give_up=n % 2 == 0) for n in range(6)))
    assert [text(events) for events in told] == ["", "1893"] * 3
    assert len(generator.streams) == 3
