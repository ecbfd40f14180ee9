"""langchain_openrag.LangChainChat as the judge of openrag_core.evaluation."""

from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel, FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_openrag import LangChainChat
from openrag_core.cache import JsonCache
from openrag_core.evaluation import RELEVANCE, Case, Judge, Price
from openrag_core.training import ChatCritic

CASES = [Case("1", "Who?", "Ana"), Case("2", "Where?", "In Velora")]
GOOD = '{"reason": "r", "grade": 5}'


def told(text: str) -> AIMessage:
    usage: Any = {"input_tokens": 200, "output_tokens": 20, "total_tokens": 220}
    return AIMessage(text, usage_metadata=usage)


async def test_a_chat_model_judges_in_event_loops_and_threads(tmp_path: Path) -> None:
    model = FakeMessagesListChatModel(responses=[told("Fine."), told(GOOD)])
    cache = JsonCache(tmp_path / "cache.jsonl")
    judge = Judge(
        LangChainChat(model), RELEVANCE, concurrency=1, cache=cache, price=Price(1.0, 10.0)
    )
    judged = await judge.ajudge(CASES)
    assert [one.grade for one in judged.judgements] == [5, 5]
    assert judged.usage.requests == 4
    assert judged.summary()["usage"]["cost"] == (800 + 10 * 80) / 1e6
    again = judge.judge(CASES)
    assert (again.judgements, again.paid.requests) == (judged.judgements, 0)


def test_models_are_told_apart_by_what_identifies_them() -> None:
    one, other = (FakeListChatModel(responses=[text]) for text in "ab")
    assert ChatCritic(LangChainChat(one)).name == LangChainChat(one).name
    names = [LangChainChat(model).name for model in (one, other, one)]
    assert names[0] == names[2] != names[1]
    assert LangChainChat(one.bind(stop=["x"])).name not in {None, *names}
    assert LangChainChat(RunnableLambda(lambda _: told(GOOD))).name is None
