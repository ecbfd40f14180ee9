"""langchain_openrag: documents that a chain has found already are read in place of the index's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from pydantic import ValidationError

from langchain_openrag import OpenRAGRunnable
from langchain_openrag.runnable import RunnableInput
from openrag_core import ConfigError, Draft, Gate, OpenRAG, QuestionError
from tests.fakes import (
    FakeGenerator,
    FakeReranker,
    FakeRetriever,
    FakeStreamingGenerator,
    tokens,
)

FOUND = [
    Document("1912", id="f1", metadata={"title": "Ferry"}),
    Document("1893", id="b1", metadata={"title": "Bridge", "page": 3}),
]


class Shelf(BaseRetriever):
    """A retriever of LangChain's own."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return FOUND if "?" in query else []


class Unasked(FakeRetriever):
    def retrieve(self, *_: Any) -> Any:  # noqa: ANN401
        pytest.fail("the pipeline's own retriever was asked")


class Chains(FakeRetriever):
    def extend(self, *_: Any) -> Any:  # noqa: ANN401
        return []


@pytest.fixture
def reader() -> OpenRAGRunnable:
    generator = FakeGenerator(drafts={"When?": Draft("memory", tokens(0.9))})
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2})
    rag = OpenRAG(generator, Unasked([]), reranker, gate=Gate("f_minp", 0.5))
    return OpenRAGRunnable(rag=rag, context_key="context")


def test_it_stands_where_chains_have_their_prompt(reader: OpenRAGRunnable) -> None:
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | reader
    output = chain.invoke("When?")
    assert output["answer"] == "1893"
    assert [document.id for document in output["context"]] == ["b1", "f1"]
    assert output["context"][0].metadata["page"] == 3
    assert output["gate"]["mode"] == "always"
    assert output["draft"] is None


async def test_in_event_loops_too(reader: OpenRAGRunnable) -> None:
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | reader
    assert (await chain.ainvoke("When?"))["answer"] == "1893"
    assert [one["answer"] for one in await chain.abatch(["When?", "Now?"])] == ["1893", "1893"]


def test_a_batch_reads_the_documents_of_each(reader: OpenRAGRunnable) -> None:
    ferry, bridge = FOUND
    inputs: list[Any] = [
        {"input": "When?", "context": [bridge]},
        {"input": "When?", "context": []},
        {"input": "When?", "context": bridge},
        {"input": "When?", "context": "1893"},
        {"input": " ", "context": [ferry]},
    ]
    outputs: list[Any] = reader.batch(inputs, return_exceptions=True)
    assert [one["answer"] for one in outputs[:3]] == ["1893", "The documents do not tell.", "1893"]
    assert outputs[1]["abstained"]
    assert all(isinstance(one, QuestionError) for one in outputs[3:])


def test_it_streams_what_was_found(reader: OpenRAGRunnable) -> None:
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | reader
    pieces = list(chain.stream("When?"))
    assert "".join(piece.get("answer", "") for piece in pieces) == "1893"
    whole = next(piece["context"] for piece in pieces if "context" in piece)
    assert {document.id for document in whole} == {"b1", "f1"}
    assert {key for piece in pieces for key in piece} == chain.invoke("When?").keys()


def test_whole_it_tells_no_piece(reader: OpenRAGRunnable) -> None:
    class Listener(BaseCallbackHandler):
        told: ClassVar[list[str]] = []

        def on_llm_new_token(self, token: Any, **_: Any) -> None:  # noqa: ANN401
            self.told.append(token)

    rag = replace(reader.rag, generator=FakeStreamingGenerator(), top_k=1)
    one = OpenRAGRunnable(rag=rag, context_key="context")
    given = {"question": "When?", "context": FOUND[1:]}
    assert one.invoke(given, {"callbacks": [Listener()]})["answer"] == "1893"
    assert Listener.told == []
    list(one.stream(given, {"callbacks": [Listener()]}))
    assert "".join(Listener.told) == "1893"


async def test_it_streams_in_event_loops(reader: OpenRAGRunnable) -> None:
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | reader
    pieces = [piece async for piece in chain.astream("When?")]
    assert "".join(piece.get("answer", "") for piece in pieces) == "1893"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("When?", "no documents in what is str"),
        ({"question": "When?"}, "no documents in what is dict"),
        ({"question": "When?", "context": "1893\n\n1912"}, "no documents in what is str under"),
        ({"question": "When?", "context": ["1893"]}, "no documents in what is list under"),
    ],
)
def test_what_holds_no_documents_is_refused(
    reader: OpenRAGRunnable, value: RunnableInput, told: str
) -> None:
    with pytest.raises(QuestionError, match=told):
        reader.invoke(value)


def test_settings_of_a_search_that_is_not_made_are_refused(reader: OpenRAGRunnable) -> None:
    with pytest.raises(ValidationError, match="gate, top_k would do nothing"):
        OpenRAGRunnable(rag=reader.rag, context_key="context", gate="never", top_k=2)
    configurable = reader.configurable_fields(top_k=ConfigurableField("top_k"))
    asked: Any = {"question": "When?", "context": FOUND}
    assert configurable.invoke(asked)["answer"] == "1893"
    with pytest.raises(ValidationError, match="top_k would do nothing"):
        configurable.invoke(asked, {"configurable": {"top_k": 1}})


def test_what_could_never_answer_is_refused_at_once(reader: OpenRAGRunnable) -> None:
    with pytest.raises(ConfigError, match="a runnable without context_key; it is 'context'"):
        reader.as_tool()
    chains = OpenRAG(FakeGenerator(), Chains([]), hops=2)
    with pytest.raises(ValidationError, match="gives single passages, and the pipeline's hops=2"):
        OpenRAGRunnable(rag=chains, context_key="context")


def test_without_the_key_the_index_is_asked() -> None:
    """A state may hold the context of an earlier turn."""
    found = OpenRAG(FakeGenerator(), FakeRetriever([]))
    output = OpenRAGRunnable(rag=found).invoke({"question": "When?", "context": FOUND})
    assert output["abstained"]
