"""What a base model knows without reading: the truth that the gate is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from openrag_core.cache import JsonCache
from openrag_core.ports import Generator
from openrag_core.training.questions import YES_OR_NO, Question
from openrag_core.words import normalised, within

_BATCH = 256


def label_known(
    generator: Generator,
    questions: Sequence[Question],
    *,
    cache: JsonCache | None = None,
    name: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Question]:
    """Ask a model each question and note whether it knows the answer.

    Args:
        generator: The base, asked through its chat template.
        questions: Where `known` is set already, it is left.
        cache: Keeps the labels of each batch.
        name: Of the model; labels are kept under it.
        progress: Called with how many were labelled since the last call.
    """
    cache = cache or JsonCache()
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        kept = [
            question.known if question.known is not None else cache.get(*_key(name, question))
            for question in batch
        ]
        unknown = [q for q, known in zip(batch, kept, strict=True) if known is None]
        for question, draft in zip(
            unknown, generator.draft([question.question for question in unknown]), strict=True
        ):
            cache.put(answered(question, draft.text), *_key(name, question))
        for question, known in zip(batch, kept, strict=True):
            label = cache.get(*_key(name, question)) if known is None else known
            yield replace(question, known=label)
        progress(len(batch))


def _key(name: str, question: Question) -> tuple[str, str, tuple[str, ...]]:
    return name, question.question, question.answers


def answered(question: Question, text: str) -> bool:
    """Whether a text shows that its writer knows the answer.

    An answer must stand in it as whole words, both normalised as for SQuAD. Yes and no, which a
    coin knows as well, count for nothing; an answer that the question names itself ("Which is
    older, A or B?") only if the text is that and no more.

    Args:
        question: With its answers.
        text: What was written.
    """
    asked, said = normalised(question.question), normalised(text)
    for answer in map(normalised, question.answers):
        if not answer or answer in YES_OR_NO:
            continue
        if said == answer if within(answer, asked) else within(answer, said):
            return True
    return False
