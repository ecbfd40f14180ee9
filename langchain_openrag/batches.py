"""Inputs of a batch: good questions are answered together, each bad one gets its own error."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig

from langchain_openrag.output import RunnableOutput, to_output
from langchain_openrag.questions import to_question
from openrag_core import Answer, Question, QuestionError
from openrag_core.conversation import check_questions

Outcome = Answer | Exception


def differ(config: RunnableConfig | Sequence[RunnableConfig] | None) -> bool:
    """Whether configurable fields, of whatever part, are set differently."""
    if not isinstance(config, Sequence):
        return False
    fields = [one.get("configurable") for one in config]
    try:
        return any(one != fields[0] for one in fields)
    except Exception:  # of values that cannot be compared
        return True


def parted(
    values: Sequence[object], configs: Sequence[RunnableConfig]
) -> tuple[list[Question | QuestionError], list[Question], list[RunnableConfig]]:
    """Questions and errors; and the questions alone, with their configs."""
    asked = [_checked(value) for value in values]
    good = [
        (one, config)
        for one, config in zip(asked, configs, strict=True)
        if not isinstance(one, QuestionError)
    ]
    return asked, [one for one, _ in good], [config for _, config in good]


def _checked(value: object) -> Question | QuestionError:
    try:
        question = to_question(value)
        check_questions([question])
    except QuestionError as error:
        return error
    return question


def in_order(
    asked: list[Question | QuestionError], answers: Sequence[Answer | BaseException]
) -> list[RunnableOutput | Exception]:
    """The answer to each good question, and the error of each bad one."""
    rest = iter(answers)
    outcomes = [one if isinstance(one, QuestionError) else next(rest) for one in asked]
    return [to_output(one) if isinstance(one, Answer) else _raisable(one) for one in outcomes]


def _raisable(error: BaseException) -> Exception:
    if not isinstance(error, Exception):
        raise error
    return error
