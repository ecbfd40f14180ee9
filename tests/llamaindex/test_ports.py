"""llamaindex_openrag/ports.py: LlamaIndex's retrievers, postprocessors and LLMs in our pipeline."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from math import exp, inf
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    IndexNode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from llamaindex_openrag import (
    LlamaIndexChat,
    LlamaIndexReranker,
    LlamaIndexRetriever,
    OpenRAGQueryEngine,
    OpenRAGWorkflow,
)
from llamaindex_openrag.nodes import to_passage
from openrag_core import ConfigError, Gate, Generator, OpenRAG, Passage, Reranker, Retriever
from openrag_core.chat_generator import ChatGenerator
from openrag_core.condenser import ChatCondenser
from openrag_core.conversation import Conversation, Message
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever
from tests.llamaindex.fakes import BRIDGE, FERRY, ScriptedLLM

NODES = [
    NodeWithScore(
        node=TextNode(id_=id_, text=text, metadata={"file_path": f"{id_}.md", "page": 1}),
        score=score,
    )
    for id_, text, score in (("t1", "1953", 0.8), ("t2", "1954", 0.7))
]


class Towers(BaseRetriever):
    """Blocks, and says in which thread."""

    threads: list[threading.Thread]

    def __init__(self) -> None:
        super().__init__()
        self.threads = []

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        assert query_bundle.query_str
        self.threads.append(threading.current_thread())
        return NODES


class AsynchronousTowers(Towers):
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        await asyncio.sleep(0)
        return self._retrieve(query_bundle)


async def test_a_retriever_finds_passages() -> None:
    retriever = LlamaIndexRetriever(Towers())
    assert isinstance(retriever, Retriever)
    first = retriever.retrieve(["When?", "Where?"], 1)
    assert first == await retriever.aretrieve(["When?", "Where?"], 1)
    assert [[p.id for p in own] for own in first] == [["t1"], ["t1"]]
    assert first[0][0].metadata == {"file_path": "t1.md", "page": 1}
    assert (first[0][0].source, first[0][0].retrieval_score) == ("t1.md", 0.8)


async def test_a_retriever_that_blocks_gets_a_thread() -> None:
    blocking, asynchronous = Towers(), AsynchronousTowers()
    await LlamaIndexRetriever(blocking).aretrieve(["When?"], 2)
    await LlamaIndexRetriever(asynchronous).aretrieve(["When?"], 2)
    assert blocking.threads != [threading.main_thread()]
    assert asynchronous.threads == [threading.main_thread()]


def test_its_nodes_come_back_as_sources() -> None:
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(Towers()))
    response = OpenRAGQueryEngine(rag).query("When?")
    assert str(response) == "1953"
    assert [node.node_id for node in response.source_nodes] == ["t1", "t2"]
    assert response.source_nodes[0].node.metadata.items() >= NODES[0].node.metadata.items()


class Wide(BaseRetriever):
    """Finds what is no plain text node, with everything that a node can know."""

    nodes: list[NodeWithScore]

    def __init__(self) -> None:
        super().__init__()
        node = IndexNode(
            id_="i1",
            text="1953",
            index_id="x",
            extra_info={"secret": 1, "title": "A"},
            excluded_llm_metadata_keys=["secret"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d1")},
        )
        self.nodes = [NodeWithScore(node=node, score=0.4)]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        del query_bundle
        return self.nodes


async def test_a_retrievers_nodes_come_back_as_they_were() -> None:
    retriever = Wide()
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(retriever), FakeReranker({"i1": 0.9}))
    engine, streaming = (OpenRAGQueryEngine(rag, streaming=streams) for streams in (False, True))
    responses = [engine.query("When?"), await engine.aquery("When?"), streaming.query("When?")]
    responses.append(await OpenRAGWorkflow(rag).run(question="When?"))
    found = [engine.retrieve(QueryBundle("When?")), *(one.source_nodes for one in responses)]
    for (one,) in found:
        assert one.node is retriever.nodes[0].node
    assert [one.score for (one,) in found[:1]] == [0.9]
    assert "origin" not in rag.answer("When?").to_dict()["sources"][0]


class Reversed(BaseNodePostprocessor):
    """The last is best; the first is left out."""

    scores: tuple[float | None, ...] = (0.3, 0.9)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        assert query_bundle is not None
        pairs = zip(nodes[1:], self.scores, strict=True)
        return [NodeWithScore(node=one.node, score=score) for one, score in pairs]


PASSAGES = [BRIDGE, FERRY, Passage(id="t", text="1953", metadata={"page": 9})]


async def test_a_postprocessor_ranks_passages() -> None:
    reranker = LlamaIndexReranker(Reversed(), min_relevance=0.5)
    assert isinstance(reranker, Reranker)
    ranked = reranker.rerank(["When?"], [PASSAGES], 5)
    assert ranked == await reranker.arerank(["When?"], [PASSAGES], 5)
    assert [(p.id, p.rerank_score) for p in ranked[0]] == [("t", 0.9), ("f1", 0.3)]
    assert ranked[0][0].metadata == {"page": 9}
    assert [p.id for p in reranker.rerank(["When?"], [PASSAGES], 1)[0]] == ["t"]
    answer = OpenRAG(FakeGenerator(), FakeRetriever(PASSAGES), reranker).answer("When?")
    assert (answer.text, answer.grounded) == ("1953", True)


class InFloat32(Reversed):
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        ranked = super()._postprocess_nodes(nodes, query_bundle)
        for one in ranked:
            one.score = np.float32(one.score)  # type: ignore[assignment]
        return ranked


def test_scores_of_numpy_become_numbers() -> None:
    reranker = LlamaIndexReranker(InFloat32(), min_relevance=0.5)
    engine = OpenRAGQueryEngine(OpenRAG(FakeGenerator(), FakeRetriever(PASSAGES), reranker))
    response: Any = engine.query("When?")
    assert json.loads(json.dumps(response.metadata))["grounded"]


def test_a_file_that_is_none_is_no_source() -> None:
    node = TextNode(text="1893", metadata={"file_path": None})
    assert to_passage(NodeWithScore(node=node)).source == ""


class Shouting(BaseNodePostprocessor):
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        del query_bundle
        texts = ((one, TextNode(id_=one.node_id, text=one.text.upper())) for one in nodes)
        return [NodeWithScore(node=node, score=one.score) for one, node in texts]


def test_what_a_postprocessor_makes_of_a_text_is_its_own_business() -> None:
    passage = Passage("x", "one", retrieval_score=0.2)
    reranker = LlamaIndexReranker(Shouting(), min_relevance=0.5)
    assert reranker.rerank(["When?"], [[passage]], 5) == [[replace(passage, rerank_score=0.2)]]


class Cutting(BaseNodePostprocessor):
    """Changes the nodes that it is given, as some of LlamaIndex's do."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        del query_bundle
        for one in nodes:
            one.node.set_content("cut")
        return nodes


