"""core/openrag_core/model: threads and event loops ask one model for everything at once."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest

from openrag_core import Gate, Message, OpenRAG, Passage
from openrag_core.events import AnswerEvent, GateEvent, StageStarted, TokenEvent
from openrag_core.model import TransformersChat, TransformersGenerator
from tests.core.model.test_generator import Loaded
from tests.core.model.test_generator import trained as trained  # noqa: PLC0414  (a fixture)
from tests.core.model.typist import dictate
from tests.fakes import FakeRetriever

QUESTIONS = [f"When was bridge {n} opened?" for n in range(5)]
PASSAGES = [Passage(id=str(n), text=f"Bridge {n} opened in 18{n}3.") for n in range(5)]
Texts = dict[tuple[str, str], str]


class Callers:
    """Everybody who asks, and what each of them would be told alone."""

    def __init__(self, loaded: Loaded) -> None:
        self.generator = TransformersGenerator(*loaded, max_new_tokens=12, max_batch_tokens=900)
        found = {q: [p] for q, p in zip(QUESTIONS, PASSAGES, strict=True)}
        minima = {"min_relevance": 0.0, "min_support": 0.0}
        self.reads, self.knows = (
            OpenRAG(self.generator, FakeRetriever(found), gate=Gate(mode), **minima)  # type: ignore[arg-type]
            for mode in ("always", "never")
        )
        self.chat = TransformersChat(self.generator, max_new_tokens=10, stop=["e"])

    def answer(self, question: str) -> str:
        return self.reads.answer(question).text

    def stream(self, question: str) -> str:
        return self._whole(list(self.knows.stream(question)))

    def give_up(self, question: str) -> str:
        """Close the stream at its first token."""
        events = self.knows.stream(question)
        first = next(event.text for event in events if isinstance(event, TokenEvent))
        events.close()
        return first

    def reply(self, question: str) -> str:
        return self.chat.reply([[Message("user", question)]])[0].text

    async def aanswer(self, question: str) -> str:
        return (await self.reads.aanswer(question)).text

    async def astream(self, question: str) -> str:
        return self._whole([event async for event in self.knows.astream(question)])

    async def agive_up(self, question: str) -> str:
        async with aclosing(self.knows.astream(question)) as events:
            async for event in events:
                if isinstance(event, TokenEvent):
                    return event.text
        raise AssertionError

    async def areply(self, question: str) -> str:
        stream = await self.chat.abegin([Message("user", question)])
        shown = ""
        while (piece := await stream.anext()) is not None:
            shown += piece.text
        return shown

    @staticmethod
    def _whole(events: list[Any]) -> str:
        last = events[-1]
        assert isinstance(last, AnswerEvent)
        shown = "".join(event.text for event in events if isinstance(event, TokenEvent))
        assert shown == last.answer.text
        return shown


def everybody(callers: Callers) -> tuple[dict[str, Callable[[str], str]], dict[str, Any]]:
    """In threads, and in event loops; under the names of what they are to be told."""
    threads = {n: getattr(callers, n) for n in ("answer", "stream", "give_up", "reply")}
    return threads, {name: getattr(callers, f"a{name}") for name in threads}


def test_ten_threads_and_fifty_tasks_get_what_they_would_alone(
    trained: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(trained)
    threads, tasks = everybody(callers)
    alone = {(name, q): ask(q) for name, ask in threads.items() for q in QUESTIONS}
    assert len(set(alone.values())) > 6  # there is something to mix up
    work = sorted(alone) * 3  # sixty
    before = threading.active_count()

    async def loop() -> list[str]:
        running = [asyncio.create_task(tasks[name](q)) for name, q in work[:50]]
        lost = [asyncio.create_task(tasks["stream"](q)) for q in QUESTIONS]
        await asyncio.sleep(0.05)
        for task in lost:
            task.cancel()
        assert len(await asyncio.gather(*lost, return_exceptions=True)) == len(QUESTIONS)
        return await asyncio.wait_for(asyncio.gather(*running), 60)

    with ThreadPoolExecutor(11) as pool:
        looped = pool.submit(asyncio.run, loop())
        asked = [pool.submit(threads[name], q) for name, q in work]
        assert [one.result(60) for one in asked] == [alone[pair] for pair in work]
        assert looped.result(60) == [alone[pair] for pair in work[:50]]
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert threading.active_count() <= before


async def test_streams_that_are_closed_free_the_model_for_the_others(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=500)
    rows: list[int] = []
    dictate(generator, [9], rows.append)
    rag = OpenRAG(generator, FakeRetriever([]), gate=Gate("never"))
    going_on = rag.stream("Who goes on?")
    assert any(isinstance(event, TokenEvent) for event in going_on)
    for question in QUESTIONS:
        events, others = rag.stream(question), rag.astream(question)
        assert any(isinstance(event, TokenEvent) for event in events)
        events.close()
        async with aclosing(others):
            assert isinstance(await anext(others), GateEvent)
            assert isinstance(await anext(others), StageStarted)
            assert isinstance(await anext(others), TokenEvent)
    assert isinstance(list(going_on)[-1], AnswerEvent)
    assert 500 <= sum(rows) < 1500  # of the 5,500 that were asked for
