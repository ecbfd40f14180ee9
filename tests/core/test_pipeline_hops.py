"""core/openrag_core/pipeline.py: answers from chains of passages."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, log

import pytest

from openrag_core import (
    ConfigError,
    OpenRAG,
    ScoreWeights,
    Token,
)
from openrag_core.records import Evidence, Hops
from openrag_core.retrieval import MultihopRetriever
from tests.core.test_pipeline import BRIDGE, FERRY, TOWER, rag
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, reflected


class FakeChains(FakeRetriever):
    """Adds the tower to every chain."""

    def extend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> Sequence[Sequence[Evidence]]:
        assert len(questions) == len(chains)
        return [[(*chain, TOWER) for chain in own if TOWER not in chain][:top_k] for own in chains]


def chained(generator: FakeGenerator, **settings: object) -> OpenRAG:
    return OpenRAG(generator, FakeChains([BRIDGE, FERRY, TOWER]), **settings)  # type: ignore[arg-type]


def test_answers_are_written_from_chains() -> None:
    generator = FakeGenerator()
    pipeline = chained(generator, hops=2, top_k=1, fetch_k=3)
    answer = pipeline.answer("When?")
    assert [p.id for p in answer.sources] == ["bridge", "tower"]
    assert "hops" in answer.seconds
    assert len(answer.candidates) == 1
    assert [p.id for p in pipeline.retrieve("When?")] == ["bridge", "tower"]
    joint = chained(generator, hops=2, evidence="joint").answer("When?")
    assert [p.id for p in joint.sources] == ["bridge", "tower", "ferry"]


def partly(text: str, rel: float) -> tuple[Token, ...]:
    """An answer that its model calls partially supported."""
    logs = {"[Fully supported]": log(0.1), "[Partially supported]": log(0.8)}
    logs["[No support / Contradictory]"] = log(0.1)
    token = Token("[Partially supported]", 0.0, special=True, reflections=logs)
    return (*reflected(text, rel=rel), token)


async def test_partial_support_asks_for_another_hop() -> None:
    """The ferry's answer is partial; with the tower behind it, the same answer is written."""
    answers = {
        "bridge": partly("1893", 0.9),
        "ferry": reflected("1912", rel=0.6, sup=0.9, use=0.9),
        "tower": reflected("1953", rel=0.1, sup=0.1, use=0.1),
    }
    generator = FakeGenerator(answers=answers, reflection_trained=True)
    pipeline = chained(generator, hops="auto", weights=ScoreWeights(sup=0.0, use=0.0))
    answer = pipeline.answer("When?")
    assert answer.text == "1893"
    assert {tuple(p.id for p in c.evidence) for c in answer.candidates} == {
        ("bridge",),
        ("ferry",),
        ("tower",),
        ("bridge", "tower"),
        ("ferry", "tower"),
    }
    assert [stage for stage, _ in generator.calls] == ["write", "write"]
    assert (await pipeline.aanswer("When?")).candidates == answer.candidates

    supported = {**answers, "bridge": reflected("1893", rel=0.9, sup=0.9)}
    generator = FakeGenerator(answers=supported, reflection_trained=True)
    chained(generator, hops="auto", weights=ScoreWeights(sup=0.0, use=0.0)).answer("When?")
    assert [stage for stage, _ in generator.calls] == ["write"]


@pytest.mark.parametrize("hops", [0, -1, 1.5, "two"])
def test_hops_are_whole_numbers_or_auto(hops: object) -> None:
    with pytest.raises(ConfigError, match='whole number >= 1, or "auto"'):
        chained(FakeGenerator(), hops=hops)


@pytest.mark.parametrize("hops", [2, "auto"])
def test_passages_that_are_given_make_no_chains(hops: Hops) -> None:
    pipeline = chained(FakeGenerator(reflection_trained=True), hops=hops)
    with pytest.raises(ConfigError, match="single passages are given, and hops="):
        pipeline.answer_from("When?", [BRIDGE])


def test_chains_need_a_retriever_that_finds_them() -> None:
    with pytest.raises(ConfigError, match="MultihopRetriever"):
        rag(hops=2)
    with pytest.raises(ConfigError, match="trained reflection tokens"):
        chained(FakeGenerator(), hops="auto")


def test_chains_are_held_against_the_minimum_of_who_scored_them() -> None:
    """A chain's own score is a sum of ranks, which no reranker's minimum is made for."""
    reranker = FakeReranker({}, min_relevance=0.5)
    pipeline = chained(FakeGenerator(), hops=2)
    assert pipeline.minima.relevance == -inf
    assert not pipeline.answer("When?").grounded
    judged = FakeChains([BRIDGE, FERRY, TOWER])
    judged.reranker = reranker  # type: ignore[attr-defined]
    assert OpenRAG(FakeGenerator(), judged, hops=2).minima.relevance == 0.5
    assert chained(FakeGenerator(), reranker=reranker).minima.relevance == 0.5


def test_a_reranker_that_no_chain_would_be_shown_is_refused() -> None:
    """Everything was believed, and the reranker never asked."""
    reranker = FakeReranker(dict.fromkeys(("bridge", "ferry", "tower"), 0.1))
    with pytest.raises(ConfigError, match=r"would not be asked: give MultihopRetriever\(.*rerank"):
        chained(FakeGenerator(), hops=2, reranker=reranker)
    trained = FakeGenerator(reflection_trained=True)
    assert chained(trained, hops="auto", reranker=reranker).reranker is reranker
    both = MultihopRetriever(FakeRetriever([BRIDGE, FERRY]), reranker=reranker)
    assert OpenRAG(FakeGenerator(), both, reranker, hops=2).minima.relevance == 0.5


def test_passages_without_text_are_never_read() -> None:
    """The bundled model finds an empty one relevant, and answers from it."""
    empty = [replace(BRIDGE, text=text) for text in ("", " \n")]
    reranker = FakeReranker({"bridge": 0.9, "ferry": 0.8, "tower": 0.7})
    found = [*empty, FERRY]
    for pipeline in (
        OpenRAG(FakeGenerator(), FakeRetriever(found), top_k=3),
        OpenRAG(FakeGenerator(), FakeRetriever(found), reranker, top_k=1),
    ):
        for answer in (pipeline.answer("When?"), pipeline.answer_from("When?", found)):
            assert len(answer.candidates) == 1
            assert [p.id for p in answer.sources] == ["ferry"]
        assert [p.id for p in pipeline.retrieve("When?")] == ["ferry"]
        nothing = pipeline.answer_from("When?", empty)
        assert nothing.abstained
        assert nothing.candidates == ()
    chains = OpenRAG(FakeGenerator(), FakeChains(found), hops=2, top_k=2).answer("When?")
    assert [p.id for p in chains.sources] == ["ferry", "tower"]

    class Blank(FakeChains):
        def extend(
            self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
        ) -> Sequence[Sequence[Evidence]]:
            longer = super().extend(questions, chains, top_k)
            return [[(*own[0], empty[0]), *own] for own in longer]

    blank = OpenRAG(FakeGenerator(), Blank([FERRY]), hops=2).answer("When?")
    assert [p.id for c in blank.candidates for p in c.evidence] == ["ferry", "tower"]
    retriever = MultihopRetriever(FakeRetriever(found))
    assert retriever.extend(["When?"], [[(FERRY,)]], 5) == [[(FERRY,)]]
