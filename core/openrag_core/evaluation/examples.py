"""What is asked in an evaluation, as every layout of it is read: see `layouts`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrag_core.errors import EvaluationError
from openrag_core.evaluation import layouts
from openrag_core.json_lines import read_json_lines
from openrag_core.records import Passage

NOT_ENOUGH = "not enough information"
LABELS: Mapping[str, tuple[str, ...]] = {
    "true": ("true", "supports", "support", "supported"),
    "false": ("false", "refutes", "refute", "contradict", "contradicts"),
    NOT_ENOUGH: ("not enough info", "notenoughinfo", "nei", NOT_ENOUGH),
}
"""Of claims, and what the data sets call them, normalised."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question with what is known about it."""

    id: str
    question: str
    """As it would be asked of an index."""
    answers: tuple[str, ...]
    """Each is right; none where it is not answerable, or nobody knows one."""
    answerable: bool = True
    kind: str = ""
    """What the data set calls it, such as "bridge" or "comparison"."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Of a closed question: text by letter, or by label."""
    answer_key: str | None = None
    """The right one of the choices."""
    passages: tuple[Passage, ...] = ()
    """That come with the row. In their order where a retriever ranked them; otherwise shuffled, by
    the id, for the gold ones stand first in the files."""
    gold: frozenset[str] = frozenset()
    """Ids of the passages that tell the answer; without `gold_ids` their titles too, by which an
    index may know them."""
    short_answers: tuple[tuple[str, ...], ...] = ()
    """Of each question that a long answer has to answer."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other plain values of the row, such as its popularity."""


def read_examples(
    path: Path, *, claims: bool = False, unanswerable: bool = False, unknown: bool = False
) -> list[Example]:
    """Examples of a file.

    Args:
        path: .jsonl or .json, perhaps with .gz; its layout is known by its keys.
        claims: Whether the answers are labels of claims.
        unanswerable: Whether rows without an answer are those that cannot be answered.
        unknown: Whether rows may leave the answers out, since nobody knows them.

    Raises:
        EvaluationError: It cannot be read, a field is missing or malformed (the message names file,
            line and field), an id is there twice, or there is no row at all.
    """
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(read_json_lines(path, error=EvaluationError), start=1):
        example = _example(where, row, number, unanswerable=unanswerable, unknown=unknown)
        example = _claim(where, example) if claims else example
        if example.id in seen:
            raise EvaluationError(
                f"{where}: the id {example.id!r} is there already ({seen[example.id]}): "
                "give each row its own"
            )
        seen[example.id] = where
        examples.append(example)
    if not examples:
        raise EvaluationError(f"{path}: there is no row in it")
    return _with_labels(examples) if claims else examples


def _example(
    where: str, row: Mapping[str, Any], number: int, *, unanswerable: bool, unknown: bool
) -> Example:
    choices, key = layouts.choices(where, row)
    nobody_knows = unknown and not layouts.tells_answers(row)
    answers: tuple[str, ...] = ()
    if not nobody_knows:
        answers = (choices[key],) if key is not None else layouts.answers(where, row)
    answerable = bool(answers) or nobody_knows
    if not answerable and not unanswerable:
        raise EvaluationError(
            f"{where}: the row has no answer: leave such rows out, or choose a task that asks for "
            "abstention, such as squad_v2"
        )
    ids = (row.get("id"), row.get("_id"), row.get("sample_id"), number)  # the last but one: ASQA's
    name = str(next(i for i in ids if i is not None))
    passages, gold = layouts.passages(where, row)
    ranked = layouts.are_ranked(row)
    return Example(
        id=name,
        question=layouts.question(where, row),
        answers=answers,
        answerable=answerable,
        kind=layouts.kind(row),
        choices=choices,
        answer_key=key,
        passages=tuple(passages if ranked else _shuffled(passages, name)),
        gold=gold if answerable else frozenset(),
        short_answers=layouts.short_answers(where, row),
        extra={
            name: value
            for name, value in row.items()
            if isinstance(value, (bool, int, float)) and name not in {"id", "_id"}
        },
    )


def _shuffled(passages: Sequence[Passage], seed: str) -> list[Passage]:
    return random.Random(seed).sample(passages, len(passages))


def _claim(where: str, example: Example) -> Example:
    given = layouts.plain(example.answers[0]) if example.answers else ""
    label = next((label for label, names in LABELS.items() if given in names), None)
    if label is None:
        raise EvaluationError(
            f"{where}: the label of a claim must be true, false, or not enough information (or "
            f"what FEVER and SciFact call them); got {example.answers[:1]}"
        )
    told = label != NOT_ENOUGH
    return replace(example, answers=(label,), answer_key=label, answerable=told)


def _with_labels(examples: list[Example]) -> list[Example]:
    """A file that knows two labels is a choice of two."""
    there = {example.answer_key for example in examples} | {"true", "false"}
    choices = {label: label for label in LABELS if label in there}
    return [replace(example, choices=choices) for example in examples]
