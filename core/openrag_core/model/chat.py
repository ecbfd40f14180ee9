"""The generator as a chat model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from threading import Lock
from typing import Any

from openrag_core.conversation import Message, Reply
from openrag_core.errors import ConfigError, QuestionError
from openrag_core.model.checkpoints.loading import base_of, load
from openrag_core.model.decoding import Continuation, Prompt
from openrag_core.model.generator import TransformersGenerator
from openrag_core.model.streaming import Texts


class TransformersChat:
    """Replies to conversations, greedily; satisfies `ChatModel`.

    It shares the generator's model and its batches. A model with trained reflection tokens is
    asked in the layout of its training, to answer without reading; they are no part of the text.

    Args:
        generator: Whose model replies.
        max_new_tokens: Longest reply, in tokens, >= 1; by default the generator's longest answer.
        stop: Texts at which a reply ends; they are no part of it.

    Raises:
        ConfigError: The length is below 1, or a stop text is empty.
    """

    def __init__(
        self,
        generator: TransformersGenerator,
        *,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        self._limit = generator.max_new_tokens if max_new_tokens is None else max_new_tokens
        if self._limit < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if isinstance(stop, str) or not all(stop):
            raise ConfigError(f"stop must be a list of texts, none of them empty; got {stop!r}")
        self._generator = generator
        self._stop = tuple(stop)

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each conversation, written together.

        Raises:
            QuestionError: A conversation is empty, or too long for the model.
            GenerationError: The model could not write.
        """
        prompts = [self._prompt(one) for one in conversations]
        future = self._generator.submit(prompts)
        try:
            return [self._reply(*pair) for pair in zip(prompts, future.result(), strict=True)]
        finally:
            future.cancel()

    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """The same; the event loop goes on, and cancelling the task stops the model."""
        prompts = await asyncio.to_thread(lambda: [self._prompt(one) for one in conversations])
        written = await asyncio.wrap_future(self._generator.submit(prompts))
        return [self._reply(*pair) for pair in zip(prompts, written, strict=True)]

    def begin(self, conversation: Sequence[Message]) -> Texts[Reply]:
        """A reply that can be read while it is written."""
        return self._texts(self._prompt(conversation))

    async def abegin(self, conversation: Sequence[Message]) -> Texts[Reply]:
        """The same; the event loop goes on, and a cancelled task has begun nothing."""
        return self._texts(await asyncio.to_thread(self._prompt, conversation))

    def _texts(self, prompt: Prompt) -> Texts[Reply]:
        finish: Callable[[int, Continuation], Reply] = lambda _, one: self._reply(prompt, one)  # noqa: E731
        return Texts(self._generator, [prompt], finish, self._visible)

    def _prompt(self, conversation: Sequence[Message]) -> Prompt:
        if not any(one.text.strip() for one in conversation if one.role != "system"):
            raise QuestionError(
                "there is nothing to reply to: add a user's message that has a text"
            )
        ids = self._generator.prompts.replying(conversation)
        return Prompt(ids, self._limit, stop=self._stopped if self._stop else None)

    def _reply(self, prompt: Prompt, written: Continuation) -> Reply:
        whole = self._generator.whole(written)
        text, tokens = self._generator.text(whole.ids), self._generator.tokens(whole)
        ended = whole.ids[-1] in self._generator.ends
        if (cut := self._cut(text)) is not None:
            text, tokens, ended = cut, tokens[: self._reaching(cut, whole.ids)], True
        return Reply(
            text=text.strip(),
            tokens=tokens,
            prompt_tokens=len(prompt.ids),
            new_tokens=len(whole.ids),
            finish="stop" if ended else "length",
        )

    def _reaching(self, cut: str, ids: list[int]) -> int:
        """How many of the tokens what stands before a stop text is made of."""
        texts = (self._generator.text(ids[:number]) for number in range(len(ids) + 1))
        return next(number for number, text in enumerate(texts) if text.startswith(cut))

    def _stopped(self, written: Continuation) -> bool:
        return self._cut(self._generator.text(written.ids)) is not None

    def _cut(self, text: str) -> str | None:
        """What stands before the first stop text; None if there is none."""
        places = [place for one in self._stop if (place := text.find(one)) >= 0]
        return text[: min(places)] if places else None

    def _visible(self, text: str, complete: bool) -> str:
        """The text without what may turn out to be the beginning of a stop text."""
        if (cut := self._cut(text)) is not None:
            return cut
        if complete:
            return text
        held = max(
            (n for one in self._stop for n in range(1, len(one)) if text.endswith(one[:n])),
            default=0,
        )
        return text[: len(text) - held]


class BaseChat:
    """The dense model that a checkpoint was made from, loaded when it is first asked.

    Training on reflection tokens takes from a model what it knew of conversations.

    Args:
        path_or_name: Of the checkpoint, as `load` takes it.
        base: Where the dense model is, if it was moved.
        max_new_tokens: Longest reply, in tokens, >= 1.
        max_batch_tokens: See `TransformersGenerator`.
        **loading: How it is loaded; see `load`.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        base: str | PathLike[str] | None = None,
        max_new_tokens: int = 64,
        max_batch_tokens: int = 8192,
        **loading: Any,
    ) -> None:
        self._path_or_name = path_or_name
        self._base = base
        self._limits: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "max_batch_tokens": max_batch_tokens,
        }
        self._loading = loading
        self._lock = Lock()

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each conversation; see `TransformersChat.reply`.

        Raises:
            ConfigError: The checkpoint does not tell what it was made from.
            CheckpointError: That cannot be loaded.
        """
        return self._loaded().reply(conversations)

    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """The same; the event loop goes on, and cancelling the task stops the model."""
        chat = await asyncio.to_thread(self._loaded)
        return await chat.areply(conversations)

    def _loaded(self) -> TransformersChat:
        with self._lock:
            return self._chat

    @cached_property
    def _chat(self) -> TransformersChat:
        folder = base_of(self._path_or_name, self._base)
        if folder is None:
            raise ConfigError(
                f"{self._path_or_name} does not tell which dense model it was made from, to make "
                "questions of a conversation stand alone: give build(condenser=ChatCondenser(...)),"
                " or ask whole questions"
            )
        model, tokenizer = load(folder, **self._loading)
        return TransformersChat(TransformersGenerator(model, tokenizer, **self._limits))
