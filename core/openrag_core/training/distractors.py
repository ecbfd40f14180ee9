"""Passages that look right and are not: what retrieval itself brings for a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from openrag_core.ports import Retriever
from openrag_core.training.questions import Question, Text

_BATCH = 64


def mine_distractors(
    questions: Sequence[Question],
    retriever: Retriever,
    *,
    number: int = 5,
    fetch_k: int = 20,
    whole: Mapping[str, Text] = MappingProxyType({}),
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Question]:
    """Put in front of the distractors of each question the best found passages without its answer.

    A passage that holds the answer, or repeats a gold one, is none.

    Args:
        questions: Any number.
        retriever: Over passages like those that will be asked about.
        number: Distractors to add per question, at most.
        fetch_k: Passages to look through.
        whole: By source, what the pieces in the index were cut from: a distractor must not be told
            from a gold passage by how it was cut.
        progress: Called with how many questions were done since the last call.
    """
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        found = retriever.retrieve([question.question for question in batch], fetch_k)
        for question, passages in zip(batch, found, strict=True):
            texts = dict.fromkeys(
                whole.get(passage.source) or Text(passage.title, passage.text)
                for passage in passages
            )
            mined = [text for text in texts if misleads(question, text)][:number]
            others = [text for text in question.distractors if text not in mined]
            yield replace(question, distractors=(*mined, *others))
        progress(len(batch))


def misleads(question: Question, passage: Text) -> bool:
    """Whether a passage neither holds an answer nor repeats a gold passage."""
    repeats = any(passage.text[:60] in gold.text for gold in question.gold)
    return not (repeats or question.answered_in(passage))
