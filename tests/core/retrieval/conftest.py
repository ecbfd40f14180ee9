"""A small encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from tokenizers import Tokenizer, models, pre_tokenizers

from openrag_core.retrieval import ServerStore


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


def memory() -> ServerStore:
    """An empty store in memory."""
    return ServerStore(QdrantClient(":memory:"), "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files that can be read, and an empty one."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "bridge.md").write_text(
        "# Bridge\n\nOpened in 1893.\n\n## Repairs\n\nClosed in 1950.", encoding="utf-8"
    )
    (files / "ferry.txt").write_text("The ferry takes 25 minutes.", encoding="utf-8")
    (files / "empty.txt").write_text("", encoding="utf-8")
    return files
