"""llamaindex_openrag: the pipeline as a query engine, as a tool, with foreign nodes."""

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import OpenRAG, Passage, QuestionError
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever

BRIDGE = Passage(
    id="b1", text="1893", title="Bridge", source="b.md", metadata={"page": 3}, retrieval_score=0.5
)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


@pytest.fixture
def engine() -> OpenRAGQueryEngine:
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2, "n1": 0.8})
    return OpenRAGQueryEngine(OpenRAG(FakeGenerator(), FakeRetriever([FERRY, BRIDGE]), reranker))


def test_it_answers_with_its_sources(engine: OpenRAGQueryEngine) -> None:
    response = engine.query("When?")
    assert str(response) == "1893"
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert response.source_nodes[0].score == pytest.approx(0.9)
    assert response.source_nodes[0].node.metadata == {
        "page": 3,
        "title": "Bridge",
        "source": "b.md",
    }
    assert response.metadata is not None
    assert response.metadata["grounded"] is True
    assert response.metadata["truncated"] is False
    assert response.metadata["gate"]["mode"] == "always"
    assert set(response.metadata["seconds"]) >= {"retrieve", "write"}


async def test_it_is_asynchronous_too(engine: OpenRAGQueryEngine) -> None:
    assert str(await engine.aquery("When?")) == "1893"
    bundle = QueryBundle("When?")
    nodes = await engine.aretrieve(bundle)
    assert [node.node_id for node in nodes] == ["b1", "f1"]
    assert str(await engine.asynthesize(bundle, nodes)) == "1893"
    far = await engine.asynthesize(bundle, nodes[1:])
    assert str(far).startswith("The documents do not tell")


def test_retrieving_and_answering_can_be_parted(engine: OpenRAGQueryEngine) -> None:
    bundle = QueryBundle("When?")
    nodes = engine.retrieve(bundle)
    assert [node.score for node in nodes] == [0.9, 0.2]
    assert str(engine.synthesize(bundle, nodes)) == "1893"


def test_nodes_of_other_retrievers_are_read(engine: OpenRAGQueryEngine) -> None:
    node = TextNode(id_="n1", text="1953", metadata={"file_path": "t.md", "title": "Tower"})
    response = engine.synthesize(QueryBundle("When?"), [NodeWithScore(node=node, score=0.8)])
    assert str(response) == "1953"
    assert response.source_nodes[0].node.metadata["source"] == "t.md"


def test_additional_nodes_are_handed_on_unread(engine: OpenRAGQueryEngine) -> None:
    bundle = QueryBundle("When?")
    nodes = engine.retrieve(bundle)
    response = engine.synthesize(bundle, nodes[:1], additional_source_nodes=nodes[1:])
    assert str(response) == "1893"
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert len(engine.synthesize(bundle, nodes[:1]).source_nodes) == 1


def test_metadata_says_nothing_to_a_model_but_title_and_source(engine: OpenRAGQueryEngine) -> None:
    node = engine.query("When?").source_nodes[0].node
    assert node.get_content(MetadataMode.LLM) == "title: Bridge\nsource: b.md\n\n1893"


def test_it_is_a_tool_whose_sources_survive(engine: OpenRAGQueryEngine) -> None:
    tool = QueryEngineTool.from_defaults(engine, name="bridges", description="About bridges.")
    output = tool.call("When?")
    assert output.content == "1893"
    assert output.raw_output.source_nodes[0].node_id == "b1"


def test_events_reach_the_callbacks() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rag = OpenRAG(FakeGenerator(), FakeRetriever([BRIDGE]))
    OpenRAGQueryEngine(rag, CallbackManager([debug])).query("When?")
    assert debug.get_event_pairs(CBEventType.QUERY)


def test_a_blank_question_is_refused(engine: OpenRAGQueryEngine) -> None:
    with pytest.raises(QuestionError, match="empty"):
        engine.query(" ")


def test_there_are_no_prompts_to_change(engine: OpenRAGQueryEngine) -> None:
    assert engine.get_prompts() == {}
