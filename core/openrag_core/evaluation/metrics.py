"""How right a text is, as the official scripts of the data sets have it.

Every number is in [0, 1]. Of several right answers the one that gives the most counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from openrag_core.words import normalised

_CLOSED = frozenset({"yes", "no", "noanswer"})


class Overlap(NamedTuple):
    """Of the words of two texts."""

    f1: float = 0.0
    precision: float = 0.0
    recall: float = 0.0


def exact_match(text: str, answers: Sequence[str]) -> float:
    """Whether the text is an answer, both normalised.

    Source: the official scripts of SQuAD, HotpotQA, 2WikiMultihopQA and MuSiQue.
    """
    return float(any(normalised(text) == normalised(answer) for answer in answers))


def f1(text: str, answers: Sequence[str]) -> float:
    """Of the words; where one side has none left, whether the other has none either.

    Source: the official SQuAD 2.0 script; that of SQuAD 1.1 gives 0 where both have none.
    """
    return max((_shared(text, answer).f1 for answer in answers), default=0.0)


def multihop_overlap(text: str, answers: Sequence[str]) -> Overlap:
    """F1, precision and recall of the words, each the best over the answers.

    A text of only "yes", "no" or "noanswer" shares nothing with any other answer, and two empty
    texts share nothing either.

    Source: the official scripts of HotpotQA and 2WikiMultihopQA.
    """
    found = [_multihop(text, answer) for answer in answers]
    return Overlap(*map(max, zip(*found, strict=True))) if found else Overlap()


def match(text: str, answers: Iterable[str]) -> float:
    """Whether an answer stands in the text, letter by letter.

    Source: the released scripts of Self-RAG and Open-RAG, for PopQA and TriviaQA.
    """
    return float(any(answer in text for answer in answers))


def normalised_match(text: str, answers: Iterable[str]) -> float:
    """Whether an answer stands in the text, both normalised.

    As `match_qnorm` of the released Open-RAG code, except that an answer of which nothing is left
    (The Who's "The", say) is in no text, where it was in every one.
    """
    said = normalised(text)
    return float(any(answer in said for answer in filter(None, map(normalised, answers))))


def string_recall(text: str, questions: Iterable[Iterable[str]]) -> float:
    """Share of the questions that the text answers, in the sense of `normalised_match`.

    Source: STR-EM of Stelmakh et al., ASQA (arXiv:2204.06092).

    Args:
        text: A long answer.
        questions: The short answers to each.
    """
    answered = [normalised_match(text, answers) for answers in questions]
    return sum(answered) / len(answered) if answered else 0.0


def rouge_l(text: str, answers: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of stemmed words, by rouge-score.

    Over the whole text; ASQA's script takes rougeLsum, sentence by sentence, which gives other
    numbers. That library knows ASCII letters and digits only: texts in other scripts score 0.
    """
    if not answers:
        return 0.0
    return float(_rouge().score_multi(list(answers), text)["rougeL"].fmeasure)


def knowledge_precision(text: str, passages: Iterable[str]) -> float:
    """Share of the text's words, normalised, that stand in the passages; 0 without words.

    Source: K-Precision of Adlakha et al. (arXiv:2307.16877), the measure of faithfulness that
    agreed well with people among those that need no model.
    """
    said = Counter(normalised(text).split())
    known = Counter(normalised(" ".join(passages)).split())
    return sum((said & known).values()) / said.total() if said else 0.0


def summed(candidates: Iterable[tuple[str | None, float]]) -> str | None:
    """The option whose scores add up to the most; the first of those that tie.

    Source: the released scripts of Self-RAG and Open-RAG, for ARC-Challenge and FEVER.

    Args:
        candidates: Option and score of each; those without an option do not count.
    """
    totals: dict[str, float] = {}
    for option, score in candidates:
        if option is not None:
            totals[option] = totals.get(option, 0.0) + score
    return max(totals, key=totals.__getitem__, default=None)


def _shared(text: str, answer: str) -> Overlap:
    said, right = normalised(text).split(), normalised(answer).split()
    if not said or not right:
        return Overlap(*[float(said == right)] * 3)
    count = sum((Counter(said) & Counter(right)).values())
    if not count:
        return Overlap()
    precision, recall = count / len(said), count / len(right)
    return Overlap(2 * precision * recall / (precision + recall), precision, recall)


def _multihop(text: str, answer: str) -> Overlap:
    said, right = normalised(text), normalised(answer)
    if not said or not right or (said != right and _CLOSED & {said, right}):
        return Overlap()
    return _shared(text, answer)


@cache
def _rouge() -> Any:  # noqa: ANN401  (a library without types)
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  (loads nltk)

    return RougeScorer(["rougeL"], use_stemmer=True)
