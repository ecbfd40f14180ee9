"""core/openrag_core/retrieval/multihop.py: chains, over a retriever that matches words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from qdrant_client import QdrantClient

from openrag_core import ChainRetriever, ConfigError, Field, Passage
from openrag_core.retrieval import (
    MultihopRetriever,
    PassageIndex,
    ServerStore,
    document_from_text,
)
from openrag_core.retrieval.multihop import lengthened_question
from tests.core.retrieval.conftest import LetterEncoder

PASSAGES = [
    Passage("film", "The Grey Ferry is a film directed by Ana Tolvik.", "The Grey Ferry (film)"),
    Passage("ana", "Born in Lindrel, she studied law.", "Ana Tolvik"),
    Passage("town", "The harbour is deep and has two quays.", "Lindrel"),
    Passage("other", "A film about a grey day.", "Grey Day"),
]
QUESTION = "Where was the director of the film The Grey Ferry born?"


@dataclass
class WordRetriever:
    """Ranks by the number of words shared with title and text."""

    asked: list[str] = field(default_factory=list)
    local = True

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        self.asked += questions
        return [sorted(PASSAGES, key=lambda p: -_shared(q, p))[:top_k] for q in questions]


def _shared(question: str, passage: Passage) -> int:
    texts = (question, f"{passage.title} {passage.text}")
    one, other = (set(re.findall(r"[a-z]{3,}", text.lower())) - {"the", "was"} for text in texts)
    return len(one & other)


def ids(chains: Sequence[Sequence[Passage]]) -> list[list[str]]:
    return [[passage.id for passage in chain] for chain in chains]


def test_the_next_passage_is_searched_by_the_names_in_the_last() -> None:
    assert lengthened_question(QUESTION, PASSAGES[:1]) == f"{QUESTION} Ana Tolvik"
    assert lengthened_question(QUESTION, PASSAGES[:2]) == f"{QUESTION} Lindrel"
    accents = Passage("1", "It was drawn by Émile Ørsted of Århus in 1893.", "Map")
    assert lengthened_question("Who?", [accents]) == "Who? It Émile Ørsted of Århus"
    plain = Passage("2", "그 다리는 1893년에 개통되었다.", "다리")
    assert lengthened_question("언제?", [plain]) == f"언제? {plain.text}"


def test_a_chain_leads_to_what_the_question_does_not_name() -> None:
    retriever = WordRetriever()
    multihop = MultihopRetriever(retriever)
    assert isinstance(multihop, ChainRetriever)
    assert multihop.local
    (chains,) = multihop.chains([QUESTION], 3)
    assert ids(chains)[0] == ["film", "ana"]
    assert all(len(chain) == 2 for chain in chains)
    assert len(chains) == 3
    harbour = "How deep is the harbour where the director of the film The Grey Ferry was born?"
    (longer,) = multihop.chains([harbour], 1, hops=3)
    assert ids(longer) == [["film", "ana", "town"]]


def test_the_same_passages_make_one_chain() -> None:
    (chains,) = MultihopRetriever(WordRetriever()).chains([QUESTION], 99)
    sets = [frozenset(own) for own in ids(chains)]
    assert len(sets) == len(set(sets)) == 6  # pairs of four


def test_scores_are_those_of_the_formula() -> None:
    """The chain so far is second, the next passage first and named."""
    chains = [[(PASSAGES[3],), (PASSAGES[0],)]]
    (found,) = MultihopRetriever(WordRetriever(), fetch_k=1).extend([QUESTION], chains, 9)
    # other: 1/3 + 1/3 for its best; film: 1/4 + 1/3 + 0.1 with Ana Tolvik, who is named.
    assert ids(found) == [["film", "ana"], ["other", "film"]]


def test_a_reranker_reads_whole_chains() -> None:
    class PrefersTheDay:
        min_relevance = 0.5

        def rerank(
            self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
        ) -> list[list[Passage]]:
            assert questions == [QUESTION]
            assert "directed by" in passages[0][0].text
            assert "she studied law" in passages[0][0].text
            wanted = [
                [p for p in own if "a grey day" in p.text and "directed" in p.text]
                for own in passages
            ]
            return [[replace(p, rerank_score=0.9) for p in own][:top_k] for own in wanted]

    multihop = MultihopRetriever(WordRetriever(), reranker=PrefersTheDay())
    (chains,) = multihop.chains([QUESTION], 2)
    assert {frozenset(own) for own in ids(chains)} == {frozenset({"film", "other"})}
    assert {passage.rerank_score for passage in chains[0]} == {0.9}


def test_a_reranker_that_gives_chains_other_ids_is_refused() -> None:
    class Renames:
        min_relevance = 0.5

        def rerank(
            self,
            questions: Sequence[str],  # noqa: ARG002
            passages: Sequence[Sequence[Passage]],
            top_k: int,
        ) -> list[list[Passage]]:
            named = [[replace(p, id=f"doc-{p.id}", rerank_score=0.9) for p in o] for o in passages]
            return [own[:top_k] for own in named]

    multihop = MultihopRetriever(WordRetriever(), reranker=Renames())
    with pytest.raises(ConfigError, match=r"Renames gave back the id 'doc-0'.* keep the ids"):
        multihop.chains([QUESTION], 2)


def test_filters_reach_the_retriever_of_the_first_hop(encoder: LetterEncoder) -> None:
    index = PassageIndex(ServerStore(QdrantClient(":memory:"), "x"), encoder)
    index.add_documents([document_from_text("A ferry.", "1"), document_from_text("A ship.", "2")])
    multihop = MultihopRetriever(index)
    options = multihop.options.narrowed(Field("doc_id") == "2")
    assert index.retrieve(["ferry"], 5, options) == multihop.retrieve(["ferry"], 5, options)
    assert [p.text for p in multihop.retrieve(["ferry"], 5, options)[0]] == ["A ship."]
    with pytest.raises(ConfigError, match="WordRetriever takes neither filters nor options"):
        MultihopRetriever(WordRetriever()).retrieve(["ferry"], 5, options)


async def test_a_narrowed_view_finds_less_in_every_hop(encoder: LetterEncoder) -> None:
    index = PassageIndex(ServerStore(QdrantClient(":memory:"), "x"), encoder)
    texts = {"1": "A ferry.", "2": "A ship.", "3": "A boat."}
    index.add_documents([document_from_text(text, id_) for id_, text in texts.items()])
    dry = index.narrowed(Field("doc_id").is_in(["2", "3"]))
    assert {p.text for p in dry.retrieve(["ferry"], 5)[0]} == {"A ship.", "A boat."}
    assert {p.text for p in (await index.aretrieve(["ferry"], 5))[0]} == set(texts.values())
    twice = dry.narrowed({"doc_id": {"$in": ["1", "2"]}})
    assert [p.text for p in (await twice.aretrieve(["ferry"], 5))[0]] == ["A ship."]
    multihop = MultihopRetriever(index)
    (chains,) = multihop.narrowed(Field("doc_id").is_in(["2", "3"])).chains(["ferry"], 9)
    assert {p.text for chain in chains for p in chain} == {"A ship.", "A boat."}
    assert len(multihop.chains(["ferry"], 9)[0]) > len(chains)
    with pytest.raises(ConfigError, match="WordRetriever takes no filter: give a PassageIndex"):
        MultihopRetriever(WordRetriever()).narrowed(Field("doc_id") == "2")


async def test_event_loops_find_the_same() -> None:
    multihop = MultihopRetriever(WordRetriever())
    found = await multihop.aretrieve([QUESTION], 8)
    chains = await multihop.aextend([QUESTION], [[(p,) for p in found[0]]], 3)
    assert chains == multihop.chains([QUESTION], 3)


def test_nothing_in_nothing_out() -> None:
    multihop = MultihopRetriever(WordRetriever())
    assert multihop.extend([], [], 3) == []
    assert multihop.extend([QUESTION], [[]], 3) == [[]]
    whole = [tuple(PASSAGES)]
    assert multihop.extend([QUESTION], [whole], 3) == [whole]  # nothing can be added


@pytest.mark.parametrize("number", ["beam_width", "fetch_k"])
def test_numbers_below_one_are_refused(number: str) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        MultihopRetriever(WordRetriever(), **{number: 0})  # type: ignore[arg-type]
