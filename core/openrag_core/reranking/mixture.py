"""Several rerankers, and the weighted mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence

from openrag_core.errors import ConfigError
from openrag_core.ports import Reranker, ranked_by
from openrag_core.records import Passage
from openrag_core.reranking.scored import best_first
from openrag_core.steps import Call, Steps, arun, run


class MixtureReranker:
    """Weighted mean of the scores of other rerankers; satisfies the `Reranker` port.

    Their scores must be comparable between questions, as those of all rerankers here are; the
    mixture's minimum of relevance is the weighted mean of theirs.

    Args:
        parts: Rerankers with their weights, which are > 0 and need not add up to 1.

    Raises:
        ConfigError: There is no reranker, or a weight is not above 0.
    """

    def __init__(self, parts: Sequence[tuple[Reranker, float]]) -> None:
        weights = [weight for _, weight in parts]
        if not weights or min(weights) <= 0:
            raise ConfigError(f"a mixture takes rerankers with weights above 0, got {weights}")
        self._parts = [(reranker, weight / sum(weights)) for reranker, weight in parts]
        self.min_relevance = sum(share * reranker.min_relevance for reranker, share in self._parts)

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first."""
        return run(self._rerank(questions, passages, top_k))

    async def arerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The same; the event loop goes on."""
        return await arun(self._rerank(questions, passages, top_k))

    def _rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> Steps[list[list[Passage]]]:
        everything = max((len(own) for own in passages), default=1) or 1
        totals = [[0.0] * len(own) for own in passages]
        for reranker, share in self._parts:
            given = yield Call(reranker, "rerank", (questions, passages, everything))
            ranked = ranked_by(reranker, given, len(questions), everything)
            for total, own, scored in zip(totals, passages, ranked, strict=True):
                scores = {one.key: one.rerank_score or 0.0 for one in scored}
                for place, passage in enumerate(own):
                    if passage.key not in scores:
                        raise ConfigError(
                            f"{type(reranker).__name__} scores {len(scored)} of {len(own)} "
                            "passages, and a mixture needs the scores of all: have it keep every "
                            "passage"
                        )
                    total[place] += share * scores[passage.key]
        return [best_first(*pair, top_k) for pair in zip(passages, totals, strict=True)]
