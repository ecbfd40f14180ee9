"""Training rows in the layout of the published Open-RAG training set.

    {"instruction": "", "conversation": [{"input": QUESTION, "output": RESPONSE}], "corpus": ""}

A turn may have one more field, "relevance": see `Row`.

A row with a `corpus` is plain language modelling. Otherwise its one turn is learned: the reflection
tokens stand in the output as text. Rows of several turns and the field `instruction` are passed
over, as the released training does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from openrag_core import json_lines
from openrag_core._extras import need
from openrag_core.errors import TrainingDataError
from openrag_core.reflection import END_PARAGRAPH, PARAGRAPH, TOKENS

read_json_lines = partial(json_lines.read_json_lines, error=TrainingDataError)
write_json_lines = partial(json_lines.write_json_lines, error=TrainingDataError)
text_field = partial(json_lines.text_field, error=TrainingDataError)
check_names = partial(json_lines.check_names, error=TrainingDataError)

WHOLE_PARAGRAPH = re.compile(f"{PARAGRAPH}(.*){END_PARAGRAPH}", re.DOTALL)
"""A passage in a response: to the last end, since its text may read like one."""
_TURN = ("input", "output", "relevance")
_TOKEN = re.compile(f"({'|'.join(map(re.escape, TOKENS))})")
_LOWER = {token.lower(): token for token in TOKENS}
_BRACKETED = re.compile(r"\[[A-Za-z][^\[\]\n]{2,40}\]|</?[a-z]{3,12}>")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to learn."""

    input: str = ""
    """The question, without template."""
    output: str = ""
    """The response to it, reflection tokens included."""
    corpus: str = ""
    """In place of both: text to learn as it is."""
    relevance: tuple[tuple[int, bool], ...] = ()
    """Judgements that are learned beside the response: how many characters of the paragraph were
    read, and whether they are relevant. The published rows have none."""

    def to_dict(self) -> dict[str, Any]:
        """The published layout."""
        turn: dict[str, Any] = {"input": self.input, "output": self.output}
        if self.relevance:
            turn["relevance"] = [
                {"characters": end, "relevant": relevant} for end, relevant in self.relevance
            ]
        return {
            "instruction": "",
            "conversation": [] if self.corpus else [turn],
            "corpus": self.corpus,
        }


def read_rows(source: str | Path) -> Iterator[Row]:
    """Rows of a file, or of a dataset on a model hub.

    Args:
        source: A .jsonl or .jsonl.gz file; or NAME or NAME:SUBSET of a dataset, such as
            "shayekh/openrag_train_data:moe", whose split "train" is read (extra: hub).

    Raises:
        TrainingDataError: There is no such file or dataset, or a row is malformed, or in a file
            holds a slip of a reflection token; the message names file, line and field.
        MissingExtraError: A dataset is asked for without the extra.
    """
    path = Path(source)
    own = path.suffix in {".jsonl", ".gz"} or path.is_file()
    lines: Iterable[tuple[str, Any]] = read_json_lines(path) if own else _read_dataset(str(source))
    for where, content in lines:
        if row := _row(where, content):
            if own:  # a dataset on a hub is not the reader's to mend
                _check_tokens(where, row.output)
            yield row


def write_rows(rows: Iterable[Row], file: str | Path) -> int:
    """Write rows as JSON lines; the file takes its name when all are there.

    Returns:
        How many.
    """
    return write_json_lines((row.to_dict() for row in rows), file)


def split_tokens(text: str) -> list[str]:
    """Reflection tokens, and the stretches of text between them."""
    return [stretch for stretch in _TOKEN.split(text) if stretch]


def _row(where: str, content: dict[str, Any]) -> Row | None:
    corpus = text_field(where, content, "corpus", default="")
    if corpus:
        return Row(corpus=corpus)
    turns = content.get("conversation")
    if turns is None and "question" in content:
        raise TrainingDataError(
            f"{where} is a question, not a row: openrag data build makes rows of a questions file"
        )
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise TrainingDataError(
            f"{where}: field 'conversation' must be a list of {{'input', 'output'}}; "
            f"{'it is absent' if turns is None else f'got {str(turns)[:80]!r}'}"
        )
    if len(turns) != 1:
        return None
    turn = f"{where}, conversation"
    check_names(turn, turns[0], _TURN)
    output = text_field(turn, turns[0], "output")
    return Row(
        text_field(turn, turns[0], "input"), output, relevance=_relevance(turn, turns[0], output)
    )


def _relevance(where: str, turn: dict[str, Any], output: str) -> tuple[tuple[int, bool], ...]:
    judged = turn.get("relevance")
    if judged is None:  # so in a dataset whose other rows have some
        return ()
    found = WHOLE_PARAGRAPH.search(output)
    longest = len(found[1]) if found else 0
    made: list[tuple[int, bool]] = []
    read = 0
    for one in judged if isinstance(judged, list) else [judged]:
        match one:
            case {"characters": int(end), "relevant": bool(relevant)} if (
                len(one) == 2 and end is not True and read < end <= longest
            ):
                made.append((read := end, relevant))
            case _:
                raise TrainingDataError(
                    f"{where}: field 'relevance' must be a list of {{'characters', 'relevant'}}, "
                    f"growing numbers of the paragraph's {longest} characters and true or false; "
                    f"got {str(one)[:80]}"
                )
    return tuple(made)


def _check_tokens(where: str, output: str) -> None:
    """Refuse what would be learned as words and was meant as a token."""
    for bracketed in _BRACKETED.findall(WHOLE_PARAGRAPH.sub(PARAGRAPH, output)):
        if bracketed in TOKENS:
            continue
        for meant in get_close_matches(bracketed.lower(), _LOWER, n=1, cutoff=0.8):
            raise TrainingDataError(
                f"{where}, conversation: field 'output' holds {bracketed!r}, which is no "
                f"reflection token: is {_LOWER[meant]!r} meant?"
            )


def _read_dataset(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    need("hub", "datasets")
    from datasets import load_dataset  # noqa: PLC0415  (an extra)

    name, _, subset = source.partition(":")
    try:
        dataset = load_dataset(name, subset or None, split="train")
    except Exception as error:  # hubs, proxies and caches fail in many ways
        raise TrainingDataError(
            f"no training rows {source!r}: it is no .jsonl file here, and no hub gave a dataset "
            f"of that name ({type(error).__name__}: {error})"
        ) from error
    for number, content in enumerate(dataset, start=1):
        yield f"{source}, row {number}", content
