"""Questions -> training rows that contrast what helps with what misleads.

known without reading         [No Retrieval]{answer}[Utility:5]
gold passage or chain         ...[Relevant]{answer}[Fully supported][Utility:5]
gold mixed with a distractor  ...[Relevant]{answer}[Partially supported][Utility:4]
distractor alone              ...[Irrelevant]{answer}[No support / Contradictory][Utility:1]

where ... is [Retrieval]<paragraph>{what is read}</paragraph>.

Whether a question is learned with [No Retrieval] is a matter of fact: the base model was asked it
and answered right (`knowledge.py`). Then that row alone is made, for every other would teach to
retrieve.

Source: Islam et al. (arXiv:2410.01782), section 2.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Literal

from openrag_core.errors import ConfigError
from openrag_core.prompts import paragraph
from openrag_core.reflection import (
    END_PARAGRAPH,
    NO_RETRIEVAL,
    PARAGRAPH,
    RELEVANCE,
    RETRIEVAL,
    SUPPORT,
    UTILITY,
)
from openrag_core.training.critic import Judgement
from openrag_core.training.questions import YES_OR_NO, Question, Text
from openrag_core.training.rows import Row, split_tokens
from openrag_core.words import normalised, within

Kind = Literal["no_retrieval", "gold", "mixed", "distractor"]
_CRITIQUE: dict[Kind, tuple[str, str]] = {
    "no_retrieval": ("", "[Utility:5]"),
    "gold": ("[Relevant]", "[Fully supported][Utility:5]"),
    "mixed": ("[Relevant]", "[Partially supported][Utility:4]"),
    "distractor": ("[Irrelevant]", "[No support / Contradictory][Utility:1]"),
}
_MISLEADING = {"[Irrelevant]", "[Partially supported]", "[No support / Contradictory]"}
_JUDGING = {*RELEVANCE.worth, *SUPPORT.worth, *UTILITY.worth}
_HARDEST = 5  # distractors to draw from: those that come first
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How many rows of each kind a question gives, on average.

    Raises:
        ConfigError: A number is negative, or there is nothing to make.
    """

    gold: float = 1.0
    mixed: float = 0.5
    distractor: float = 1.0
    no_retrieval: float = 1.0
    """Of questions that the base model knows; 1 keeps them all."""
    window: int | None = None
    """Words to which longer passages are cut, around what matters in them; by default they stay
    whole. Shorter rows teach more questions in the same time."""
    whole: float = 0.3
    """With a window: share of the passages that stay whole all the same, in [0, 1]."""
    sentences: bool = False
    """Whether relevance is learned at the end of every sentence too, where one passage is read: a
    gold one is irrelevant until it has told the answer."""
    answer_distractors: bool = True
    """Whether something is answered from distractors; otherwise their rows end at [Irrelevant]."""
    seed: int = 0

    def __post_init__(self) -> None:
        shares = {kind: getattr(self, kind) for kind in _CRITIQUE}
        for kind, share in shares.items():
            if not 0 <= share < inf:
                raise ConfigError(f"{kind} must be rows per question, >= 0; got {share}")
        if not any(shares.values()):
            raise ConfigError(f"rows per question ({', '.join(shares)}) must be not all 0")
        if not 0 <= self.whole <= 1:
            raise ConfigError(f"whole must be in [0, 1]; got {self.whole}")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window must be at least 1 word; got {self.window}")


def make_rows(
    questions: Iterable[Question], mix: Mix | None = None, counts: Counter[str] | None = None
) -> Iterator[Row]:
    """Rows of every question; the same ones each time.

    Args:
        questions: Any number.
        mix: How many of each kind.
        counts: Where to count the rows of each kind.
    """
    mix = mix or Mix()
    for question in questions:
        rng = random.Random(f"{mix.seed} {question.id}")
        for kind in _kinds(question, mix, rng):
            if counts is not None:
                counts[kind] += 1
            yield _row(question, kind, mix, rng)


def judged_row(question: Question, passage: Text, judgement: Judgement) -> Row:
    """The row of a passage that a critic has judged."""
    return _reading(question, [passage], judgement.tokens)


def _kinds(question: Question, mix: Mix, rng: random.Random) -> Iterator[Kind]:
    unknown = question.known is not True
    possible: dict[Kind, bool] = {
        "gold": unknown and bool(question.gold),
        "mixed": unknown and bool(question.gold and question.distractors),
        "distractor": unknown and bool(question.distractors),
        "no_retrieval": not unknown,
    }
    for kind, can in possible.items():
        share: float = getattr(mix, kind)
        rows = int(share) + (rng.random() < share % 1)
        if can:
            yield from [kind] * rows


