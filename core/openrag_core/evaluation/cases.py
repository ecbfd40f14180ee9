"""What is judged: an answer with what is known about its question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openrag_core.errors import EvaluationError
from openrag_core.evaluation.summary import Way
from openrag_core.records import Answer
from openrag_core.verdict import NOT_TOLD


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to a question."""

    id: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    """Each is a right answer; of a question that cannot be answered, that the documents do not
    tell; empty where nobody knows."""
    sources: tuple[str, ...] = ()
    """Passages that the answer rests on, with their titles."""
    passages: tuple[str, ...] = ()
    """All that were read, the best first."""

    @classmethod
    def of_answer(cls, id_: str, answer: Answer, references: Iterable[str] = ()) -> Case:
        """An answer of the pipeline."""
        return _case(id_, answer.question, answer.to_dict(), references)

    @classmethod
    def of_record(cls, record: Mapping[str, Any], way: Way | None = None) -> Case:
        """A line of an evaluation's results.

        Args:
            record: As `read_results` gives it.
            way: Which of its answers; by default the one from reading, where there is one.

        Raises:
            EvaluationError: A field is missing or malformed, or there is no such answer.
        """
        try:
            chosen: Way = way or ("memory" if record["reading"] is None else "reading")
            said = record[chosen]
            references = record["answers"] if record.get("answerable", True) else (NOT_TOLD,)
            if said is None:
                raise EvaluationError(
                    f"result {record['id']!r} has no answer from {chosen}: its run answered from "
                    "memory alone"
                )
            content = said if chosen == "reading" else {"answer": said["text"]}
            return _case(record["id"], record["question"], content, references)
        except (AttributeError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{str(record)[:80]}: is no result of an evaluation "
                f"({type(error).__name__}: {error}): give the records of read_results(folder)"
            ) from error


def cases_of(records: Iterable[Case | Mapping[str, Any]], way: Way | None = None) -> list[Case]:
    """Cases as they are, and those of results.

    Raises:
        EvaluationError: A result is malformed; see `Case.of_record`.
    """
    return [one if isinstance(one, Case) else Case.of_record(one, way) for one in records]


def _case(id_: str, question: str, said: Mapping[str, Any], references: Iterable[str]) -> Case:
    sources = tuple(map(_text, said.get("sources", ())))
    read = [_text(one) for own in said.get("candidates", ()) for one in own["passages"]]
    return Case(
        id=id_,
        question=question,
        answer=said["answer"],
        references=tuple(references),
        sources=sources,
        passages=tuple(dict.fromkeys(read)) or sources,
    )


def _text(passage: Mapping[str, Any]) -> str:
    return f"{passage['title']}\n{passage['text']}".strip()
