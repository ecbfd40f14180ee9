"""Questions with answers from the user's own documents, written and criticised by a chat model.

Source: the three critiques are those of Hugging Face's cookbook on the evaluation of RAG.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from openrag_core.cache import JsonCache
from openrag_core.conversation import ChatModel
from openrag_core.errors import ConfigError, EvaluationError
from openrag_core.evaluation.asking import FREE, NOTHING, ChatClient, Price, Usage
from openrag_core.evaluation.cases import Case
from openrag_core.evaluation.critiques import CRITIQUES, writing
from openrag_core.evaluation.rubrics import Rubric
from openrag_core.json_lines import write_json_lines
from openrag_core.records import Passage
from openrag_core.replies import validated
from openrag_core.steps import Call, Steps, arun, run
from openrag_core.words import count_words, normalised, within

if TYPE_CHECKING:
    from openrag_core.retrieval import PassageIndex

_TEXT = "(?:passage|text|document|excerpt|extract|paragraph|article|context|section)s?"
_REFERRING = re.compile(
    rf"\b(?:(?:this|these|provided|given|following|above|preceding) {_TEXT}"
    rf"|(?:in|to|by|from) the {_TEXT}|{_TEXT} (?:above|below)|the passage(?! of)"
    r"|mentioned (?:above|below)|(?:above|below)[- ]mentioned)\b",
    re.IGNORECASE,
)


class Draft(BaseModel):
    """What the model writes about a passage."""

    question: str | None
    """None where there is nothing to ask."""
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class SyntheticQuestion:
    """A question, its answer, and the passage that answers it."""

    id: str
    question: str
    answer: str
    passage: Passage

    def to_dict(self) -> dict[str, Any]:
        """A line of a file of questions, as `openrag data build` and `openrag eval` read it."""
        gold = {"title": self.passage.title, "text": self.passage.text}
        return {
            "id": self.id,
            "question": self.question,
            "answers": [self.answer],
            "gold": [gold],
            "gold_ids": [self.passage.id],
        }


@dataclass(slots=True)
class Synthesis:
    """What came of it."""

    questions: list[SyntheticQuestion] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """How many passages gave no question, by the reason."""
    usage: Usage = NOTHING
    """Of all requests, each counted once, whenever it was made."""
    paid: Usage = NOTHING
    """Of those that were made now; the others were in the cache."""
    price: Price = FREE

    def write(self, file: Path) -> int:
        """Write the questions as JSON lines; the file takes its name when all are there.

        Returns:
            How many.

        Raises:
            EvaluationError: The file cannot be written.
        """
        rows = (question.to_dict() for question in self.questions)
        return write_json_lines(rows, file, error=EvaluationError)

    def summary(self) -> dict[str, Any]:
        """How many were kept and dropped, and the cost."""
        return {
            "kept": len(self.questions),
            "dropped": dict(self.dropped.most_common()),
            "usage": asdict(self.usage) | {"cost": self.usage.cost(self.price)},
            "paid_now": asdict(self.paid) | {"cost": self.paid.cost(self.price)},
        }


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of one passage."""

    passage: Passage
    question: str = ""
    answer: str = ""
    dropped: str = ""
    usage: Usage = NOTHING
    paid: Usage = NOTHING


