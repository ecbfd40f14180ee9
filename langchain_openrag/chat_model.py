"""The generator as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, NoReturn, Self
from uuid import uuid4

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
    field_validator,
    model_validator,
)

from openrag_core import ConfigError, Generator, Message, QuestionError
from openrag_core.conversation import Reply, Role
from openrag_core.model import TransformersChat, TransformersGenerator, load
from openrag_core.ports import Piece
from openrag_core.records import Token
from openrag_core.weights import BUNDLED

_ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
_OF_SERVICES = {"api_key", "base_url", "max_retries", "streaming", "timeout"}
"""Standard parameters that say nothing to a model of this process."""
_NO_TOOLS = (
    "ChatOpenRAG calls no tools and writes no JSON: give it to an agent as a tool "
    "(langchain_openrag.create_openrag_tool), and have another chat model call it"
)


class ChatOpenRAG(BaseChatModel):
    """A model of this process as a chat model; decoding is greedy.

    It replies from what it knows and from the messages. Answers from documents are the business of
    `OpenRAGRunnable`, which may share the model: `ChatOpenRAG(generator=rag.generator)`.
    """

    model: str = BUNDLED
    """"bundled", a checkpoint folder, or a name on a model hub; loaded when first asked."""
    generator: SkipValidation[Generator] | None = Field(default=None, exclude=True)
    """In place of `model`: one that is loaded already."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest reply, in tokens."""
    temperature: float = 0.0
    """Only 0: decoding is greedy."""
    stop: list[str] | None = None
    """Texts at which a reply ends; a call's own replace them."""
    logprobs: bool = False
    """Whether `response_metadata["logprobs"]["content"]` tells the tokens' log-probabilities."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    _kept: tuple[str, TransformersGenerator] | None = PrivateAttr(default=None)
    """The model that was loaded, and its name: a copy may have been given another one."""
    _unnamed: str = PrivateAttr(default_factory=lambda: f"unnamed {uuid4().hex}")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        aliases = {field.alias for field in cls.model_fields.values()}
        if unknown := given.keys() - cls.model_fields.keys() - aliases - _OF_SERVICES:
            raise ValueError(
                f"ChatOpenRAG does not know {', '.join(sorted(unknown))}: it takes model, "
                "generator, max_tokens, stop, logprobs, and what every chat model takes"
            )
        return given

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float) -> float:
        if temperature != 0.0:
            raise ValueError(f"temperature must be 0, got {temperature}: decoding is greedy")
        return temperature

    @property
    def _llm_type(self) -> str:
        return "openrag"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self._name,
            "max_tokens": self.max_tokens,
            "default_stop": self.stop,  # "stop" is that of a call
            "logprobs": self.logprobs,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "openrag"
        params["ls_model_name"] = str(kwargs.get("model", self._name))
        params["ls_max_tokens"] = int(kwargs.get("max_tokens") or self.max_tokens)
        params["ls_temperature"] = 0.0
        return params

    @property
    def _name(self) -> str:
        """By which caches and traces tell models from each other."""
        if self.generator is None:
            return self.model
        return getattr(getattr(self.generator, "model", None), "name_or_path", "") or self._unnamed

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of the model's own tokenizer, for counting."""
        tokenizer = self._loaded().tokenizer
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def bind_tools(self, *_: Any, **__: Any) -> NoReturn:
        """Refused.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(_NO_TOOLS)

    def with_structured_output(self, *_: Any, **__: Any) -> NoReturn:
        """Refused.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(_NO_TOOLS)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        (reply,) = self._chat(stop, kwargs).reply([_conversation(messages)])
        return self._result(reply, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        chat = await self._achat(stop, kwargs)
        (reply,) = await chat.areply([_conversation(messages)])
        return self._result(reply, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream = self._chat(stop, kwargs).begin(_conversation(messages))
        try:
            while (piece := stream.next()) is not None:
                chunk = self._chunk(piece, kwargs)
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
        finally:
            stream.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chat = await self._achat(stop, kwargs)
        stream = await chat.abegin(_conversation(messages))
        try:
            while (piece := await stream.anext()) is not None:
                chunk = self._chunk(piece, kwargs)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
        finally:
            stream.cancel()

    def _chat(self, stop: Sequence[str] | None, kwargs: dict[str, Any]) -> TransformersChat:
        if "tools" in kwargs or "functions" in kwargs:
            raise NotImplementedError(_NO_TOOLS)
        greedy = {"temperature"} if not kwargs.get("temperature") else set()
        if unknown := kwargs.keys() - {"max_tokens", "logprobs", *greedy}:
            raise ConfigError(
                f"ChatOpenRAG does not know {', '.join(sorted(unknown))}: a call takes stop, "
                "max_tokens and logprobs, and decoding is greedy"
            )
        length = kwargs.get("max_tokens")
        return TransformersChat(
            self._loaded(),
            max_new_tokens=self.max_tokens if length is None else length,
            stop=(self.stop or ()) if stop is None else stop,
        )

    async def _achat(self, stop: Sequence[str] | None, kwargs: dict[str, Any]) -> TransformersChat:
        """The same, outside of the event loop: the model may have to be loaded."""
        return await asyncio.to_thread(self._chat, stop, kwargs)

    def _loaded(self) -> TransformersGenerator:
        generator = self._own() if self.generator is None else self.generator
        if not isinstance(generator, TransformersGenerator):
            raise ConfigError(
                f"ChatOpenRAG needs a model of this process, not a {type(generator).__name__}: "
                "give a TransformersGenerator, or model"
            )
        return generator

    def _own(self) -> TransformersGenerator:
        kept = self._kept
        if kept is None or kept[0] != self.model:
            with _LOADING:
                kept = self._kept = self.model, _loaded(self.model)
        return kept[1]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The model is shared."""
        memo = {} if memo is None else memo
        memo.update({id(one): one for one in (self.generator, self._kept)})
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the model that was loaded: whoever reads it back loads it again."""
        state = super().__getstate__()
        private = {**state["__pydantic_private__"], "_kept": None}
        return {**state, "__pydantic_private__": private}

    def _result(self, reply: Reply, kwargs: dict[str, Any]) -> ChatResult:
        message = AIMessage(
            reply.text,
            usage_metadata=_usage(reply),
            response_metadata=self._metadata(reply, kwargs),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunk(self, piece: Piece[Reply], kwargs: dict[str, Any]) -> ChatGenerationChunk:
        message = AIMessageChunk(content=piece.text)
        if kwargs.get("logprobs", self.logprobs):
            message.response_metadata = {"logprobs": _logprobs([piece.token])}
        if piece.result is not None:
            message.usage_metadata = _usage(piece.result)
            message.response_metadata |= {
                "model_name": self._name,
                "finish_reason": piece.result.finish,
            }
            message.chunk_position = "last"
        return ChatGenerationChunk(message=message)

    def _metadata(self, reply: Reply, kwargs: dict[str, Any]) -> dict[str, Any]:
        metadata = {"model_name": self._name, "finish_reason": reply.finish}
        told = kwargs.get("logprobs", self.logprobs)
        return metadata | ({"logprobs": _logprobs(reply.tokens)} if told else {})


_LOADING = Lock()


@lru_cache(maxsize=1)
def _loaded(model: str) -> TransformersGenerator:
    """What copies of a chat model share, as `configurable_fields` makes them."""
    return TransformersGenerator(*load(model))


def _conversation(messages: Sequence[BaseMessage]) -> list[Message]:
    """The messages as ours.

    Raises:
        QuestionError: There is none, or one that is no text.
    """
    return [Message(_role(message), _text(message)) for message in messages]


def _role(message: BaseMessage) -> Role:
    if (role := _ROLES.get(message.type.removesuffix("MessageChunk").lower())) is None:
        raise QuestionError(
            f"ChatOpenRAG reads system, human and ai messages; got one of type {message.type!r}"
        )
    return role


def _text(message: BaseMessage) -> str:
    content = message.content if isinstance(message.content, list) else []
    for block in content:
        if isinstance(block, dict) and block.get("type", "text") != "text":
            raise QuestionError(f"ChatOpenRAG reads text; got a block of type {block['type']!r}")
    return str(message.text)


def _usage(reply: Reply) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=reply.prompt_tokens,
        output_tokens=reply.new_tokens,
        total_tokens=reply.prompt_tokens + reply.new_tokens,
    )


def _logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """In the form of OpenAI's API."""
    content = [
        {
            "token": token.text,
            "logprob": token.logprob,
            "bytes": list(token.text.encode()),
            "top_logprobs": [],
        }
        for token in tokens
        if not token.special
    ]
    return {"content": content}
