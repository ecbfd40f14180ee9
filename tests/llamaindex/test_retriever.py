"""llamaindex_openrag/retriever.py and postprocessor.py: our search and our rerankers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
)
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import TransformRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import RetrieverTool
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from pydantic import ValidationError
from qdrant_client import QdrantClient

from llamaindex_openrag import (
    EmbeddingEncoder,
    LlamaIndexRetriever,
    OpenRAGPostprocessor,
    OpenRAGQueryEngine,
    OpenRAGRetriever,
    from_documents,
)
from openrag_core import (
    ConfigError,
    Field,
    FilterError,
    OpenRAG,
    Passage,
    QuestionError,
    SearchOptions,
)
from openrag_core.retrieval import PassageIndex, ServerStore
from tests.fakes import CarelessReranker, FakeGenerator, FakeReranker, FakeRetriever
from tests.llamaindex.fakes import BRIDGE, FERRY
from tests.llamaindex.test_callbacks import Listener, listener  # noqa: F401

LOADED = [
    Document(text="The ferry takes 25 minutes.", metadata={"file_path": "a.md", "year": 1893}),
    Document(text="The bridge was opened in 1893.", metadata={"file_path": "b.md", "year": 1893}),
    Document(text="The tower is 40 metres high.", metadata={"file_path": "c.md", "year": 1953}),
]


def only(
    key: str, value: str | int, operator: FilterOperator = FilterOperator.EQ
) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.fixture(scope="module")
def index() -> Iterator[PassageIndex]:
    encoder = EmbeddingEncoder(MockEmbedding(embed_dim=8), name="mock")
    index = PassageIndex(
        ServerStore(QdrantClient(":memory:"), "test"),
        encoder,
        options=SearchOptions(mode="sparse"),  # the mock's vectors are all the same
    )
    index.add_documents(from_documents(iter(LOADED)))
    yield index
    index.close()


async def test_it_finds_the_nearest_nodes(index: PassageIndex) -> None:
    retriever = OpenRAGRetriever(index, similarity_top_k=1)
    for nodes in (retriever.retrieve("ferry minutes"), await retriever.aretrieve("ferry minutes")):
        assert [node.text for node in nodes] == ["The ferry takes 25 minutes."]
        assert nodes[0].node.metadata["year"] == 1893
        assert nodes[0].node.metadata["source"] == "a.md"
        assert nodes[0].get_score() > 0


class Hypothetical(BaseQueryTransform):
    """As HyDE: searched is what an answer might look like."""

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        del prompts_dict

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        del metadata
        texts = ["The ferry takes an hour.", query_bundle.query_str]
        return QueryBundle(query_bundle.query_str, custom_embedding_strs=texts)


def test_what_a_query_transform_made_is_searched_with(index: PassageIndex) -> None:
    retriever = TransformRetriever(OpenRAGRetriever(index, similarity_top_k=1), Hypothetical())
    (found,) = retriever.retrieve("How long?")
    assert found.text == "The ferry takes 25 minutes."
    rag = OpenRAG(FakeGenerator(), LlamaIndexRetriever(retriever))
    assert str(OpenRAGQueryEngine(rag).query("How long?")) == found.text
    refused = TransformQueryEngine(OpenRAGQueryEngine(rag), Hypothetical())
    with pytest.raises(ConfigError, match=r"LlamaIndexRetriever\(TransformRetriever\("):
        refused.query("How long?")
    with pytest.raises(ConfigError, match=r"LlamaIndexRetriever\(TransformRetriever\("):
        OpenRAGQueryEngine(rag).retrieve(QueryBundle("How long?", custom_embedding_strs=["hour"]))


async def test_filters_and_options_are_joined(index: PassageIndex) -> None:
    options = SearchOptions(mode="sparse", filter=Field("metadata.year") == 1893)
    narrowed = OpenRAGRetriever(index, options=options, filters=only("source", "b.md"))
    for question in ("the ferry", "the bridge"):
        for nodes in (narrowed.retrieve(question), await narrowed.aretrieve(question)):
            assert {node.node.metadata["source"] for node in nodes} <= {"b.md"}
    assert narrowed.retrieve("the bridge")
    assert (
        OpenRAGRetriever(index, filters=only("year", 1953))
        .retrieve("ferry tower bridge")[0]
        .text.startswith("The tower")
    )


async def test_an_unknown_field_is_refused(index: PassageIndex) -> None:
    retriever = OpenRAGRetriever(index, filters=only("colour", "red"))
    with pytest.raises(FilterError, match=r"has a field 'metadata\.colour'"):
        retriever.retrieve("ferry")
    with pytest.raises(FilterError, match="colour"):
        await retriever.aretrieve("ferry")
    with pytest.raises(FilterError, match="'text_match' is no operator"):
        OpenRAGRetriever(index, filters=only("year", "x", FilterOperator.TEXT_MATCH))
    nothing = MetadataFilters(filters=[], condition=FilterCondition.AND)
    with pytest.raises(FilterError, match="without a filter"):
        OpenRAGRetriever(index, filters=nothing)


def test_other_retrievers_of_ours_will_do() -> None:
    found = OpenRAGRetriever(FakeRetriever([BRIDGE, FERRY]), 1).retrieve("When?")
    assert [(node.node_id, node.score) for node in found] == [("b1", 0.5)]
    with pytest.raises(ConfigError, match="FakeRetriever takes neither options nor filters"):
        OpenRAGRetriever(FakeRetriever([]), filters=only("year", 1953))
    with pytest.raises(ConfigError, match="must be at least 1; got 0 and 20"):
        OpenRAGRetriever(FakeRetriever([]), 0)
    many = FakeRetriever([BRIDGE])
    retriever = OpenRAGRetriever(many, 30, reranker=RERANKER)
    retriever.retrieve("When?")
    retriever.similarity_top_k = 50
    retriever.retrieve("When?")
    assert [top_k for _, top_k in many.calls] == [30, 50]


async def test_it_may_rerank() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    found = FakeRetriever([FERRY, BRIDGE])
    manager = CallbackManager([debug])
    retriever = OpenRAGRetriever(found, 1, reranker=RERANKER, fetch_k=9, callback_manager=manager)
    for nodes in (retriever.retrieve("When?"), await retriever.aretrieve("When?")):
        assert [(node.node_id, node.score) for node in nodes] == [("b1", 0.9)]
    assert [top_k for _, top_k in found.calls] == [9, 9]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


class AsynchronousRetriever(FakeRetriever):
    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        raise AssertionError((questions, top_k))

    async def aretrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        return super().retrieve(questions, top_k)


async def test_event_loops_are_not_blocked() -> None:
    assert await OpenRAGRetriever(AsynchronousRetriever([BRIDGE])).aretrieve("When?")
    threads = []

    class Blocking(FakeRetriever):
        def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
            threads.append(threading.current_thread())
            return super().retrieve(questions, top_k)

    await OpenRAGRetriever(Blocking([BRIDGE])).aretrieve("When?")
    assert threads != [threading.main_thread()]


async def test_it_is_a_tool(index: PassageIndex) -> None:
    tool = RetrieverTool.from_defaults(OpenRAGRetriever(index, 1), description="Facts.")
    for output in (tool.call("ferry"), await tool.acall("ferry")):
        assert "The ferry takes 25 minutes." in output.content
        assert output.raw_output[0].node.metadata["source"] == "a.md"


async def test_it_feeds_an_engine_of_llamaindex(index: PassageIndex) -> None:
    engine = RetrieverQueryEngine.from_args(
        OpenRAGRetriever(index),
        llm=MockLLM(),
        node_postprocessors=[OpenRAGPostprocessor(reranker=Words(), top_n=1)],
    )
    for response in (engine.query("the bridge opened"), await engine.aquery("the bridge opened")):
        assert [node.text for node in response.source_nodes] == ["The bridge was opened in 1893."]


class Words(FakeReranker):
    """Scores a passage by the share of the question's words that it has."""

    def __init__(self) -> None:
        super().__init__({})

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        asked = questions[0].split()
        self.scores = {p.id: sum(w in p.text for w in asked) / len(asked) for p in passages[0]}
        return super().rerank(questions, passages, top_k)


