"""A small encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers


class LetterEncoder:
    """A text's vector counts its letters; enough to find a text that shares words."""

    def __init__(self, name: str = "letters", dimension: int = 26) -> None:
        self.name = name
        self.dimension = self._length = dimension
        self.tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.encoded = 0

    def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors."""
        self.encoded += len(texts)
        return [self._vector(text.lower()) for text in texts]

    encode_questions = encode_passages

    def _vector(self, text: str) -> list[float]:
        counts = [1.0 + text.count(chr(ord("a") + n)) for n in range(self._length)]
        length = sqrt(sum(count * count for count in counts))
        return [count / length for count in counts]


@pytest.fixture
def encoder() -> LetterEncoder:
    """A fresh one, which counts what it encodes."""
    return LetterEncoder()