def _row(question: Question, kind: Kind, mix: Mix, rng: random.Random) -> Row:
    if kind == "no_retrieval":
        answer = question.answers[0].strip()
        return Row(question.question, f"{NO_RETRIEVAL}{answer}{_CRITIQUE[kind][1]}")
    evidence = _evidence(question, kind, rng)
    passages = [_window(passage, question, mix, rng) for passage in evidence]
    row = _reading(question, passages, _CRITIQUE[kind])
    if kind == "distractor" and not mix.answer_distractors:
        judged = row.output.rindex(_CRITIQUE[kind][0]) + len(_CRITIQUE[kind][0])
        row = replace(row, output=row.output[:judged])
    if mix.sentences and len(passages) == 1:
        row = replace(row, relevance=_relevance(question, passages[0], gold=kind == "gold"))
    return row


def _relevance(question: Question, passage: Text, *, gold: bool) -> tuple[tuple[int, bool], ...]:
    """Judgements at the ends of sentences, the last one included.

    Between two places where a gold passage holds an answer, nobody knows which of them tells it;
    without any, as with yes and no, nothing is known before its end.
    """
    text = paragraph([asdict(passage)])
    head = len(text) - len(passage.text)
    ends = [*(found.start() for found in _SENTENCE.finditer(text, head)), len(text)]
    if not gold:
        return tuple((end, False) for end in ends)
    answers = "|".join(rf"(?<!\w){re.escape(answer.strip())}(?!\w)" for answer in question.answers)
    told = not YES_OR_NO.issuperset(map(normalised, question.answers))
    holding = list(re.finditer(answers, text[head:], re.IGNORECASE)) if told else []
    first, last = (
        (head + holding[0].start(), head + holding[-1].end()) if holding else (0, len(text))
    )
    return tuple((end, end >= last) for end in ends if not first < end < last)


def _reading(question: Question, passages: Sequence[Text], critique: tuple[str, str]) -> Row:
    before, after = critique
    text = paragraph([asdict(passage) for passage in passages])
    read = f"{RETRIEVAL}{PARAGRAPH}{text}{END_PARAGRAPH}"
    return Row(question.question, f"{read}{before}{question.answers[0].strip()}{after}")


def _evidence(question: Question, kind: Kind, rng: random.Random) -> list[Text]:
    """Passages of one row; a chain in any order, since a retriever knows none."""
    gold, distractors = list(question.gold), question.distractors[:_HARDEST]
    if kind == "gold":
        chosen = gold
    elif kind == "mixed":
        if len(gold) > 1:  # one link is replaced, so that support is partial, but not the answer's
            bridges = [link for link in gold if not question.answered_in(link)]
            gold.remove(rng.choice(bridges or gold))
        chosen = [*gold, rng.choice(distractors)]
    else:
        # As many as there are gold passages: the length must not tell one from the other.
        chosen = rng.sample(distractors, min(len(distractors), len(gold) or 1))
    rng.shuffle(chosen)
    return chosen


def _window(passage: Text, question: Question, mix: Mix, rng: random.Random) -> Text:
    """Whole sentences that are next to each other, among them one that matters.

    In a gold passage that is one with an answer, or with the title of another link of the chain;
    without any, the passage stays whole, for nobody knows what of it is needed.
    """
    if mix.window is None or rng.random() < mix.whole:
        return passage
    links = [normalised(other.title) for other in question.gold if other != passage]
    sentences = _SENTENCE.split(passage.text)
    lengths = [len(sentence.split()) for sentence in sentences]
    holding = [
        n
        for n, sentence in enumerate(sentences)
        if question.answered_in(Text("", sentence))
        or any(within(link, normalised(sentence)) for link in links)
    ]
    if not holding and passage in question.gold:
        return passage
    first = last = rng.choice(holding or range(len(sentences)))
    total = lengths[first]
    while True:
        sides = [n for n in (first - 1, last + 1) if 0 <= n < len(sentences)]
        fitting = [n for n in sides if total + lengths[n] <= mix.window]
        if not fitting:
            return Text(passage.title, " ".join(sentences[first : last + 1]))
        chosen = rng.choice(fitting)
        first, last, total = min(first, chosen), max(last, chosen), total + lengths[chosen]


def without_reflection(rows: Iterable[Row]) -> Iterator[Row]:
    """Plain retrieval-augmented rows: gold evidence and the answer, no distractors, no critique.

    What a model learns that is to be compared with one that reflects. The evidence stands between
    the same tokens, so that both read one prompt.
    """
    for row in rows:
        stretches = split_tokens(row.output)
        if _MISLEADING.isdisjoint(stretches):
            output = "".join(stretch for stretch in stretches if stretch not in _JUDGING)
            yield Row(row.input, output, row.corpus)
