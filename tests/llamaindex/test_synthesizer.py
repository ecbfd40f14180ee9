"""llamaindex_openrag/synthesizer.py: answers within LlamaIndex's own query engines."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llamaindex_openrag import OpenRAGQueryEngine, OpenRAGSynthesizer, to_node
from openrag_core import ConfigError, OpenRAG
from tests.fakes import FakeGenerator, FakeRetriever, reflected
from tests.llamaindex.fakes import BRIDGE, FERRY, FakeStreamingGenerator, bridges
from tests.llamaindex.test_callbacks import Recorder
from tests.llamaindex.test_query_engine import Chains

NODES = [to_node(FERRY), to_node(BRIDGE)]


class Shelf(BaseRetriever):
    """A retriever of LlamaIndex's own."""

    def _retrieve(self, _: QueryBundle) -> list[NodeWithScore]:
        return NODES


def test_it_stands_in_a_query_engine_of_theirs() -> None:
    engine = RetrieverQueryEngine(Shelf(), OpenRAGSynthesizer(bridges()))
    response: Any = engine.query("When?")
    assert str(response) == "1893"
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert response.metadata["grounded"]
    assert [one["text"] for one in response.metadata["candidates"]] == ["1893", "1912"]


async def test_in_event_loops_too() -> None:
    engine = RetrieverQueryEngine(Shelf(), OpenRAGSynthesizer(bridges()))
    assert str(await engine.aquery("When?")) == "1893"


def test_it_answers_as_the_engines_own_half() -> None:
    asked, theirs = QueryBundle("When?"), OpenRAGSynthesizer(bridges())
    ours: Any = OpenRAGQueryEngine(bridges()).synthesize(asked, NODES)
    for query in ("When?", asked):
        response: Any = theirs.synthesize(query, NODES)
        assert (response.response, response.source_nodes) == (ours.response, ours.source_nodes)
        assert response.metadata["candidates"] == ours.metadata["candidates"]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"evidence": "joint"}])
async def test_whole_it_says_nothing_that_is_not_believed(settings: dict[str, Any]) -> None:
    doubted = FakeStreamingGenerator(
        answers={"b1": reflected("1893", rel=0.9, sup=0.01)}, reflection_trained=True
    )
    rag = OpenRAG(doubted, FakeRetriever([BRIDGE]), **settings)
    expected = str(OpenRAGQueryEngine(rag).query("When?"))
    assert expected.startswith("The documents do not tell.")
    for synthesizer in (OpenRAGSynthesizer(rag), OpenRAGQueryEngine(rag)):
        asked, nodes = QueryBundle("When?"), [to_node(BRIDGE)]
        assert str(synthesizer.synthesize(asked, nodes)) == expected
        assert str(await synthesizer.asynthesize(asked, nodes)) == expected


def test_its_callbacks_are_the_engines() -> None:
    recorder = Recorder()
    manager = CallbackManager([recorder])
    synthesizer = OpenRAGSynthesizer(bridges(), callback_manager=manager)
    RetrieverQueryEngine(Shelf(), synthesizer).query("When?")
    assert [pair for pair in recorder.began if pair[0] != "retrieve"] == [
        ("query", "root"),
        ("reranking", "query"),
        ("synthesize", "query"),
        ("llm", "synthesize"),
    ]


def test_it_streams() -> None:
    synthesizer = OpenRAGSynthesizer(bridges(FakeStreamingGenerator(), top_k=1), streaming=True)
    response: Any = RetrieverQueryEngine(Shelf(), synthesizer).query("When?")
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1"]
    assert response.metadata["gate"]["mode"] == "always"
    assert "".join(response.response_gen) == "1893"
    assert response.metadata["grounded"]


async def test_it_streams_in_event_loops() -> None:
    synthesizer = OpenRAGSynthesizer(bridges(FakeStreamingGenerator(), top_k=1), streaming=True)
    response: Any = await RetrieverQueryEngine(Shelf(), synthesizer).aquery("When?")
    assert "".join([text async for text in response.response_gen]) == "1893"


async def test_texts_alone_are_read_too() -> None:
    synthesizer = OpenRAGSynthesizer(OpenRAG(FakeGenerator(), FakeRetriever([])))
    assert synthesizer.get_response("When?", ["1893"]) == "1893"
    assert await synthesizer.aget_response("When?", ["1893"]) == "1893"
    rag = OpenRAG(FakeStreamingGenerator(), FakeRetriever([]))
    streaming = OpenRAGSynthesizer(rag, streaming=True)
    texts: Any = streaming.get_response("When?", ["1893"])
    assert list(texts) == ["1893"]
    texts = await streaming.aget_response("When?", ["1893"])
    assert [text async for text in texts] == ["1893"]


def test_without_nodes_it_says_that_it_does_not_know() -> None:
    response: Any = OpenRAGSynthesizer(bridges()).synthesize("When?", [])
    assert response.metadata["abstained"]
    assert response.source_nodes == []


def test_additional_nodes_are_handed_on() -> None:
    more = NodeWithScore(node=TextNode(id_="more", text="1900"))
    response = OpenRAGSynthesizer(bridges()).synthesize("When?", NODES, [more])
    assert [node.node_id for node in response.source_nodes] == ["b1", "f1", "more"]


def test_no_llm_of_the_settings_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(Settings), "llm", property(lambda _: pytest.fail("it was asked for")))
    assert isinstance(OpenRAGSynthesizer(bridges()), BaseSynthesizer)


def test_what_it_cannot_do_is_refused() -> None:
    chains = OpenRAG(FakeGenerator(), Chains([BRIDGE, FERRY]), hops=2)
    synthesizer = OpenRAGSynthesizer(bridges())
    with pytest.raises(ConfigError, match="does not know temperature: it takes a query, nodes"):
        synthesizer.synthesize("When?", NODES, temperature=1)
    with pytest.raises(ConfigError, match="there is no prompt 'text_qa_template'"):
        synthesizer.update_prompts({"text_qa_template": PromptTemplate("{query_str}")})
    with pytest.raises(ConfigError, match="single passages are given"):
        OpenRAGSynthesizer(chains).synthesize("When?", NODES)
    with pytest.raises(ConfigError):
        OpenRAGSynthesizer("bundled")  # type: ignore[arg-type]
