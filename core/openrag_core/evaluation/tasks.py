"""The tasks: what is asked, how the answer is read off, and what it is measured by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openrag_core.errors import EvaluationError
from openrag_core.evaluation import metrics
from openrag_core.evaluation.examples import LABELS, NOT_ENOUGH, Example, read_examples
from openrag_core.records import Answer
from openrag_core.words import normalised, within

Form = Literal["text", "choice", "claim", "abstention"]
SHORTEST = (
    "You are a question answering agent. Given a context and a question, your task is to answer "
    "the question based on the context. Instead of a full sentence, your answer must be the "
    "shortest word or phrase or named entity. Some example outputs 'answer' are: yes; no; Ibn "
    "Sina; Doha, Qatar; 2,132 seats, Los Angeles, California etc."
)
"""What the released multi-hop script puts in front of every prompt."""
CHOOSE = "Given four answer candidates, A, B, C and D, choose the best answer choice."
JUDGE = "Is the following statement correct or not? Say true if it's correct; otherwise say false."
_DENIAL = r"\b(not|never|(is|was|does|did)n.?t) "  # normalised
_LETTER = re.compile(r"[\W_]*([A-Z])(?:[^\w\s].*|\s*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer comes to for a task."""

    text: str
    """Read off: free text, the key of a choice, or nothing where it abstains."""
    abstained: bool
    answer: Answer
    """With what it rests on."""


Metric = Callable[[Said, Example], float | None]
"""In [0, 1]; None where it says nothing about this example."""


@dataclass(frozen=True, slots=True)
class Task:
    """One way to ask and to measure."""

    form: Form
    """"text": what is written. "choice" and "claim": the option whose passages' scores add up to
    the most. In these three the pipeline's own abstention does not count, as in the released code,
    except for claims of which some cannot be decided. "abstention": it does."""
    metrics: Mapping[str, Metric]
    """The first one is the main metric."""
    instruction: str | None = None
    """What the released code puts in front of every prompt."""
    needs: Literal["answers", "qa_pairs", "sources"] = "answers"
    """"qa_pairs": the short answers of ASQA. "sources": passages that were read; answers need not
    be known."""

    @property
    def metric(self) -> str:
        """The main metric."""
        return next(iter(self.metrics))

    def read(self, path: Path) -> list[Example]:
        """The examples of a file.

        Raises:
            EvaluationError: It cannot be used; the message names file, line and field.
        """
        examples = read_examples(
            path,
            claims=self.form == "claim",
            unanswerable=self.form == "abstention",
            unknown=self.needs == "sources",
        )
        if self.form == "choice" and (other := next((e for e in examples if not e.choices), None)):
            raise EvaluationError(
                f"{path}: this task needs the fields 'choices' and 'answer_key', and the question "
                f"{other.id!r} has none"
            )
        if self.needs == "qa_pairs" and not any(one.short_answers for one in examples):
            raise EvaluationError(f"{path}: this task needs the field 'qa_pairs', as ASQA has it")
        return examples

    def prompt(self, example: Example) -> str:
        """What the model is asked; passages are found by the question alone."""
        if self.form == "choice":
            options = "".join(f"\n{key}: {text}" for key, text in example.choices.items())
            return f"{CHOOSE}\n\n### Input:\n{example.question}{options}"
        if self.form == "claim":
            return f"{JUDGE}\n\n## Input:\n\n{example.question}"
        return example.question

    def said(self, example: Example, answer: Answer) -> Said:
        """Read the answer off."""
        if self.form == "text":
            return Said(_text(answer), abstained=False, answer=answer)
        if self.form == "abstention":
            return Said("" if answer.abstained else _text(answer), answer.abstained, answer)
        if answer.abstained and NOT_ENOUGH in example.choices:
            return Said(NOT_ENOUGH, abstained=True, answer=answer)
        return Said(_chosen(example, answer), abstained=False, answer=answer)

    def scores(self, said: Said, example: Example) -> dict[str, float]:
        """Every metric that says something about the example."""
        found = {name: metric(said, example) for name, metric in self.metrics.items()}
        return {name: value for name, value in found.items() if value is not None}


