"""One engine over a small real model, asked from many threads and tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import OpenRAG, Passage
from openrag_core.model import TransformersGenerator, load
from openrag_core.verdict import NOT_TOLD

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-a"
QUESTIONS = [f"When was bridge {n} opened?" for n in range(50)]
WAIT = 120  # seconds, at most


class Archive:
    """Knows one passage of each question."""

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        assert top_k == 1
        return [[Passage(id=one, text=sha256(one.encode()).hexdigest())] for one in questions]


@pytest.fixture(scope="module")
def rag() -> OpenRAG:
    generator = TransformersGenerator(*load(TINY, dtype="float32"), max_new_tokens=24)
    return OpenRAG(generator, Archive(), top_k=1, min_relevance=0.0, min_support=0.0)


@pytest.fixture(scope="module")
def expected(rag: OpenRAG) -> list[str]:
    """What each question is answered alone."""
    alone = [rag.answer(question).text for question in QUESTIONS]
    assert len({text for text in alone if not text.startswith(NOT_TOLD)}) > 25
    return alone


@pytest.mark.parametrize("streaming", [False, True])
def test_ten_threads_get_their_own_answers(
    rag: OpenRAG, expected: list[str], streaming: bool
) -> None:
    engine = OpenRAGQueryEngine(rag, streaming=streaming)

    def ask(question: str) -> tuple[str, list[str]]:
        response = engine.query(question)
        return str(response), [node.node_id for node in response.source_nodes]

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(ask, QUESTIONS, timeout=WAIT))
    assert answers == [(text, [one]) for text, one in zip(expected, QUESTIONS, strict=True)]


@pytest.mark.parametrize("streaming", [False, True])
async def test_fifty_tasks_get_their_own_answers(
    rag: OpenRAG, expected: list[str], streaming: bool
) -> None:
    engine = OpenRAGQueryEngine(rag, streaming=streaming)

    async def ask(question: str) -> tuple[str, list[str]]:
        response = await engine.aquery(question)
        if streaming:
            response = await response.get_response()  # type: ignore[misc,union-attr]
        return str(response), [node.node_id for node in response.source_nodes]

    async with asyncio.timeout(WAIT):
        answers = await asyncio.gather(*map(ask, QUESTIONS))
    assert answers == [(text, [one]) for text, one in zip(expected, QUESTIONS, strict=True)]


async def test_tasks_that_are_cancelled_hurt_nobody(rag: OpenRAG, expected: list[str]) -> None:
    engine = OpenRAGQueryEngine(rag)
    tasks = [asyncio.create_task(engine.aquery(question)) for question in QUESTIONS]
    await asyncio.sleep(0.05)
    for task in tasks[::2]:
        task.cancel()
    async with asyncio.timeout(WAIT):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers[1::2]] == expected[1::2]