class Synthesizer:
    """Has a chat model write a question about a passage, and grade it.

    What it replies is kept at once: a run that was interrupted goes on, and pays nothing twice.

    Args:
        chat: The chat model.
        name: What tells the model from others; by default its own `name`.
        threshold: A question that a critique grades lower is dropped.
        critiques: What is asked about each question, one after the other until one drops it.
        min_words: Passages of fewer are not asked about; two characters are a word where white
            space tells none.
        concurrency: Most requests at once; >= 1.
        attempts: How often the model is asked where it fails, and where its reply is no JSON.
        cache: Keeps what it replies; by default in memory.
        price: Of the model, for the cost.
        longest_pause: Between attempts, in seconds.

    Raises:
        ConfigError: A setting is outside its range, or replies are to be kept of a model without
            a name.
    """

    def __init__(  # noqa: PLR0913  (each is named where it is called)
        self,
        chat: ChatModel,
        *,
        name: str | None = None,
        threshold: int = 4,
        critiques: Sequence[Rubric] = CRITIQUES,
        min_words: int = 20,
        concurrency: int = 8,
        attempts: int = 3,
        cache: JsonCache | None = None,
        price: Price | None = None,
        longest_pause: float = 60.0,
    ) -> None:
        for critique in critiques:
            if threshold not in critique.scale:
                raise ConfigError(
                    f"threshold must be one of {', '.join(map(str, sorted(critique.scale)))}, "
                    f"the grades of {critique.name!r}; got {threshold!r}"
                )
        self.threshold, self.critiques, self.min_words = threshold, tuple(critiques), min_words
        self.price = price or FREE
        self._client = ChatClient(
            chat,
            name=name,
            concurrency=concurrency,
            attempts=attempts,
            cache=cache,
            longest_pause=longest_pause,
        )

    def synthesize(
        self,
        passages: PassageIndex | Iterable[Passage],
        count: int,
        *,
        seed: int = 0,
        max_passages: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
    ) -> Synthesis:
        """Write questions.

        Args:
            passages: Drawn from evenly over their documents; of an index, all that it holds.
            count: How many questions to keep; >= 1. There are fewer where the passages run out.
            seed: Of the drawing.
            max_passages: Most passages to ask about; by default four times `count`. It bounds the
                cost where nearly every question is dropped.
            progress: Called with how many questions were kept since the last call, and of how many.

        Raises:
            ConfigError: A number is below 1.
            ChatModelError: The model fails again and again.
        """
        return run(self._steps(passages, count, seed, max_passages, progress))

    async def asynthesize(
        self,
        passages: PassageIndex | Iterable[Passage],
        count: int,
        *,
        seed: int = 0,
        max_passages: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
    ) -> Synthesis:
        """The same; the event loop goes on."""
        return await arun(self._steps(passages, count, seed, max_passages, progress))

    def _steps(
        self,
        passages: PassageIndex | Iterable[Passage],
        count: int,
        seed: int,
        max_passages: int | None,
        progress: Callable[[int, int], None],
    ) -> Steps[Synthesis]:
        most = 4 * count if max_passages is None else max_passages
        if count < 1 or most < 1:
            raise ConfigError(f"count and max_passages must be >= 1, got {count} and {most}")
        made, seen = Synthesis(price=self.price), set[str]()
        rest = self._long_enough(draw(all_passages(passages), seed), made)[:most]
        progress(0, count)
        while rest and (missing := count - len(made.questions)) > 0:
            jobs = [self._one(passage) for passage in rest[:missing]]
            rest = rest[missing:]
            attempts: list[_Attempt] = yield Call(self._client, "gather", (jobs, lambda _: None))
            for attempt in attempts:
                _take(made, attempt, seen)
            progress(len(made.questions) - count + missing, count)
        return made

    def _long_enough(self, passages: Sequence[Passage], made: Synthesis) -> list[Passage]:
        kept = [one for one in passages if count_words(one.text) >= self.min_words]
        if short := len(passages) - len(kept):
            made.dropped["passage too short"] = short
        return kept

    def _one(self, passage: Passage) -> Steps[_Attempt]:
        wrote = yield from self._client.ask_json(
            writing(passage), lambda content: validated(Draft, content)
        )
        draft, usage, paid = wrote.value, wrote.usage, wrote.paid
        if draft is None:
            return _Attempt(
                passage, "", "", f"no question in the reply: {wrote.failure}", usage, paid
            )
        question = " ".join((draft.question or "").split())
        answer = " ".join((draft.answer or "").split())
        dropped = objection(question, answer, passage)
        case = Case("", question, answer, sources=(passage.titled_text,))
        for critique in () if dropped else self.critiques:
            said = yield from self._client.ask_json(critique.conversation(case), critique.read)
            usage, paid = usage + said.usage, paid + said.paid
            if said.value is None:
                dropped = f"no grade in the reply: {said.failure}"
            elif said.value.grade < self.threshold:
                dropped = f"low {critique.name}"
            if dropped:
                break
        return _Attempt(passage, question, answer, dropped, usage, paid)


def objection(question: str, answer: str, passage: Passage) -> str:
    """What is wrong with a question, as far as that can be told without a model; or nothing."""
    if not question or not answer:
        return "nothing to ask"
    asked, said = normalised(question), normalised(answer)
    if not within(said, normalised(passage.text)):
        return "the answer is not in the passage"
    if within(said, asked):
        return "the answer is in the question"
    if _REFERRING.search(question):
        return "the question refers to the passage"
    return ""


def draw(passages: Iterable[Passage], seed: int) -> list[Passage]:
    """All passages in a random order in which every document gives one before any gives two.

    Equal texts come once. The order depends on the passages and the seed alone.
    """
    chance = random.Random(seed)
    documents: defaultdict[str, list[Passage]] = defaultdict(list)
    different = {one.text: one for one in sorted(passages, key=lambda one: one.id, reverse=True)}
    for passage in sorted(different.values(), key=lambda one: (_document(one), one.id)):
        documents[_document(passage)].append(passage)
    shuffled = [chance.sample(own, len(own)) for own in documents.values()]
    chance.shuffle(shuffled)
    rounds = zip_longest(*shuffled)
    return [passage for passage in chain.from_iterable(rounds) if passage is not None]


def all_passages(source: PassageIndex | Iterable[Passage]) -> list[Passage]:
    """Those of a list, or all that an index holds."""
    if isinstance(source, Iterable):
        return list(source)
    return list(source.passages())


def _document(passage: Passage) -> str:
    return str(passage.metadata.get("doc_id") or passage.source or passage.title or passage.id)


def _take(made: Synthesis, attempt: _Attempt, seen: set[str]) -> None:
    made.usage += attempt.usage
    made.paid += attempt.paid
    key = normalised(attempt.question)
    reason = attempt.dropped.partition(":")[0] or ("duplicate" if key in seen else "")
    if reason:
        made.dropped[reason] += 1
        return
    seen.add(key)
    text = f"{attempt.question}\n{attempt.passage.text}"
    name = sha256(text.encode(errors="replace")).hexdigest()[:16]
    made.questions.append(
        SyntheticQuestion(name, attempt.question, attempt.answer, attempt.passage)
    )
