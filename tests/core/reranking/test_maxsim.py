"""core/openrag_core/reranking/maxsim.py: the score worked by hand, then on the real encoder."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from openrag_core import Passage, Reranker
from openrag_core.reranking.maxsim import MaxSimReranker
from openrag_core.retrieval import SentenceTransformerEncoder
from openrag_core.weights import ENCODER

VECTORS = {
    "q": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "far": torch.tensor([[0.6, 0.8]]),
    "near": torch.tensor([[0.8, 0.6], [0.0, 1.0]]),
}


class Fixed:
    """Knows three texts."""

    def encode_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Their vectors."""
        return [VECTORS[text] for text in texts]


def test_each_question_token_takes_its_best_match() -> None:
    reranker = MaxSimReranker(Fixed())
    assert isinstance(reranker, Reranker)
    passages = [Passage(id="1", text="far", retrieval_score=0.9), Passage(id="2", text="near")]
    (ranked,) = reranker.rerank(["q"], [passages], 5)
    assert [passage.text for passage in ranked] == ["near", "far"]
    assert [passage.rerank_score for passage in ranked] == pytest.approx(
        [(0.8 + 1.0) / 2, (0.6 + 0.8) / 2]
    )
    assert ranked[1].retrieval_score == 0.9
    assert ranked[1].rank_score == ranked[1].rerank_score


def test_each_question_keeps_its_own_passages() -> None:
    near, far = Passage(id="1", text="near"), Passage(id="2", text="far")
    ranked = MaxSimReranker(Fixed()).rerank(["q", "q", "q"], [[far], [], [far, near]], 1)
    assert [[p.text for p in own] for own in ranked] == [["far"], [], ["near"]]


def test_its_minimum_parts_what_is_told_from_what_is_not() -> None:
    reranker = MaxSimReranker(SentenceTransformerEncoder(ENCODER.locate()))
    passage = Passage(id="1", title="Bridge", text="The bridge was opened in 1893 by the mayor.")
    questions = ["Who opened the bridge?", "What is the boiling point of neon?"]
    (told,), (untold,) = reranker.rerank(questions, [[passage], [passage]], 1)
    assert told.rerank_score is not None
    assert untold.rerank_score is not None
    assert told.rerank_score > reranker.min_relevance > untold.rerank_score