NODES = [
    NodeWithScore(node=TextNode(id_="f1", text="1912", embedding=[1.0]), score=9.0),
    NodeWithScore(node=TextNode(id_="b1", text="1893", metadata={"page": 3}), score=2.0),
]
RERANKER = FakeReranker({"b1": 0.9, "f1": 0.2})


async def test_the_best_nodes_come_first_as_they_were() -> None:
    rank = OpenRAGPostprocessor(reranker=RERANKER)
    for nodes in (
        rank.postprocess_nodes(NODES, query_str="When?"),
        await rank.apostprocess_nodes(NODES, QueryBundle("When?")),
    ):
        assert [(node.node_id, node.score) for node in nodes] == [("b1", 0.9), ("f1", 0.2)]
        assert nodes[0].node is NODES[1].node
    assert [node.score for node in NODES] == [9.0, 2.0]
    assert rank.to_dict()["class_name"] == "OpenRAGPostprocessor"


def test_the_others_are_left_out() -> None:
    first = OpenRAGPostprocessor(reranker=RERANKER, top_n=1)
    assert [n.node_id for n in first.postprocess_nodes(NODES, query_str="?")] == ["b1"]
    relevant = OpenRAGPostprocessor(reranker=RERANKER, min_score=RERANKER.min_relevance)
    assert [n.node_id for n in relevant.postprocess_nodes(NODES, query_str="?")] == ["b1"]
    assert first.postprocess_nodes([], query_str="?") == []


