"""core/openrag_core/reranking/reflection.py: the generator's own judgement, and mixtures of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from openrag_core import ConfigError, OpenRAG, Passage, Reranker
from openrag_core.model import TransformersGenerator
from openrag_core.reranking.mixture import MixtureReranker
from openrag_core.reranking.reflection import ReflectionReranker
from tests.fakes import FakeReranker

PASSAGES = [Passage(id=name, text=name) for name in "abc"]


@dataclass
class FakeJudge:
    """Judges by the passage's text."""

    scores: dict[str, float]
    reflection_trained: bool = True

    def judge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        assert len(questions) == len(passages)
        return [[self.scores[passage.text] for passage in own] for own in passages]

    async def ajudge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        return self.judge(questions, passages)


async def test_what_the_judge_calls_relevant_comes_first() -> None:
    reranker = ReflectionReranker(FakeJudge({"a": 0.1, "b": 0.9, "c": 0.5}))
    assert isinstance(reranker, Reranker)
    ranked = reranker.rerank(["1?", "2?"], [PASSAGES, []], 2)
    assert [[(p.id, p.rerank_score) for p in own] for own in ranked] == [
        [("b", 0.9), ("c", 0.5)],
        [],
    ]
    assert await reranker.arerank(["1?", "2?"], [PASSAGES, []], 2) == ranked


def test_an_untrained_judge_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained reflection tokens"):
        ReflectionReranker(FakeJudge({}, reflection_trained=False))


def test_the_bundled_model_judges(bundled_rag: OpenRAG) -> None:
    generator = bundled_rag.generator
    assert isinstance(generator, TransformersGenerator)
    passages = bundled_rag.retrieve("Who opened the Velora Bridge?")
    away = Passage(id="x", text="Cakes are baked at 180 degrees for an hour.", title="Cake")
    (scores,) = generator.judge(["Who opened the Velora Bridge?"], [[*passages, away]])
    assert scores[0] > 0.5 > scores[-1]
    (written,) = generator.write(["Who opened the Velora Bridge?"], [[(passages[0],)]])
    reflections = written[0].tokens[0].reflections
    assert reflections["[Relevant]"] > reflections["[Irrelevant]"]


async def test_a_mixture_weighs_what_its_parts_say() -> None:
    one = ReflectionReranker(FakeJudge({"a": 0.2, "b": 0.6, "c": 0.4}), min_relevance=0.4)
    other = FakeReranker({"a": 1.0, "b": 0.0, "c": 0.6}, min_relevance=0.8)
    mixture = MixtureReranker([(one, 3.0), (other, 1.0)])
    assert isinstance(mixture, Reranker)
    assert mixture.min_relevance == pytest.approx(0.5)
    (ranked,) = mixture.rerank(["?"], [PASSAGES], 3)
    scores = [(p.id, p.rerank_score) for p in ranked]
    assert dict(scores) == pytest.approx({"a": 0.4, "b": 0.45, "c": 0.45})
    assert scores[-1][0] == "a"
    assert await mixture.arerank(["?"], [PASSAGES], 3) == [ranked]
    assert mixture.rerank([], [], 3) == []
    assert mixture.rerank(["?"], [[]], 3) == [[]]


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0]])
def test_a_mixture_of_nothing_is_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights above 0"):
        MixtureReranker([(FakeReranker({}), weight) for weight in weights])


class ByText(FakeReranker):
    """Scores passages by their text."""

    def rerank(
        self,
        questions: Sequence[str],  # noqa: ARG002
        passages: Sequence[Sequence[Passage]],
        top_k: int,
    ) -> list[list[Passage]]:
        return [
            [replace(one, rerank_score=self.scores[one.text]) for one in own][:top_k]
            for own in passages
        ]


class Filtering(ByText):
    """Keeps the first passage only."""

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        return [own[:1] for own in super().rerank(questions, passages, top_k)]


def test_a_mixture_tells_passages_of_one_id_apart_and_needs_all_scores() -> None:
    """A retriever of others may give two pieces the id of their document."""
    pieces, scores = [Passage("doc", "first"), Passage("doc", "second")], {"first": 0.2}
    scores["second"] = 0.8
    (best,) = MixtureReranker([(ByText(scores), 1.0)]).rerank(["Who?"], [pieces], 2)
    assert [(one.text, one.rerank_score) for one in best] == [("second", 0.8), ("first", 0.2)]
    with pytest.raises(ConfigError, match="Filtering scores 1 of 2 passages"):
        MixtureReranker([(Filtering(scores), 1.0)]).rerank(["Who?"], [pieces], 2)
