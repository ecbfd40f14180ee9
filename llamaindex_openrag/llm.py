"""The generator as an LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from llamaindex_openrag.messages import to_messages
from openrag_core import ConfigError
from openrag_core.conversation import Reply
from openrag_core.model import TransformersChat, TransformersGenerator

_KEYWORDS = ("max_new_tokens", "stop")
_Response = TypeVar("_Response")
_Respond = Callable[[Reply, str | None], _Response]


class OpenRAGLLM(CustomLLM):
    """A generator's model, for whatever in LlamaIndex asks for an LLM.

    It replies greedily and shares the generator's batches, whether asked from threads or event
    loops; closing a stream or cancelling a task stops it. `logprobs` holds, for each token of the
    text, a list of one: the token itself. While streaming, the last response holds them all, as it
    does the usage, in `raw`.

    Every call takes `max_new_tokens` and `stop` (a text or a list of them), which go before what
    is set here; other keywords are refused. A prompt is sent as a user's message, whether it is
    `formatted` or not: text never becomes a special token.

    Args:
        generator: Whose model replies.
        max_new_tokens: Longest reply, in tokens, >= 1; by default the generator's longest answer.
        stop: Texts at which a reply ends; they are no part of it.
        model_name: By default the checkpoint's folder or name, without one the model's class.
        **settings: LlamaIndex's own, such as `system_prompt` and `callback_manager`.

    Raises:
        ConfigError: The length is below 1, or a stop text is empty.
    """

    model_name: str = Field(description="What the model is called.")
    context_window: int = Field(description="Most tokens of prompt and reply.")
    max_new_tokens: int = Field(description="Longest reply, in tokens.")
    stop: list[str] = Field(description="Texts at which a reply ends.")
    _generator: TransformersGenerator = PrivateAttr()

    def __init__(
        self,
        generator: TransformersGenerator,
        *,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        model_name: str | None = None,
        **settings: Any,
    ) -> None:
        TransformersChat(generator, max_new_tokens=max_new_tokens, stop=stop)  # checks them
        model = generator.model
        super().__init__(
            model_name=model_name or model.name_or_path or type(model).__name__,
            context_window=model.config.get_text_config().max_position_embeddings,
            max_new_tokens=generator.max_new_tokens if max_new_tokens is None else max_new_tokens,
            stop=list(stop),
            **settings,
        )
        self._generator = generator

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex's serialization names it."""
        return "OpenRAGLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of every LLM."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.max_new_tokens,
            is_chat_model=True,
            model_name=self.model_name,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Reply to a conversation."""
        return _chat_response(self._reply(messages, kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The same; the event loop goes on."""
        return _chat_response(await self._areply(messages, kwargs))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: ARG002
        """Reply to a prompt."""
        return _completion(self._reply(_asked(prompt), kwargs))

    @llm_completion_callback()
    async def acomplete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002
        **kwargs: Any,
    ) -> CompletionResponse:
        """The same; the event loop goes on."""
        return _completion(await self._areply(_asked(prompt), kwargs))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Reply to a conversation, piece by piece."""
        return self._stream(messages, kwargs, _chat_response)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """The same; the event loop goes on."""
        return self._astream(messages, kwargs, _chat_response)

    @llm_completion_callback()
    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Reply to a prompt, piece by piece."""
        return self._stream(_asked(prompt), kwargs, _completion)

    @llm_completion_callback()
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """The same; the event loop goes on."""
        return self._astream(_asked(prompt), kwargs, _completion)

    def _reply(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Reply:
        return self._chat(kwargs).reply([to_messages(messages)])[0]

    async def _areply(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Reply:
        return (await self._chat(kwargs).areply([to_messages(messages)]))[0]

    def _stream(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], respond: _Respond[_Response]
    ) -> Generator[_Response]:
        chat, conversation = self._chat(kwargs), to_messages(messages)

        def responses() -> Generator[_Response]:
            text = ""
            stream = chat.begin(conversation)
            try:
                while (piece := stream.next()) is not None:
                    text += piece.text
                    if piece.text or piece.result:
                        yield respond(piece.result or Reply(text), piece.text)
            finally:
                stream.cancel()

        return responses()

    def _astream(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], respond: _Respond[_Response]
    ) -> AsyncGenerator[_Response]:
        chat, conversation = self._chat(kwargs), to_messages(messages)

        async def responses() -> AsyncGenerator[_Response]:
            text = ""
            stream = await chat.abegin(conversation)
            try:
                while (piece := await stream.anext()) is not None:
                    text += piece.text
                    if piece.text or piece.result:
                        yield respond(piece.result or Reply(text), piece.text)
            finally:
                stream.cancel()

        return responses()

    def _chat(self, kwargs: dict[str, Any]) -> TransformersChat:
        if unknown := kwargs.keys() - set(_KEYWORDS):
            raise ConfigError(
                f"{self.class_name()} does not know {', '.join(sorted(unknown))}: "
                f"it takes {' and '.join(_KEYWORDS)}, and calls no tools"
            )
        stop = self.stop if kwargs.get("stop") is None else kwargs["stop"]
        length = kwargs.get("max_new_tokens")
        return TransformersChat(
            self._generator,
            max_new_tokens=self.max_new_tokens if length is None else length,
            stop=[stop] if isinstance(stop, str) else stop,
        )


def _asked(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def _chat_response(reply: Reply, delta: str | None = None) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=reply.text)
    return ChatResponse(message=message, delta=delta, **_told(reply))


def _completion(reply: Reply, delta: str | None = None) -> CompletionResponse:
    return CompletionResponse(text=reply.text, delta=delta, **_told(reply))


def _told(reply: Reply) -> dict[str, Any]:
    """What is known of a whole reply; nothing of one that is still being written."""
    if not reply.new_tokens:
        return {}
    words = [token for token in reply.tokens if not token.special]
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.new_tokens,
        "total_tokens": reply.prompt_tokens + reply.new_tokens,
    }
    return {
        "logprobs": [[LogProb(token=token.text, logprob=token.logprob)] for token in words],
        "raw": {"usage": usage, "finish_reason": reply.finish},
    }
