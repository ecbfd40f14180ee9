"""Documents -> pieces that an encoder can read whole, none across a heading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from openrag_core.errors import ConfigError
from openrag_core.retrieval.documents import Document

_LETTERS_PER_TOKEN = 8  # more, and the tokenizer took long stretches for one unknown word


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document."""

    title: str
    text: str
    page: int | None = None


class Chunker:
    """Cuts sections at the coarsest boundary that fits: paragraphs, then sentences, then words.

    Args:
        tokenizer: Of the dense encoder: sizes are counted in its tokens.
        size: Longest piece, in tokens, >= 16.
        overlap: Tokens that a piece may repeat of the one before, < size.

    Raises:
        ConfigError: A number is outside its range.
    """

    def __init__(self, tokenizer: Tokenizer, *, size: int = 160, overlap: int = 24) -> None:
        if not size >= 16 or not 0 <= overlap < size:
            raise ConfigError(
                f"chunk size must be >= 16 and overlap in [0, size); got {size}, {overlap}"
            )
        whole = Tokenizer.from_str(tokenizer.to_str())
        whole.no_truncation()
        whole.no_padding()
        self._splitter = MarkdownSplitter.from_huggingface_tokenizer(whole, size, overlap=overlap)
        self._letters = size * _LETTERS_PER_TOKEN
        self._by_letters = MarkdownSplitter(self._letters)

    def __call__(self, document: Document) -> Iterator[Chunk]:
        """The pieces of a document, in its order."""
        for section in document.sections:
            for text in self._splitter.chunks(section.text):
                for piece in (
                    self._by_letters.chunks(text) if len(text) > self._letters else (text,)
                ):
                    yield Chunk(section.title, piece, section.page)