def task(name: str) -> Task:
    """A task by its name.

    Raises:
        EvaluationError: There is none of that name.
    """
    if name not in TASKS:
        raise EvaluationError(f"no task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]


def option(text: str, choices: Mapping[str, str]) -> str | None:
    """Which of the choices a text names, or None.

    Its text and no more; its letter alone, or before a punctuation mark; or the only one whose text
    stands in it (the longest, where one holds another). Labels go by all their names. What is
    denied is not named: "It is not true" says nothing.
    """
    said = normalised(text.replace("_", " "))
    names = {key: [normalised(one) for one in LABELS.get(key, (t,))] for key, t in choices.items()}
    for key, own in names.items():
        if said and said in own:
            return key
    letter = _LETTER.fullmatch(text.strip())
    if letter and letter[1] in choices:
        return letter[1]
    found = {name: key for key, own in names.items() for name in own if _named(name, said)}
    longest = {
        key
        for name, key in found.items()
        if not any(name != other and within(name, other) for other in found)
    }
    return longest.pop() if len(longest) == 1 else None


def _named(name: str, said: str) -> bool:
    """Whether a name stands in a text and is not denied there, both normalised."""
    return within(name, re.sub(f"{_DENIAL}{re.escape(name)}\\b", "", said))


def _chosen(example: Example, answer: Answer) -> str:
    """From memory the draft's option; otherwise the one whose scores add up to the most."""
    if answer.draft is not None:
        return option(answer.draft.text, example.choices) or ""
    named = ((option(c.text, example.choices), c.total) for c in answer.candidates)
    return metrics.summed(named) or ""


def _text(answer: Answer) -> str:
    """What is written; where the pipeline would not believe it, the best that there is."""
    if answer.draft is not None:
        return answer.draft.text.strip()
    if not answer.abstained:
        return answer.text
    return answer.candidates[0].text if answer.candidates else ""


def _of_answers(measure: Callable[[str, Sequence[str]], float]) -> Metric:
    return lambda said, example: measure(said.text, example.answers)


def _or_none(measure: Callable[[str, Sequence[str]], float]) -> Metric:
    """As SQuAD 2.0: where there is no answer, none is the right one."""
    return lambda said, example: measure(said.text, example.answers or ("",))


def _answered(measure: Callable[[str, Sequence[str]], float]) -> Metric:
    return lambda said, example: measure(said.text, example.answers) if example.answerable else None


def _part(name: Literal["f1", "precision", "recall"]) -> Metric:
    def measure(said: Said, example: Example) -> float:
        value: float = getattr(metrics.multihop_overlap(said.text, example.answers), name)
        return value

    return measure


def _accuracy(said: Said, example: Example) -> float:
    return float(said.text == example.answer_key)


def _abstention(said: Said, example: Example) -> float:
    """Whether it abstains exactly where there is no answer."""
    return float(said.abstained != example.answerable)


def _string_recall(said: Said, example: Example) -> float | None:
    if not example.short_answers:
        return None
    return metrics.string_recall(said.text, example.short_answers)


def _knowledge_precision(said: Said, _: Example) -> float | None:
    """Of what is written from sources, and says something."""
    sources = () if said.answer.abstained else said.answer.sources
    if not sources or not said.text:
        return None
    return metrics.knowledge_precision(said.text, [f"{p.title} {p.text}" for p in sources])


def _grounded(said: Said, _: Example) -> float | None:
    return float(said.answer.grounded) if said.answer.decision.retrieve else None


def _gold_source(said: Said, example: Example) -> float | None:
    """Whether what it rests on is a gold passage, or in an index is of one's document."""
    if not example.gold or said.answer.abstained or not said.answer.sources:
        return None
    own = {passage.id for passage in example.passages}  # a title may be that of others too
    names = {
        name
        for p in said.answer.sources
        for name in ((p.id,) if p.id in own else (p.id, p.title, p.metadata.get("doc_id")))
    }
    return float(bool(names & example.gold))


_EXACT, _F1 = _of_answers(metrics.exact_match), _of_answers(metrics.f1)
_MATCH = _of_answers(metrics.match)
_NORMALISED = _of_answers(metrics.normalised_match)
_ROUGE = _answered(metrics.rouge_l)
_SHORT: Mapping[str, Metric] = {
    "match": _MATCH,
    "normalised_match": _NORMALISED,
    "exact_match": _EXACT,
    "f1": _F1,
}
_READ: Mapping[str, Metric] = {"f1": _F1, **_SHORT}
_EXTRACTED: Mapping[str, Metric] = {"exact_match": _EXACT, **_SHORT}
_MULTIHOP: Mapping[str, Metric] = {
    "exact_match": _EXACT,
    "f1": _part("f1"),
    "precision": _part("precision"),
    "recall": _part("recall"),
}
_ABSTENTION: Mapping[str, Metric] = {
    "f1": _or_none(metrics.f1),
    "exact_match": _or_none(metrics.exact_match),
    "abstention": _abstention,
    "abstained_unanswerable": lambda said, e: None if e.answerable else float(said.abstained),
    "answered_answerable": lambda said, e: float(not said.abstained) if e.answerable else None,
}
TASKS: Mapping[str, Task] = {
    "popqa": Task("text", _SHORT),
    "triviaqa": Task("text", _SHORT),
    "nq": Task("text", _EXTRACTED),
    "squad": Task("text", _READ),
    "arc_challenge": Task("choice", {"accuracy": _accuracy}),
    "claims": Task("claim", {"accuracy": _accuracy}),
    "hotpotqa": Task("text", _MULTIHOP, SHORTEST),
    "2wiki": Task("text", _MULTIHOP, SHORTEST),
    "musique": Task("text", _MULTIHOP, SHORTEST),
    "squad_v2": Task("abstention", _ABSTENTION),
    "clapnq": Task("abstention", {"abstention": _abstention, "rouge_l": _ROUGE, **_ABSTENTION}),
    "asqa": Task("text", {"string_recall": _string_recall, "rouge_l": _ROUGE}, needs="qa_pairs"),
    "faithfulness": Task(
        "abstention",
        {
            "knowledge_precision": _knowledge_precision,
            "grounded": _grounded,
            "gold_source": _gold_source,
        },
        needs="sources",
    ),
}
"""By name. FEVER, PubHealth and SciFact are "claims"."""
