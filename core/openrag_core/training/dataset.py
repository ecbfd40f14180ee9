"""Questions -> all rows of a training set."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil
from typing import Literal

from openrag_core.cache import JsonCache
from openrag_core.errors import ConfigError, TrainingDataError
from openrag_core.model import TransformersGenerator
from openrag_core.ports import Generator, Retriever
from openrag_core.training.critic import Critic, check_critic, judge_all
from openrag_core.training.distractors import mine_distractors, misleads
from openrag_core.training.examples import Mix, judged_row, make_rows
from openrag_core.training.instructions import instructions
from openrag_core.training.knowledge import label_known
from openrag_core.training.misreading import check_reader, misread
from openrag_core.training.questions import Question, Text
from openrag_core.training.rows import Row

Stage = Literal[
    "mining distractors",
    "asking the base",
    "asking for instructions",
    "judging",
    "reading distractors",
]
_DRAWN, _FEWEST = 512, 32  # instructions drawn at a time, until enough of them are known


@dataclass(frozen=True, slots=True, kw_only=True)
class Helpers:
    """Who fills in what the questions do not say; without one, that is left out.

    Raises:
        ConfigError: The critic is none, or the reader's reflection tokens are not trained.
    """

    base: Generator | None = None
    """Asked without reading, to learn which questions need no retrieval."""
    base_name: str = ""
    """Labels are kept under it."""
    retriever: Retriever | None = None
    """Finds hard distractors."""
    whole: Mapping[str, Text] = field(default_factory=dict)
    """By source, what the retriever's pieces were cut from."""
    critic: Critic | None = None
    """Labels passages of which nothing is known."""
    reader: TransformersGenerator | None = None
    """Reads the answers of irrelevant passages' rows out of these."""
    reader_name: str = ""
    """What it reads is kept under it."""
    cache: JsonCache = field(default_factory=JsonCache)
    """Keeps what the base, the critic and the reader said."""

    def __post_init__(self) -> None:
        if self.reader is not None:
            check_reader(self.reader, self.reader_name)
        if self.critic is not None:
            check_critic(self.critic)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows, and what they are."""

    rows: list[Row]
    kinds: Counter[str]
    """How many rows of each kind."""
    no_retrieval: float
    """Share of the questions that are learned with [No Retrieval], in [0, 1]; of the rows it is
    smaller, since other questions give more than one."""
    without_passages: int = 0
    """Questions that give no row: they have no passages, and the base does not know them."""


def build_dataset(
    questions: Sequence[Question],
    mix: Mix | None = None,
    helpers: Helpers | None = None,
    *,
    min_no_retrieval: float = 0.2,
    progress: Callable[[Stage, int, int], None] = lambda *_: None,
) -> Dataset:
    """Make a training set.

    With a base to ask, instructions that it can do are mixed in until enough questions are
    learned with [No Retrieval]; they come after the others, and training draws its own order.

    Args:
        questions: Any number; what was labelled in them before is kept.
        mix: How many rows of each kind.
        helpers: Who fills in what is missing.
        min_no_retrieval: Share of the questions, in [0, 1).
        progress: Called with the stage, how much was done since the last call, and of how much
            (0 where nobody knows).

    Raises:
        ConfigError: The share is outside its range, or a reader has nothing to read.
        TrainingDataError: No row comes of the questions.
        CriticError: The critic fails; what it said before is kept in the cache.
    """
    if not 0 <= min_no_retrieval < 1:
        raise ConfigError(f"min_no_retrieval is a share, in [0, 1); got {min_no_retrieval}")
    mix, helpers = mix or Mix(), helpers or Helpers()
    if helpers.reader is not None and helpers.critic is None and not mix.answer_distractors:
        raise ConfigError(
            "a reader reads the distractors' answers, and these rows end before them "
            "(--judge-only, answer_distractors=False): leave out one of the two"
        )
    if helpers.retriever is not None:
        questions = list(
            mine_distractors(
                questions,
                helpers.retriever,
                whole=helpers.whole,
                progress=lambda n: progress("mining distractors", n, len(questions)),
            )
        )
    questions = [
        replace(q, distractors=tuple(text for text in q.distractors if misleads(q, text)))
        for q in questions
    ]
    if helpers.base is not None:
        questions = _labelled(questions, helpers, min_no_retrieval, mix.seed, progress)
    kinds: Counter[str] = Counter()
    rows = _misread(list(make_rows(questions, mix, kinds)), helpers, progress)
    kinds["distractor"] -= kinds.total() - len(rows)
    if helpers.critic is not None:
        unknown = [question for question in questions if question.known is not True]
        total = sum(len(question.passages) for question in unknown)
        judged = judge_all(
            unknown,
            helpers.critic,
            cache=helpers.cache,
            progress=lambda n: progress("judging", n, total),
        )
        more = _misread([judged_row(*one) for one in judged], helpers, progress)
        kinds["judged"] = len(more)
        rows += more
    if not rows:
        raise TrainingDataError(
            "no row comes of these questions: they need gold passages or distractors, or "
            "passages and a critic, or a base that knows their answers"
        )
    return Dataset(rows, +kinds, _share(questions), sum(map(_has_nothing, questions)))


def _misread(
    rows: list[Row], helpers: Helpers, progress: Callable[[Stage, int, int], None]
) -> list[Row]:
    if helpers.reader is None:
        return rows
    return list(
        misread(
            rows,
            helpers.reader,
            cache=helpers.cache,
            name=helpers.reader_name,
            progress=lambda n: progress("reading distractors", n, len(rows)),
        )
    )


def _labelled(
    questions: Sequence[Question],
    helpers: Helpers,
    share: float,
    seed: int,
    progress: Callable[[Stage, int, int], None],
) -> list[Question]:
    assert helpers.base is not None
    stage: Stage = "asking the base"

    def label(asked: Sequence[Question], total: int) -> list[Question]:
        assert helpers.base is not None
        return list(
            label_known(
                helpers.base,
                asked,
                cache=helpers.cache,
                name=helpers.base_name,
                progress=lambda n: progress(stage, n, total),
            )
        )

    labelled = label(questions, len(questions))
    stage = "asking for instructions"
    drawn = instructions(sys.maxsize, seed=seed)
    while missing := _missing(labelled, share):
        count = min(_DRAWN, max(_FEWEST, 3 * missing))  # a small base knows two in five
        more = list(islice(drawn, count))
        if not more:
            break
        labelled += [question for question in label(more, 0) if question.known][:missing]
    return labelled


def _missing(questions: Sequence[Question], share: float) -> int:
    """How many known questions have to be added until they are the share."""
    known = sum(question.known is True for question in questions)
    wanted = (share * len(questions) - known) / (1 - share)
    return max(0, ceil(round(wanted, 6)))


def _has_nothing(question: Question) -> bool:
    return not (question.known or question.gold or question.distractors or question.passages)


def _share(questions: Sequence[Question]) -> float:
    return sum(question.known is True for question in questions) / max(1, len(questions))
