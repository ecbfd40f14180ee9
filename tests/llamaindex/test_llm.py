"""llamaindex_openrag/llm.py: on a small real model, the contract of an LLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from math import exp
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.prompts import PromptTemplate

from llamaindex_openrag import OpenRAGLLM
from openrag_core import ConfigError, QuestionError
from openrag_core.conversation import Message, Reply
from openrag_core.model import TransformersChat, TransformersGenerator, load
from openrag_core.model.streaming import Texts

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-a"
HELLO = [ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content="Hello")]


@pytest.fixture(scope="module")
def generator() -> TransformersGenerator:
    return TransformersGenerator(*load(TINY, dtype="float32"), max_new_tokens=12)


@pytest.fixture
def llm(generator: TransformersGenerator) -> OpenRAGLLM:
    return OpenRAGLLM(generator)


def expected(generator: TransformersGenerator, **settings: Any) -> Reply:
    said = [Message("system", "Be kind."), Message("user", "Hello")]
    return TransformersChat(generator, **settings).reply([said])[0]


async def test_every_way_of_asking_gives_the_same(
    llm: OpenRAGLLM, generator: TransformersGenerator
) -> None:
    reply = expected(generator)
    streamed = list(llm.stream_chat(HELLO))
    astreamed = [one async for one in await llm.astream_chat(HELLO)]
    for response in (llm.chat(HELLO), await llm.achat(HELLO), streamed[-1], astreamed[-1]):
        assert response.message.role == MessageRole.ASSISTANT
        assert response.message.content == reply.text
        assert response.logprobs is not None
        said = [(likely[0].token, likely[0].logprob) for likely in response.logprobs]
        words = [token for token in reply.tokens if not token.special]
        assert [token for token, _ in said] == [token.text for token in words]
        assert [p for _, p in said] == pytest.approx([token.logprob for token in words], abs=1e-4)
        assert all(0 < exp(p) <= 1 for _, p in said)
        assert response.raw["finish_reason"] == reply.finish
        assert response.raw["usage"] == {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.new_tokens,
            "total_tokens": reply.prompt_tokens + reply.new_tokens,
        }
    for pieces in (streamed, astreamed):
        assert len(pieces) > 2
        assert "".join(piece.delta or "" for piece in pieces) == reply.text
        assert pieces[0].message.content == pieces[0].delta
        assert pieces[0].raw is None


async def test_a_prompt_is_what_a_user_says(llm: OpenRAGLLM) -> None:
    said = llm.chat([ChatMessage(role="user", content="Hello")])
    streamed = list(llm.stream_complete("Hello"))
    astreamed = [one async for one in await llm.astream_complete("Hello")]
    for response in (
        llm.complete("Hello"),
        llm.complete("Hello", formatted=True),
        await llm.acomplete("Hello"),
        streamed[-1],
        astreamed[-1],
    ):
        assert response.text == said.message.content
        assert response.raw == said.raw
        assert len(response.logprobs or ()) == len(said.logprobs or ())
    assert "".join(piece.delta or "" for piece in astreamed) == said.message.content
    assert llm.predict(PromptTemplate("{word}"), word="Hello") == said.message.content


def test_a_call_may_be_shorter_and_end_sooner(
    llm: OpenRAGLLM, generator: TransformersGenerator
) -> None:
    short = llm.chat(HELLO, max_new_tokens=3)
    assert short.raw["usage"]["completion_tokens"] == 3
    assert short.raw["finish_reason"] == "length"
    stop = expected(generator).text[-4:-1]
    cut = expected(generator, stop=[stop]).text
    for given in (stop, [stop]):
        assert llm.chat(HELLO, stop=given).message.content == cut
        assert "".join(one.delta or "" for one in llm.stream_chat(HELLO, stop=given)) == cut
    stopping = OpenRAGLLM(generator, stop=[stop], max_new_tokens=9)
    assert stopping.chat(HELLO, max_new_tokens=60).message.content == cut
    for length in (None, 9):  # its own, not the generator's
        assert stopping.chat(HELLO, max_new_tokens=length, stop=[]) == OpenRAGLLM(
            generator, max_new_tokens=9
        ).chat(HELLO)
    assert stop not in cut


def test_it_tells_what_it_is(generator: TransformersGenerator) -> None:
    llm = OpenRAGLLM(generator, max_new_tokens=5, model_name="tiny", system_prompt="Be kind.")
    assert llm.metadata.model_dump() == OpenRAGLLM(generator).metadata.model_dump() | {
        "num_output": 5,
        "model_name": "tiny",
    }
    assert (llm.metadata.context_window, llm.metadata.is_chat_model) == (1024, True)
    assert llm.metadata.is_function_calling_model is False
    assert llm.to_dict()["class_name"] == "OpenRAGLLM"
    assert llm.to_dict()["system_prompt"] == "Be kind."
    assert OpenRAGLLM(generator).metadata.num_output == generator.max_new_tokens
    assert OpenRAGLLM(generator).metadata.model_name == generator.model.name_or_path


def test_callbacks_hear_of_it_once(generator: TransformersGenerator) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    counting = TokenCountingHandler(tokenizer=str.split)
    llm = OpenRAGLLM(generator, callback_manager=CallbackManager([debug, counting]))
    usage = llm.complete("Hello").raw["usage"]
    list(llm.stream_complete("Hello"))
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 2
    assert counting.prompt_llm_token_count == 2 * usage["prompt_tokens"]
    assert counting.completion_llm_token_count == 2 * usage["completion_tokens"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [ChatMessage(role="system", content="Be kind.")],
        [ChatMessage(role="user", content=" ")],
    ],
)
async def test_an_empty_conversation_is_refused(
    llm: OpenRAGLLM, messages: Sequence[ChatMessage]
) -> None:
    with pytest.raises(QuestionError, match="add a user's message"):
        llm.chat(messages)
    with pytest.raises(QuestionError, match="add a user's message"):
        llm.stream_chat(messages)
    with pytest.raises(QuestionError, match="add a user's message"):
        await llm.achat(messages)
    with pytest.raises(QuestionError, match="add a user's message"):
        await llm.astream_chat(messages)


def test_what_it_cannot_read_is_refused(llm: OpenRAGLLM) -> None:
    with pytest.raises(QuestionError, match="nothing to reply to"):
        llm.complete("")
    with pytest.raises(QuestionError, match="the role 'tool': give one of system"):
        llm.chat([ChatMessage(role="tool", content="1893")])
    with pytest.raises(QuestionError, match="reads text only, and was given a 'image'"):
        llm.chat([ChatMessage(role="user", blocks=[ImageBlock(image=b"")])])


def test_unknown_keywords_are_refused(llm: OpenRAGLLM) -> None:
    with pytest.raises(ConfigError, match="does not know tools: it takes max_new_tokens and stop"):
        llm.chat(HELLO, tools=[])
    with pytest.raises(ConfigError, match="temperature"):
        llm.stream_complete("Hello", temperature=0.1)


def test_settings_are_checked_at_once(generator: TransformersGenerator) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1"):
        OpenRAGLLM(generator, max_new_tokens=0)
    with pytest.raises(ConfigError, match="stop must be a list"):
        OpenRAGLLM(generator, stop=[""])


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Texts[Reply]]:
    """Every stream that is begun."""
    streams: list[Texts[Reply]] = []
    begin, abegin = TransformersChat.begin, TransformersChat.abegin

    def noted(chat: TransformersChat, conversation: Sequence[Message]) -> Texts[Reply]:
        streams.append(begin(chat, conversation))
        return streams[-1]

    async def anoted(chat: TransformersChat, conversation: Sequence[Message]) -> Texts[Reply]:
        streams.append(await abegin(chat, conversation))
        return streams[-1]

    monkeypatch.setattr(TransformersChat, "begin", noted)
    monkeypatch.setattr(TransformersChat, "abegin", anoted)
    return streams


def test_closing_a_stream_stops_the_model(llm: OpenRAGLLM, begun: list[Texts[Reply]]) -> None:
    stream = llm.stream_chat(HELLO, max_new_tokens=900)
    assert not begun  # a stream that nobody reads costs nothing
    next(stream)
    stream.close()
    assert begun[0]._future.cancelled()


async def test_cancelling_a_task_stops_the_model(
    llm: OpenRAGLLM, begun: list[Texts[Reply]]
) -> None:
    stream: AsyncGenerator[Any] = await llm.astream_chat(HELLO, max_new_tokens=900)
    await anext(stream)

    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun[0]._future.cancelled()


async def test_the_event_loop_goes_on(llm: OpenRAGLLM) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await llm.achat(HELLO, max_new_tokens=60)
    ticking.cancel()
    assert ticks > 5
