"""Questions with what is known about them, as JSON lines.

    {"id": ..., "question": ..., "answers": [...],
     "gold": [{"title", "text"}, ...], "distractors": [...], "passages": [...],
     "known": true | false | null}

Only `question` and `answers` must be there. More than one gold passage is a chain: the answer needs
all of them. Of `passages` nobody knows what they are: a critic says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from openrag_core.errors import TrainingDataError
from openrag_core.training.rows import (
    check_names,
    read_json_lines,
    text_field,
    write_json_lines,
)
from openrag_core.words import normalised, within

YES_OR_NO = frozenset({"yes", "no"})
"""Answers that are judged, and stand in no passage; normalised."""


@dataclass(frozen=True, slots=True)
class Text:
    """A passage to learn from."""

    title: str
    text: str

    @property
    def titled_text(self) -> str:
        """The text below its title, as it is read."""
        return f"{self.title}\n{self.text}".strip()


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answers, and passages that do and do not answer it."""

    id: str
    question: str
    answers: tuple[str, ...]
    """Each is right; the first one is learned."""
    gold: tuple[Text, ...] = ()
    """Passages that answer it, all of them together."""
    distractors: tuple[Text, ...] = ()
    """Passages that look as if they did, the hardest first."""
    passages: tuple[Text, ...] = ()
    """Passages without a label."""
    known: bool | None = None
    """Whether the base model answers it without reading; None where it was not asked."""

    def answered_in(self, passage: Text) -> bool:
        """Whether an answer stands in what is read of a passage; yes and no stand nowhere."""
        text = normalised(passage.titled_text)
        answers = {normalised(answer) for answer in self.answers} - YES_OR_NO
        return any(within(answer, text) for answer in answers)


_FIELDS = tuple(field.name for field in fields(Question))


def read_questions(path: str | Path) -> Iterator[Question]:
    """Questions of a .jsonl or .jsonl.gz file.

    Raises:
        TrainingDataError: It cannot be read, or a field is malformed; the message names file,
            line and field.
    """
    for where, content in read_json_lines(path):
        yield _question(where, content)


def read_passages(path: str | Path) -> dict[str, Text]:
    """Passages of a .jsonl or .jsonl.gz file, {"id", "title", "text"} each, by id.

    Raises:
        TrainingDataError: It cannot be read, a field is malformed (the message names file, line
            and field), an id is there twice, or there is no passage at all.
    """
    passages: dict[str, Text] = {}
    for where, content in read_json_lines(path):
        name = text_field(where, content, "id")
        if name in passages:
            raise TrainingDataError(
                f"{where}: the id {name!r} is there already: give each passage its own"
            )
        title = text_field(where, content, "title", default="")
        passages[name] = Text(title, text_field(where, content, "text"))
    if not passages:
        raise TrainingDataError(f"{path}: there is no passage in it")
    return passages


def write_questions(questions: Iterable[Question], path: str | Path) -> int:
    """Write questions; the file takes its name when all are there.

    Returns:
        How many.
    """
    return write_json_lines((asdict(question) for question in questions), path)


def _question(where: str, content: dict[str, Any]) -> Question:
    check_names(where, content, _FIELDS)
    answers = content.get("answers")
    if not isinstance(answers, list) or not answers or not all(map(_is_text, answers)):
        raise TrainingDataError(
            f"{where}: field 'answers' must be a list of at least one text; "
            f"{'it is absent' if answers is None else f'got {answers!r}'}"
        )
    known = content.get("known")
    if known is not None and not isinstance(known, bool):
        raise TrainingDataError(f"{where}: field 'known' must be true, false or null")
    place = where.rpartition(", ")[2]  # the same rows are drawn wherever the file lies
    return Question(
        id=text_field(where, content, "id", default=place),
        question=_full_text(where, content, "question"),
        answers=tuple(answers),
        gold=_passages(where, content, "gold"),
        distractors=_passages(where, content, "distractors"),
        passages=_passages(where, content, "passages"),
        known=known,
    )


def _passages(where: str, content: dict[str, Any], name: str) -> tuple[Text, ...]:
    passages = [] if content.get(name) is None else content[name]
    if not isinstance(passages, list) or not all(isinstance(one, dict) for one in passages):
        raise TrainingDataError(f"{where}: field {name!r} must be a list of {{'title', 'text'}}")
    at = f"{where}, {name}"
    for one in passages:
        check_names(at, one, ("title", "text"))
    return tuple(
        Text(text_field(at, one, "title", default=""), _full_text(at, one, "text"))
        for one in passages
    )


def _full_text(where: str, content: dict[str, Any], name: str) -> str:
    text = text_field(where, content, name)
    if not text.strip():
        raise TrainingDataError(f"{where}: field {name!r} must not be blank")
    return text


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
