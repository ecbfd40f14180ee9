"""What the model wrote from each passage -> how good it is, best first.

Source: the released Open-RAG code (arXiv:2410.01782) after Self-RAG (arXiv:2310.11511, section
3.3): relevance is read where the answer begins, support and utility where the model first gives
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, isnan
from statistics import fmean

from openrag_core.records import Candidate, Written
from openrag_core.reflection import RELEVANCE, SUPPORT, UTILITY, Aspect, PassageScore, ScoreWeights

PARTLY = "[Partially supported]"


def score(written: Written, *, reflection_trained: bool, place: int = 1) -> PassageScore:
    """Score one written answer.

    Args:
        written: Its tokens carry the log-probabilities of the reflection tokens if those are
            trained.
        reflection_trained: Whether the model's critique means anything. If not, the score of the
            stage that ranked the passage stands in its place.
        place: Of what it was written from, in the order of retriever and reranker; >= 1.

    Raises:
        ReflectionError: A critique is asked for and has no usable probability.
    """
    seq = exp(fmean(token.logprob for token in written.tokens)) if written.tokens else 0.0
    if not reflection_trained or not written.tokens:
        return PassageScore(seq, rank=written.rank_score, reciprocal_rank=1 / place)
    return PassageScore(
        seq,
        rel=RELEVANCE.mean_worth(written.tokens[0].reflections),
        sup=_at_first_reply(SUPPORT, written),
        use=_at_first_reply(UTILITY, written),
        reciprocal_rank=1 / place,
    )


def rank(
    answers: Iterable[Written],
    weights: ScoreWeights,
    *,
    reflection_trained: bool,
    first_place: int = 1,
) -> tuple[Candidate, ...]:
    """Score the answers and put the best first; ties keep their order, empty answers come last.

    Args:
        answers: In the order in which retriever and reranker gave what they were written from.
        weights: Of the parts of a score.
        reflection_trained: See `score`.
        first_place: Of the first answer, where those before it were ranked already; >= 1.
    """
    candidates = []
    for place, written in enumerate(answers, start=first_place):
        parts = score(written, reflection_trained=reflection_trained, place=place)
        candidates.append(Candidate(written, parts, parts.total(weights)))
    return best_first(candidates)


def best_first(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates in the order of their totals; ties keep theirs, empty answers come last.

    Those with a total that is no number stand before the empty ones.
    """
    return tuple(sorted(candidates, key=lambda c: (not c.text, isnan(c.total), -c.total)))


def partly_supported(candidate: Candidate) -> bool:
    """Whether the model says of its answer that the evidence supports a part of it only."""
    replies = (t.text for t in candidate.written.tokens if t.special and t.text in SUPPORT.worth)
    return next(replies, "") == PARTLY


def _at_first_reply(aspect: Aspect, written: Written) -> float:
    """Mean worth at the first position that emits one of the aspect's tokens; 0 if none does."""
    for token in written.tokens:
        if token.special and token.text in aspect.worth:
            return aspect.mean_worth(token.reflections)
    return 0.0