async def test_a_postprocessor_cannot_change_a_retrievers_nodes() -> None:
    retriever = Wide()
    reranker = LlamaIndexReranker(Cutting(), min_relevance=0.0)
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(retriever), reranker)
    for answer in (rag.answer("When?"), await rag.aanswer("When?")):
        assert answer.text == retriever.nodes[0].text == "1953"


def test_nodes_of_the_same_id_are_told_apart_by_their_texts() -> None:
    texts = [Passage("x", "first"), Passage("x", "one"), Passage("x", "two")]
    reranker = LlamaIndexReranker(Reversed(), min_relevance=0.5)
    ranked = reranker.rerank(["When?"], [texts], 5)[0]
    assert [(p.text, p.rerank_score) for p in ranked] == [("two", 0.9), ("one", 0.3)]
    nodes = [
        NodeWithScore(node=TextNode(id_="x", text=text), score=score)
        for text, score in (("one", 0.9), ("two", 0.1))
    ]
    rag = OpenRAG(FakeGenerator(), FakeRetriever([]))
    response = OpenRAGQueryEngine(rag).synthesize(QueryBundle("When?"), nodes)
    assert [one.node for one in response.source_nodes] == [one.node for one in nodes]


def test_a_postprocessor_without_scores_cannot_rank() -> None:
    silent = LlamaIndexReranker(Reversed(scores=(None, None)), min_relevance=-inf)
    with pytest.raises(ConfigError, match="Reversed gives nodes no scores"):
        silent.rerank(["When?"], [PASSAGES], 5)
    cutoff = LlamaIndexReranker(SimilarityPostprocessor(similarity_cutoff=0.45), min_relevance=0.4)
    assert [p.id for p in cutoff.rerank(["When?"], [[BRIDGE, FERRY]], 5)[0]] == ["b1"]


