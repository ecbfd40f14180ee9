"""Models whose every token the test decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from openrag_core import Token
from openrag_core.model import TransformersGenerator
from openrag_core.model.decoding import Continuation, Prompt

END = 0


class Typist:
    """Writes what it is told, byte by byte, in the thread of whoever tells it."""

    ends = frozenset({END})

    def __init__(self) -> None:
        self.prompts: Sequence[Prompt] = ()
        self.future: Future[list[Continuation]] = Future()
        self.written: list[Continuation] = []

    def submit(self, prompts: Sequence[Prompt]) -> Future[list[Continuation]]:
        """Take the prompts, and write nothing yet."""
        self.prompts = prompts
        self.begin()
        return self.future

    def begin(self) -> None:
        """Write all of them anew, as after memory ran out."""
        self.written = [Continuation() for _ in self.prompts]

    def type(self, text: str | bytes, place: int = 0, logprob: float = -0.5) -> None:
        """Add the bytes of a text, each a token; stop where the prompt says so."""
        written, stop = self.written[place], self.prompts[place].stop
        assert stop is not None
        for byte in text.encode() if isinstance(text, str) else text:
            written.ids.append(byte)
            written.logprobs.append(logprob)
            written.watched.append([])
            if stop(written):
                return

    def done(self) -> None:
        """Hand over what was written."""
        self.future.set_result(self.written)

    def text(self, ids: list[int]) -> str:
        """The bytes as text."""
        return bytes(id_ for id_ in ids if id_ != END).decode(errors="replace")

    def tokens(self, written: Continuation) -> tuple[Token, ...]:
        """Each byte by itself."""
        pairs = zip(written.ids, written.logprobs, strict=True)
        return tuple(Token(self.text([id_]), logprob, special=id_ == END) for id_, logprob in pairs)


def dictate(
    generator: TransformersGenerator, ids: Sequence[int], on_token: Callable[[int], object] = id
) -> None:
    """Let a real model run, and choose the tokens of every row in its place.

    Args:
        generator: Whose decoder does so from now on.
        ids: The tokens, again and again from the first one.
        on_token: Told how many rows are written, before each token.
    """
    decoder: Any = generator._decoder
    step, place = decoder._step, 0

    def say(tokens: Tensor, mask: Tensor, positions: Tensor, cache: object) -> Tensor:
        nonlocal place
        on_token(len(tokens))
        logprobs: Tensor = step(tokens, mask, positions, cache)
        place = 0 if tokens.shape[-1] > 1 else place + 1
        chosen = torch.full_like(logprobs, -9.0)
        chosen[:, ids[place % len(ids)]] = -0.25
        return chosen

    decoder._step = say
