"""Training rows -> token ids and labels.

The prompt's ids are those of inference. Of the response everything is learned except what stands
inside a paragraph: the model is to read passages, not to write them. Both paragraph tags keep
their loss, as in the released training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core.errors import TrainingDataError
from openrag_core.prompts import encode, encode_all, opening, token_id
from openrag_core.reflection import END_PARAGRAPH, PARAGRAPH, RELEVANCE, TOKENS
from openrag_core.training.rows import WHOLE_PARAGRAPH, Row, split_tokens

IGNORED = -100
"""The label of what is not learned."""
TooLong = Literal["cut", "drop"]
_REPLIES = {bool(worth): token for token, worth in RELEVANCE.worth.items()}
"""Responses that end with one are learned that far: an answer would follow."""
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the model sees it."""

    ids: list[int]
    labels: list[int]
    """The same length; `IGNORED` where nothing is learned."""
    text: range = range(0)
    """Positions of the paragraph's text, or of a corpus: what may be cut."""
    relevance: tuple[tuple[int, int], ...] = ()
    """Judgements beside the response: how many of the ids were read when the paragraph is closed,
    and the token that says what they are worth."""

    @property
    def length(self) -> int:
        """Positions that are computed; each judgement closes the paragraph once more."""
        return len(self.ids) + len(self.relevance)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows of a run, and what became of those that were too long."""

    rows: list[Encoded]
    cut: int = 0
    dropped: int = 0


def encode_rows(
    tokenizer: Tokenizer, rows: Iterable[Row], *, max_length: int, too_long: TooLong
) -> EncodedRows:
    """Encode rows for training.

    Args:
        tokenizer: With the reflection tokens.
        rows: Any number.
        max_length: Longest row, in tokens.
        too_long: "cut" takes what is too much from the end of the paragraph, so that question and
            answer stay whole, and from the end of a corpus. A row is dropped that is too long
            without its paragraph, or of which no judgement that is left agrees with the last one:
            what told the answer was cut. "drop" leaves out every row that is too long.

    Raises:
        ConfigError: The tokenizer lacks a reflection token.
        TrainingDataError: There is no row to learn from.
    """
    kept: list[Encoded] = []
    cut = dropped = 0
    for encoded in _encode_all(tokenizer, rows):
        excess = len(encoded.ids) - max_length
        if excess <= 0:
            kept.append(encoded)
        elif too_long == "cut" and (shorter := _cut(encoded, excess)):
            cut += 1
            kept.append(shorter)
        else:
            dropped += 1
    if not kept:
        why = (
            f"all {dropped} were longer than max_length={max_length} and dropped"
            if dropped
            else "the recipe's files of rows hold none"
        )
        raise TrainingDataError(f"no row to learn from: {why}")
    return EncodedRows(kept, cut, dropped)


def encode_row(tokenizer: Tokenizer, row: Row) -> Encoded:
    """Encode one row, however long.

    Raises:
        ConfigError: The tokenizer lacks a reflection token.
    """
    (encoded,) = _encode_all(tokenizer, [row])
    return encoded


def _encode_all(tokenizer: Tokenizer, rows: Iterable[Row]) -> Iterator[Encoded]:
    tokens = {token: token_id(tokenizer, token) for token in TOKENS}
    begin = [piece for piece in opening(tokenizer, "") if isinstance(piece, int)]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    space = _word_start(tokenizer)
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        prompts = [begin if row.corpus else opening(tokenizer, row.input) for row in batch]
        responses = [
            [row.corpus] if row.corpus else _response(row.output, tokens, space) for row in batch
        ]
        ends = [[] if row.output.endswith(tuple(_REPLIES.values())) else end for row in batch]
        pieces = [[*a, *b, *c] for a, b, c in zip(prompts, responses, ends, strict=True)]
        starts = map(len, encode_all(tokenizer, prompts))
        whole, judged = encode_all(tokenizer, pieces), _judged(tokenizer, batch, tokens)
        for row, ids, start, own in zip(batch, whole, starts, judged, strict=True):
            labels = [*[IGNORED] * start, *ids[start:]]
            if row.corpus:
                yield Encoded(ids, labels, range(start, len(ids) - len(end)))
                continue
            inside = _inside(ids, tokens)
            labels[inside.start : inside.stop] = [IGNORED] * len(inside)
            first = inside.start - 1
            relevance = (
                (first + len(read), reply)
                for read, reply in own
                if ids[first : first + len(read)] == read  # it ends with a token
            )
            yield Encoded(ids, labels, inside, tuple(relevance))


def _response(output: str, tokens: Mapping[str, int], space: str) -> list[str | int]:
    """Pieces of the output; what a passage says is text, even if it reads like a token."""
    found = WHOLE_PARAGRAPH.search(output)
    if found is None:
        return _with_tokens(output, tokens, space)
    return [
        *_with_tokens(output[: found.start()], tokens, space),
        tokens[PARAGRAPH],
        found[1],
        tokens[END_PARAGRAPH],
        *_with_tokens(output[found.end() :], tokens, space),
    ]


def _with_tokens(text: str, tokens: Mapping[str, int], space: str) -> list[str | int]:
    return [
        tokens[stretch]
        if stretch in tokens
        else stretch
        if stretch[0].isspace()
        else f"{space}{stretch}"
        for stretch in split_tokens(text)
    ]


def _word_start(tokenizer: Tokenizer) -> str:
    """What an answer begins with, so that its first word is the token that it is in a passage.

    Byte-level tokenizers have other tokens for a word with and without a space in front; those of
    Llama 2 put a mark of their own there.
    """
    first = encode(tokenizer, [token_id(tokenizer, PARAGRAPH), "a"])[1]
    return "" if str(tokenizer.convert_ids_to_tokens(first)).startswith("▁") else " "


def _inside(ids: Sequence[int], tokens: Mapping[str, int]) -> range:
    """Positions of the paragraph's text; empty where there is none."""
    first, last = tokens[PARAGRAPH], tokens[END_PARAGRAPH]
    if first not in ids or last not in ids:
        return range(0)
    return range(ids.index(first) + 1, len(ids) - 1 - ids[::-1].index(last))


def _judged(
    tokenizer: Tokenizer, rows: Sequence[Row], tokens: Mapping[str, int]
) -> Iterator[list[tuple[list[int], int]]]:
    """Of each row, what is read before each judgement, with the mark in front, and the reply."""
    found = [WHOLE_PARAGRAPH.search(row.output) if row.relevance else None for row in rows]
    texts = [
        (tokens[PARAGRAPH], paragraph[1][:end])
        for row, paragraph in zip(rows, found, strict=True)
        if paragraph
        for end, _ in row.relevance
    ]
    read = iter(encode_all(tokenizer, texts) if texts else ())
    for row, paragraph in zip(rows, found, strict=True):
        replies = row.relevance if paragraph else ()
        yield [(next(read), tokens[_REPLIES[relevant]]) for _, relevant in replies]


def _cut(encoded: Encoded, excess: int) -> Encoded | None:
    """Shorter by so many tokens, or nothing where that cannot be."""
    if excess >= len(encoded.text):
        return None
    first, last = encoded.text.stop - excess, encoded.text.stop
    judged = tuple((read, reply) for read, reply in encoded.relevance if read <= first)
    if encoded.relevance and encoded.relevance[-1][1] not in {reply for _, reply in judged}:
        return None
    return Encoded(
        encoded.ids[:first] + encoded.ids[last:],
        encoded.labels[:first] + encoded.labels[last:],
        range(encoded.text.start, first),
        judged,
    )
