"""langchain_openrag: documents, embeddings and chat models in our index."""

from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from qdrant_client import QdrantClient

from langchain_openrag import EmbeddingsEncoder, LangChainChat, from_documents
from openrag_core import DocumentError, Field, SearchOptions
from openrag_core.cache import JsonCache
from openrag_core.retrieval import ChatContext, PassageIndex, ServerStore

LOADED = [
    Document(
        "The ferry takes 25 minutes.", metadata={"source": "a.md", "title": "Ferry", "page": 3}
    ),
    Document("  ", metadata={"source": "a.md"}),
    Document("The bridge opened in 1893.", metadata={"source": "a.md", "path": Path("a.md")}),
    Document("No source.", id="own"),
]


def memory() -> ServerStore:
    return ServerStore(QdrantClient(":memory:"), "test")


def test_what_loaders_give_is_indexed_and_replaced() -> None:
    encoder = EmbeddingsEncoder(DeterministicFakeEmbedding(size=16), name="fake")
    index = PassageIndex(memory(), encoder)
    assert index.add_documents(from_documents(iter(LOADED))).added == 3
    assert index.add_documents(from_documents(LOADED)).unchanged == 3
    ((ferry,),) = index.retrieve(["ferry"], 1, SearchOptions(mode="sparse"))
    assert (ferry.title, ferry.source, ferry.text) == ("Ferry", "a.md", LOADED[0].page_content)
    assert sorted(index.documents()) == ["a.md", "a.md#page=3", "own"]
    third = SearchOptions(filter=Field("metadata.page") == 3)
    assert [p.text for p in index.retrieve(["?"], 5, third)[0]] == [LOADED[0].page_content]
    changed = [Document("The ferry takes 30 minutes.", metadata=LOADED[0].metadata), *LOADED[1:]]
    assert index.add_documents(from_documents(changed)).changed == 1
    twice = [
        Document("One.", metadata={"source": "b", "title": None}),
        LOADED[0],
        Document("Two.", metadata={"source": "b"}),
    ]
    assert [(d.id, d.sections[0].title) for d in from_documents(twice)] == [
        ("b", ""),
        ("a.md#page=3", "Ferry"),
        ("b#2", ""),
    ]
    with pytest.raises(DocumentError, match="neither id nor"):
        list(from_documents([Document("Nowhere.")]))


def test_embeddings_are_made_unit_vectors() -> None:
    encoder = EmbeddingsEncoder(DeterministicFakeEmbedding(size=16), name="fake")
    assert encoder.dimension == 16
    (vector,) = encoder.encode_questions(["text"])
    assert vector == encoder.encode_passages(["text"])[0]
    assert abs(sum(value * value for value in vector) - 1) < 1e-6
    assert encoder.encode_passages([]) == encoder.encode_questions([]) == []


def test_a_chat_model_writes_the_context(tmp_path: Path) -> None:
    encoder = EmbeddingsEncoder(DeterministicFakeEmbedding(size=16), name="fake")
    file = tmp_path / "contexts.jsonl"
    for replies in (["About Zanzibar."], ["never asked"]):
        chat = FakeListChatModel(responses=replies)
        context = ChatContext(LangChainChat(chat), name="fake", cache=JsonCache(file))
        index = PassageIndex(memory(), encoder, context=context)
        index.add_documents(from_documents(LOADED[:1]))
        (found,) = index.retrieve(["zanzibar"], 1, SearchOptions(mode="sparse"))
        assert [p.text for p in found] == [LOADED[0].page_content]