def test_what_a_reranker_gives_is_a_ranking() -> None:
    scored = OpenRAGPostprocessor(reranker=CarelessReranker(RERANKER.scores), top_n=1)
    assert [one.score for one in scored.postprocess_nodes(NODES, query_str="?")] == [0.2]
    unscored = OpenRAGPostprocessor(reranker=CarelessReranker({}))
    with pytest.raises(
        ConfigError, match=r"CarelessReranker\.rerank gave passages without a rerank_score"
    ):
        unscored.postprocess_nodes(NODES, query_str="?")


async def test_event_loops_use_the_rerankers_own_twin() -> None:
    class Asynchronous(FakeReranker):
        async def arerank(
            self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
        ) -> list[list[Passage]]:
            return [own[: top_k - 1] for own in super().rerank(questions, passages, top_k)]

    rank = OpenRAGPostprocessor(reranker=Asynchronous(RERANKER.scores), top_n=2)
    assert len(await rank.apostprocess_nodes(NODES, query_str="?")) == 1


def test_reranking_is_told(listener: Listener) -> None:  # noqa: F811
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])
    rank = OpenRAGPostprocessor(reranker=RERANKER, top_n=1, callback_manager=manager)
    rank.postprocess_nodes(NODES, query_str="When?")
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload is not None
    assert end.payload is not None
    assert start.payload[EventPayload.MODEL_NAME] == "FakeReranker"
    assert len(start.payload[EventPayload.NODES]) == 2
    assert [node.score for node in end.payload[EventPayload.NODES]] == [0.9]
    names = [event.class_name() for event in listener.heard]
    assert names == ["ReRankStartEvent", "ReRankEndEvent"]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(QuestionError, match="give query_str"):
        OpenRAGPostprocessor(reranker=RERANKER).postprocess_nodes(NODES)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        OpenRAGPostprocessor(reranker=RERANKER, top_n=0)
    with pytest.raises(ValidationError, match="Reranker"):
        OpenRAGPostprocessor(reranker="maxsim")  # type: ignore[arg-type]
