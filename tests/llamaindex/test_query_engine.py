"""llamaindex_openrag/query_engine.py: answers, sources and metadata; foreign nodes; prompts."""

import json
from collections.abc import Sequence

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core import ConfigError, Draft, Gate, OpenRAG, Passage, QuestionError
from openrag_core.records import Evidence
from tests.fakes import FakeGenerator, FakeRetriever, tokens
from tests.llamaindex.fakes import BRIDGE, FERRY, bridges


@pytest.fixture
def engine() -> OpenRAGQueryEngine:
    return OpenRAGQueryEngine(bridges())


def test_what_is_no_pipeline_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"expected a pipeline, such as .*build\(\).*got str"):
        OpenRAGQueryEngine("bundled")  # type: ignore[arg-type]


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
    assert response.metadata["question"] == "When?"
    assert set(response.metadata["seconds"]) >= {"retrieve", "write"}


def test_its_metadata_holds_the_candidates_as_plain_values(engine: OpenRAGQueryEngine) -> None:
    metadata = json.loads(json.dumps(engine.query("When?").metadata))
    first, second = metadata["candidates"]
    assert (first["text"], first["node_ids"]) == ("1893", ["b1"])
    assert first["total"] == pytest.approx(0.9)
    assert first["score"]["rank"] == pytest.approx(0.9)
    assert second["node_ids"] == ["f1"]


async def test_it_is_asynchronous_too(engine: OpenRAGQueryEngine) -> None:
    response = await engine.aquery("When?")
    assert str(response) == "1893"
    assert response.source_nodes == engine.query("When?").source_nodes
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
    response = engine.synthesize(bundle, nodes)
    assert str(response) == "1893"
    assert response.source_nodes == engine.query(bundle).source_nodes


def test_without_nodes_it_abstains(engine: OpenRAGQueryEngine) -> None:
    response = engine.synthesize(QueryBundle("When?"), [])
    assert str(response) == "The documents do not tell."
    assert response.source_nodes == []


def test_nodes_of_other_retrievers_are_read_and_given_back(engine: OpenRAGQueryEngine) -> None:
    node = TextNode(id_="n1", text="1953", metadata={"file_path": "t.md"}, embedding=[1.0])
    response = engine.synthesize(QueryBundle("When?"), [NodeWithScore(node=node, score=0.3)])
    assert str(response) == "1953"
    assert response.source_nodes[0].node is node
    assert response.source_nodes[0].score == pytest.approx(0.8)


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


def test_nodes_know_their_document() -> None:
    passage = Passage(id="p", text="1893", metadata={"doc_id": "b.md"})
    engine = OpenRAGQueryEngine(OpenRAG(FakeGenerator(), FakeRetriever([passage])))
    assert engine.query("When?").source_nodes[0].node.ref_doc_id == "b.md"


def test_what_is_read_together_has_one_score() -> None:
    nodes = OpenRAGQueryEngine(bridges(evidence="joint")).query("When?").source_nodes
    assert [node.node_id for node in nodes] == ["b1", "f1"]
    assert nodes[0].score == nodes[1].score


def test_a_node_that_several_answers_rest_on_is_named_once() -> None:
    rag = OpenRAG(FakeGenerator(), Chains([BRIDGE, FERRY]), hops=2)
    response = OpenRAGQueryEngine(rag).query("When?")
    assert response.metadata is not None
    chains = [candidate["node_ids"] for candidate in response.metadata["candidates"]]
    assert sorted(chains) == [["b1", "f1"], ["f1", "b1"]]
    assert [node.node_id for node in response.source_nodes] == chains[0]


class Chains(FakeRetriever):
    """Every pair of its passages is a chain."""

    def extend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> list[list[Evidence]]:
        assert len(questions) == len(chains)
        first, second = self.retrieve(questions, top_k)[0]
        return [[(first, second), (second, first)]]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_blank_question_is_refused(streaming: bool) -> None:
    with pytest.raises(QuestionError, match="empty"):
        OpenRAGQueryEngine(bridges(), streaming=streaming).query(" ")


def test_an_answer_from_memory_has_no_sources() -> None:
    generator = FakeGenerator(drafts={"When?": Draft("In 1893.", tokens(0.9))})
    response = OpenRAGQueryEngine(bridges(generator, gate=Gate("never"))).query("When?")
    assert (str(response), response.source_nodes) == ("In 1893.", [])
    assert response.metadata is not None
    assert response.metadata["gate"]["retrieve"] is False


def test_there_are_no_prompts_to_change(engine: OpenRAGQueryEngine) -> None:
    assert engine.get_prompts() == {}
    engine.update_prompts({})
    with pytest.raises(ConfigError, match="there is no prompt 'text_qa_template'"):
        engine.update_prompts({"text_qa_template": PromptTemplate("{query_str}")})
