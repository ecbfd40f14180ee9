"""langchain_openrag/chat_model.py: LangChain's own tests, and what they leave out."""

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import ValidationError

from langchain_openrag import ChatOpenRAG, chat_model
from openrag_core import ConfigError, OpenRAG, QuestionError
from openrag_core.model import TransformersGenerator, load

FIXTURES = Path(__file__).parents[1] / "fixtures"


class TestUnit(ChatModelUnitTests):
    """On nothing loaded.

    Skipped are settings from the environment, of which there are none, and serialization, which
    works for classes in LangChain's own packages only.
    """

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenRAG

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


class TestIntegration(ChatModelIntegrationTests):
    """On the bundled model.

    Skipped are: tools, structured output and JSON mode, which it refuses in words; images, PDFs and
    audio, which a language model of text cannot read; another model per call, which would have to
    be loaded; Anthropic's message forms; and recorded HTTP, of which there is none.
    """

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenRAG

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @pytest.fixture
    def model(self, bundled_rag: OpenRAG) -> BaseChatModel:
        return ChatOpenRAG(generator=bundled_rag.generator, max_tokens=20)


@pytest.fixture
def chat(bundled_rag: OpenRAG) -> ChatOpenRAG:
    return ChatOpenRAG(generator=bundled_rag.generator, max_tokens=12, logprobs=True)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which models were loaded, each slowly."""
    names: list[str] = []

    def slowly(name: str) -> object:
        names.append(name)
        sleep(0.2)
        return load(name, dtype="float32")

    monkeypatch.setattr(chat_model, "load", slowly)
    chat_model._loaded.cache_clear()
    yield names
    chat_model._loaded.cache_clear()


ASKED = [SystemMessage("Be brief."), HumanMessage("What is the capital of France?")]


def test_a_stream_adds_up_to_the_reply(chat: ChatOpenRAG) -> None:
    reply = chat.invoke(ASKED)
    pieces = list(chat.stream(ASKED))
    assert len([piece for piece in pieces if piece.content]) > 1 or len(str(reply.content)) < 9
    whole: Any = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == reply.content
    assert whole.usage_metadata == reply.usage_metadata
    assert whole.response_metadata["finish_reason"] == reply.response_metadata["finish_reason"]
    told = [one.response_metadata["logprobs"]["content"] for one in (whole, reply)]
    assert [len(one) for one in told] == [len(told[0])] * 2
    assert all(one["logprob"] <= 0 and one["bytes"] for one in told[1])
    assert "".join(one["token"] for one in told[1]).strip() == reply.content


def test_a_reply_ends_at_its_limit_or_at_a_stop_text(chat: ChatOpenRAG) -> None:
    asked = "Count: one two three four"
    short = chat.invoke(asked, max_tokens=1)
    assert short.response_metadata["finish_reason"] == "length"
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 1
    whole = str(chat.invoke(asked).content)
    middle = whole[len(whole) // 2 :][:3]
    for text in (
        chat.invoke(asked, stop=[middle]).content,
        "".join(str(piece.content) for piece in chat.stream(asked, stop=[middle])),
    ):
        assert text == whole[: whole.find(middle)].strip()


async def test_it_does_not_block_the_event_loop(chat: ChatOpenRAG) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.005)

    heart = asyncio.create_task(beat())
    replies = await asyncio.gather(*(chat.ainvoke(f"What is {n} plus {n}?") for n in range(3)))
    pieces = [piece async for piece in chat.astream(ASKED)]
    heart.cancel()
    assert beats > 10
    assert all(str(reply.content) for reply in replies)
    assert pieces[-1].chunk_position == "last"


@tool
def adder(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_caches_tell_models_from_each_other(chat: ChatOpenRAG) -> None:
    tiny, again = (
        ChatOpenRAG(generator=TransformersGenerator(*load(FIXTURES / "tiny-a", dtype="float32")))
        for _ in range(2)
    )
    assert tiny._get_llm_string() == again._get_llm_string() != chat._get_llm_string()
    assert tiny.invoke("Hello", max_tokens=2).response_metadata["model_name"].endswith("tiny-a")
    assert chat._identifying_params["model"] == "bundled"


def test_caches_tell_settings_from_each_other() -> None:
    keys = {
        ChatOpenRAG(**settings)._get_llm_string(stop=stop)
        for settings in ({}, {"stop": ["x"]}, {"logprobs": True}, {"max_tokens": 1})
        for stop in (None, ["y"])
    }
    assert len(keys) == 8


def test_a_copy_with_another_model_replies_with_it(loaded: list[str]) -> None:
    chat = ChatOpenRAG(model=str(FIXTURES / "tiny-a"), max_tokens=4)
    chat.invoke("Hello")
    other = chat.model_copy(update={"model": str(FIXTURES / "tiny-b")})
    assert (
        other.invoke("Hello").content == ChatOpenRAG(**other.model_dump()).invoke("Hello").content
    )
    chat.invoke("Hello")
    assert loaded == [chat.model, other.model]


def test_copies_that_are_asked_at_once_load_the_model_once(loaded: list[str]) -> None:
    chat = ChatOpenRAG(model=str(FIXTURES / "tiny-a"))
    configs: list[RunnableConfig] = [{"configurable": {"length": n}} for n in (1, 2, 3, 4)]
    flexible = chat.configurable_fields(max_tokens=ConfigurableField("length"))
    assert len(flexible.batch(["Hello"] * 4, configs)) == 4
    assert loaded == [chat.model]


def test_a_model_that_is_loaded_waits_for_no_other(loaded: list[str]) -> None:
    chat = ChatOpenRAG(model=str(FIXTURES / "tiny-a"), max_tokens=1)
    chat.invoke("Hello")
    asked = Thread(target=chat.invoke, args=["Hello"], daemon=True)
    with chat_model._LOADING:  # as while another one is loaded
        asked.start()
        asked.join(timeout=30)
        assert not asked.is_alive()
    assert loaded == [chat.model]
    assert copy.deepcopy(chat)._own() is chat._own()


def test_it_is_pickled_without_its_model(loaded: list[str]) -> None:
    chat = ChatOpenRAG(model=str(FIXTURES / "tiny-a"), max_tokens=4)
    reply = chat.invoke("Hello").content
    again = pickle.loads(pickle.dumps(chat))
    assert again.model_dump() == chat.model_dump()
    chat_model._loaded.cache_clear()
    assert again.invoke("Hello").content == reply
    assert len(loaded) == 2


def test_a_length_of_nothing_is_refused(chat: ChatOpenRAG) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        chat.invoke("Hello", max_tokens=0)


def test_it_counts_with_its_own_tokenizer(chat: ChatOpenRAG) -> None:
    assert chat.get_num_tokens("hello there") == len(chat.get_token_ids("hello there")) > 1


def test_what_it_cannot_do_is_refused(chat: ChatOpenRAG) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: chat.bind_tools([adder]),
        lambda: chat.with_structured_output({"title": "answer", "type": "object"}),
        lambda: chat.invoke(ASKED, tools=[]),
    ]
    for attempt in attempts:
        with pytest.raises(NotImplementedError, match="calls no tools and writes no JSON"):
            attempt()
    with pytest.raises(ConfigError, match="does not know top_p"):
        chat.invoke(ASKED, top_p=0.5)
    with pytest.raises(ValidationError, match="decoding is greedy"):
        ChatOpenRAG(temperature=0.7)
    with pytest.raises(ValidationError, match="ChatOpenRAG does not know model_name"):
        ChatOpenRAG(model_name="mine")  # type: ignore[call-arg]
    assert ChatOpenRAG(timeout=3, max_retries=2, name="chat").name == "chat"  # type: ignore[call-arg]
    with pytest.raises(QuestionError, match="type 'tool'"):
        chat.invoke([ToolMessage("1", tool_call_id="1")])
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}])
    with pytest.raises(QuestionError, match="'image_url'"):
        chat.invoke([picture])
    with pytest.raises(QuestionError, match="nothing to reply to"):
        chat.invoke([SystemMessage("Be brief.")])
