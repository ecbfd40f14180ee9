"""core/openrag_core/retrieval/chunking.py: sizes, boundaries and overlap."""

from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from openrag_core import ConfigError
from openrag_core.retrieval.chunking import Chunker
from openrag_core.retrieval.documents import Document, Section
from tests.core.retrieval.conftest import LetterEncoder

SENTENCES = [f"Sentence number {n} tells one more thing about the old bridge." for n in range(40)]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return LetterEncoder().tokenizer


def document(*sections: Section) -> Document:
    return Document("d", "d.md", "0", sections)


def test_pieces_fit_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    text = " ".join(SENTENCES)
    pieces = list(Chunker(tokenizer, size=40, overlap=0)(document(Section("Bridge", text))))
    assert len(pieces) > 5
    assert " ".join(piece.text for piece in pieces) == text
    for piece in pieces:
        assert len(tokenizer.encode(piece.text).ids) <= 40
        assert piece.text.endswith(".")
        assert piece.title == "Bridge"


def test_neighbours_overlap(tokenizer: Tokenizer) -> None:
    section = Section("Bridge", " ".join(SENTENCES))
    pieces = list(Chunker(tokenizer, size=40, overlap=15)(document(section)))
    for first, second in pairwise(pieces):
        assert second.text.split(".")[0] in first.text


def test_no_piece_crosses_a_section(tokenizer: Tokenizer) -> None:
    sections = (Section("A", "One.", page=1), Section("B", "Two.", page=2))
    pieces = list(Chunker(tokenizer)(document(*sections)))
    assert [(p.title, p.text, p.page) for p in pieces] == [("A", "One.", 1), ("B", "Two.", 2)]


@pytest.mark.parametrize("text", ["A1b2C3d4" * 5000, "\N{GRINNING FACE}" * 5000])
def test_what_the_tokenizer_takes_for_one_word_is_cut_too(tokenizer: Tokenizer, text: str) -> None:
    pieces = [piece.text for piece in Chunker(tokenizer, size=40)(document(Section("", text)))]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 40 * 8


def test_the_encoders_own_limit_does_not_hide_long_texts(tokenizer: Tokenizer) -> None:
    tokenizer.enable_truncation(10)
    pieces = list(Chunker(tokenizer, size=40)(document(Section("", " ".join(SENTENCES)))))
    assert len(pieces) > 5


@pytest.mark.parametrize(("size", "overlap"), [(8, 0), (32, 32), (32, -1)])
def test_impossible_sizes_are_refused(tokenizer: Tokenizer, size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match=f"got {size}, {overlap}"):
        Chunker(tokenizer, size=size, overlap=overlap)
