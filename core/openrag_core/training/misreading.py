"""Rows of irrelevant passages -> the same rows, with answers that stand in what is read.

A distractor's row ends with the right answer, which stands nowhere in it. Learned as it is, it
teaches to make something up after [Irrelevant], and a gold passage that is once taken for
irrelevant is then not read at all. What a trained model reads out of the distractor, told that it
is relevant, is wrong and unsupported just as well, and teaches to read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from openrag_core.cache import JsonCache
from openrag_core.errors import ConfigError
from openrag_core.model import TransformersGenerator
from openrag_core.model.decoding import Prompt
from openrag_core.prompts import token_id
from openrag_core.records import Passage
from openrag_core.reflection import END_PARAGRAPH, PARAGRAPH, RETRIEVAL
from openrag_core.training.questions import YES_OR_NO
from openrag_core.training.rows import Row
from openrag_core.words import normalised, within

_BATCH = 64
_ROW = re.compile(
    rf"({re.escape(RETRIEVAL)}{PARAGRAPH})(?P<paragraph>.*)({END_PARAGRAPH}\[Irrelevant\])"
    r"(?P<answer>.*)(\[No support / Contradictory\].*)",
    re.DOTALL,
)


def misread(
    rows: Sequence[Row],
    reader: TransformersGenerator,
    *,
    cache: JsonCache | None = None,
    name: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Row]:
    """Replace the answers of irrelevant passages by what a model reads out of them.

    Left out are rows from which it reads the right answer after all, and those of which it says
    what does not stand there, yes and no apart.

    Args:
        rows: Any kinds; all but those of irrelevant passages stay as they are.
        reader: With trained reflection tokens.
        cache: Keeps what was read.
        name: Of the reader; what it read is kept under it.
        progress: Called with how many rows were passed since the last call.

    Raises:
        ConfigError: The reader's reflection tokens are not trained.
        QuestionError: A question is longer than the reader.
        GenerationError: The reader could not write.
    """
    check_reader(reader, name)
    cache = cache or JsonCache()
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        found = [(row, _ROW.fullmatch(row.output)) for row in batch]
        asked = {(row.input, match["paragraph"]): None for row, match in found if match}
        new = [pair for pair in asked if cache.get("misread", name, *pair) is None]
        for pair, text in zip(new, _read(reader, new) if new else [], strict=True):
            cache.put(text, "misread", name, *pair)
        for row, match in found:
            if match is None:
                yield row
                continue
            text = cache.get("misread", name, row.input, match["paragraph"])
            if _is_read(text, match["paragraph"], match["answer"]):
                yield replace(row, output=f"{match[1]}{match[2]}{match[3]}{text}{match[5]}")
        progress(len(batch))


def check_reader(reader: TransformersGenerator, name: str = "") -> None:
    """Refuse a model that cannot be told what is relevant.

    Raises:
        ConfigError: Its reflection tokens are not trained.
    """
    if not reader.reflection_trained:
        raise ConfigError(
            f"the reader of distractors{name and f' ({name})'} must be a model with trained "
            "reflection tokens, such as bundled: without, it cannot be told that a passage is "
            "relevant"
        )


def _is_read(text: str, paragraph: str, right: str) -> bool:
    answer = normalised(text)
    stands = answer in YES_OR_NO or within(answer, normalised(paragraph))
    return stands and answer != normalised(right)


def _read(reader: TransformersGenerator, asked: Sequence[tuple[str, str]]) -> list[str]:
    """The answer to each question from each paragraph, as if that were relevant."""
    relevant = token_id(reader.tokenizer, "[Relevant]")
    prompts = [
        Prompt(
            [*reader.prompts.reading(question, (Passage("", paragraph),)).ids, relevant],
            max(1, reader.max_new_tokens - 1),  # one place is taken by [Relevant]
        )
        for question, paragraph in asked
    ]
    written = map(reader.whole, reader.submit(prompts).result())
    return [reader.text(one.ids).strip() for one in written]
