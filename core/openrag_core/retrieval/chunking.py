"""Documents -> pieces that an encoder can read whole, none across a heading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from openrag_core.errors import ConfigError
from openrag_core.retrieval.documents import Document

CHUNK_SIZE, CHUNK_OVERLAP = 160, 24  # tokens
_LETTERS_IN_A_TOKEN = 4  # on average, in English
_LETTERS_PER_TOKEN = 8  # more, and the tokenizer took long stretches for one unknown word


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document."""

    title: str
    text: str
    start: int
    """Where it begins in what was read, in characters; see `Section.start`."""
    page: int | None = None

    @property
    def end(self) -> int:
        """Where it ends, in the same characters."""
        return self.start + len(self.text)


class Chunker:
    """Cuts sections at the coarsest boundary that fits: paragraphs, then sentences, then words.

    Args:
        tokenizer: Of the dense encoder: sizes are counted in its tokens. Where it is not known,
            four characters count as a token.
        size: Longest piece, in tokens, >= 16.
        overlap: Tokens that a piece may repeat of the one before, < size.

    Raises:
        ConfigError: A number is outside its range.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, *, size: int = CHUNK_SIZE, overlap: int = CHUNK_OVERLAP
    ) -> None:
        if not size >= 16 or not 0 <= overlap < size:
            raise ConfigError(
                f"chunk size must be >= 16 and overlap in [0, size); got {size}, {overlap}"
            )
        self.size, self.overlap = size, overlap
        if tokenizer is None:
            four = _LETTERS_IN_A_TOKEN
            self._splitter = MarkdownSplitter(size * four, overlap=overlap * four)
        else:
            whole = Tokenizer.from_str(tokenizer.to_str())
            whole.no_truncation()
            whole.no_padding()
            self._splitter = MarkdownSplitter.from_huggingface_tokenizer(
                whole, size, overlap=overlap
            )
        self._letters = size * _LETTERS_PER_TOKEN
        self._by_letters = MarkdownSplitter(self._letters)

    def __call__(self, document: Document) -> Iterator[Chunk]:
        """The pieces of a document, in its order."""
        for section in document.sections:
            for offset, text in self._splitter.chunk_indices(section.text):
                for within, piece in self._bounded(text):
                    yield Chunk(section.title, piece, section.start + offset + within, section.page)

    def _bounded(self, text: str) -> Sequence[tuple[int, str]]:
        if len(text) <= self._letters:
            return [(0, text)]
        return self._by_letters.chunk_indices(text)