def llm(*replies: str, **settings: Any) -> ScriptedLLM:
    return ScriptedLLM(replies=list(replies), **settings)


@pytest.mark.parametrize("is_chat", [True, False])
async def test_an_llm_replies(is_chat: bool) -> None:
    chat = LlamaIndexChat(llm("Yes. ", is_chat=is_chat))
    asked = [[Message("system", "Be brief."), Message("user", f"Is it {n}?")] for n in range(3)]
    replies = chat.reply(asked)
    assert [reply.text for reply in replies] == ["Yes."] * 3
    assert await chat.areply(asked) == replies
    assert chat.reply([]) == []


def test_an_llm_sees_the_whole_conversation() -> None:
    scripted = llm("Yes.")
    LlamaIndexChat(scripted).reply([[Message("system", "Be brief."), Message("user", "Is it?")]])
    assert scripted.asked == ["system: Be brief.\nuser: Is it?\nassistant: "]


async def test_an_llm_that_blocks_gets_a_thread() -> None:
    class Blocking(ScriptedLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
            assert threading.current_thread() is not threading.main_thread()
            return super().complete(prompt, formatted, **kwargs)

    for is_chat in (True, False):
        chat = LlamaIndexChat(Blocking(replies=["Yes."], is_chat=is_chat))
        assert (await chat.areply([[Message("user", "?")]]))[0].text == "Yes."


def test_its_probabilities_reach_the_gate() -> None:
    generator = ChatGenerator(LlamaIndexChat(llm("1893", probability=0.9)))
    assert isinstance(generator, Generator)
    sure = OpenRAG(generator, FakeRetriever([FERRY]), gate=Gate("f_minp", 0.5)).answer("When?")
    assert (sure.text, sure.decision.retrieve) == ("1893", False)
    assert exp(sure.draft.tokens[0].logprob) == pytest.approx(0.9)  # type: ignore[union-attr]
    silent = ChatGenerator(LlamaIndexChat(llm("1893")))
    with pytest.raises(ConfigError, match="does not tell the probabilities"):
        OpenRAG(silent, FakeRetriever([FERRY]), gate=Gate("f_minp", 0.5)).answer("When?")


async def test_an_llm_answers_and_condenses() -> None:
    writer = LlamaIndexChat(llm("It was 1893."))
    condenser = ChatCondenser(LlamaIndexChat(llm("When was the bridge opened?")))
    found = FakeRetriever([BRIDGE])
    rag = OpenRAG(ChatGenerator(writer), found, condenser=condenser)
    asked = Conversation("When?", (Message("user", "Is there a bridge?"),))
    for answer in (rag.answer(asked), await rag.aanswer(asked)):
        assert (answer.text, answer.question) == ("It was 1893.", "When was the bridge opened?")
    assert found.calls[0][0] == ("When was the bridge opened?",)


def test_it_is_asked_at_least_once_at_a_time() -> None:
    with pytest.raises(ConfigError, match="concurrency must be at least 1, got 0"):
        LlamaIndexChat(llm("Yes."), concurrency=0)


def test_it_is_known_by_its_kind_and_name() -> None:
    assert LlamaIndexChat(MockLLM()).name is None

    class NamedLLM(ScriptedLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return super().metadata.model_copy(update={"model_name": "gpt-x"})

    one, same, other = (
        LlamaIndexChat(NamedLLM(replies=["Yes."], system_prompt=prompt)).name
        for prompt in ("Be kind.", "Be kind.", "Be rude.")
    )
    assert one == same != other
    assert str(one).startswith(f"{NamedLLM.class_name()} gpt-x ")
