"""Collections of langchain-qdrant read by ours, and ours by langchain-qdrant."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import models

from langchain_openrag import EmbeddingsEncoder, EncoderEmbeddings, from_documents
from langchain_openrag.sparse import EncoderSparseEmbeddings
from openrag_core import Field, Filter, Passage, SearchOptions
from openrag_core.filters import from_dict
from openrag_core.retrieval import (
    PassageIndex,
    QdrantCollection,
    ServerStore,
    to_qdrant,
)
from openrag_core.retrieval.requests import VectorNames
from tests.core.retrieval.conftest import LetterEncoder
from tests.homes import EVERYTHING, QUESTION, TEXTS, Home, bm25

METADATA: list[dict[str, Any]] = [
    {"source": "bridge.md", "title": "Bridge", "page": 1, "tags": ["steel", "river"]},
    {"source": "ferry.md", "title": "Ferry", "page": 2, "fare": 2.5},
    {"source": "keth.md", "title": "Keth", "page": 3, "open": False},
    {"source": "tower.md", "title": "Tower", "page": 4, "by": {"name": "Ann"}},
    {"source": "keth.md", "title": "Keth", "page": 5, "open": True},
]
IDF = {"modifier": models.Modifier.IDF}
FILTERS: list[Filter] = [
    Field("metadata.page") == 3,
    Field("metadata.page") >= 3,
    Field("metadata.tags") == "steel",
    Field("metadata.open") == True,  # noqa: E712  (a condition, no truth value)
    Field("metadata.by.name") == "Ann",
    (Field("metadata.source") == "keth.md") & ~(Field("metadata.page") == 3),
]


def theirs(home: Home, mode: RetrievalMode, **settings: Any) -> QdrantVectorStore:
    """Their store over `c`."""
    return QdrantVectorStore(
        home.client,
        "c",
        embedding=EncoderEmbeddings(LetterEncoder()),
        sparse_embedding=EncoderSparseEmbeddings(bm25()),
        retrieval_mode=mode,
        **settings,
    )


def written(home: Home, mode: RetrievalMode) -> QdrantVectorStore:
    """A collection as theirs makes it, filled by theirs."""
    store = QdrantVectorStore.construct_instance(
        EncoderEmbeddings(LetterEncoder()),
        mode,
        EncoderSparseEmbeddings(bm25()),
        home.options,
        "c",
        sparse_vector_params=dict(IDF),
    )
    store.add_texts(TEXTS, METADATA, [str(UUID(int=n)) for n in range(EVERYTHING)])
    return store


def scores(found: Sequence[tuple[Document, float]]) -> dict[str, float]:
    return {document.page_content: score for document, score in found}


def our_scores(found: Sequence[Passage]) -> dict[str, Any]:
    return {passage.text: passage.retrieval_score for passage in found}


def reader(store: QdrantVectorStore, home: Home) -> QdrantCollection:
    ours = ServerStore(store.client, "c") if home.url is None else home.store()
    return QdrantCollection(ours, LetterEncoder(), sparse=bm25())


def test_their_dense_collection_is_ranked_as_by_theirs(home: Home) -> None:
    store = written(home, RetrievalMode.DENSE)
    collection = reader(store, home)
    assert collection.vectors == VectorNames("", None)
    (found,) = collection.retrieve([QUESTION], EVERYTHING)
    expected = store.similarity_search_with_score(QUESTION, EVERYTHING)
    assert [p.text for p in found] == [d.page_content for d, _ in expected]
    assert our_scores(found) == pytest.approx(scores(expected), abs=1e-6)
    for passage in found:
        number = UUID(passage.id).int
        assert passage.text == TEXTS[number]
        assert passage.metadata == METADATA[number]
        assert (passage.title, passage.source) == (
            METADATA[number]["title"],
            METADATA[number]["source"],
        )


def test_their_hybrid_collection_is_fused_as_by_theirs(home: Home) -> None:
    store = written(home, RetrievalMode.HYBRID)
    collection = reader(store, home)
    assert collection.vectors == VectorNames("", "langchain-sparse")
    as_theirs = SearchOptions(fusion="rrf", rrf_k=2)
    (found,) = collection.retrieve([QUESTION], EVERYTHING, as_theirs)
    expected = scores(store.similarity_search_with_score(QUESTION, EVERYTHING))
    assert our_scores(found) == pytest.approx(expected, abs=1e-6)
    assert found[0].text == TEXTS[1]
    (words,) = collection.retrieve([QUESTION], EVERYTHING, SearchOptions(mode="sparse"))
    their_words = reader_by_words(store).similarity_search_with_score(QUESTION, EVERYTHING)
    assert len(words) == 4  # one text shares no word
    assert our_scores(words) == pytest.approx(scores(their_words), abs=1e-5)


def reader_by_words(store: QdrantVectorStore) -> QdrantVectorStore:
    return QdrantVectorStore(
        store.client,
        "c",
        sparse_embedding=store.sparse_embeddings,
        retrieval_mode=RetrievalMode.SPARSE,
    )


@pytest.mark.parametrize("filter_", FILTERS, ids=str)
@pytest.mark.parametrize("mode", [RetrievalMode.DENSE, RetrievalMode.HYBRID])
def test_filters_hold_in_their_collections(
    home: Home, mode: RetrievalMode, filter_: Filter
) -> None:
    store = written(home, mode)
    expected = {
        text
        for text, metadata in zip(TEXTS, METADATA, strict=True)
        if filter_.matches({"metadata": metadata})
    }
    assert expected
    options = SearchOptions(filter=filter_)
    (found,) = reader(store, home).retrieve([QUESTION], EVERYTHING, options)
    assert {p.text for p in found} == expected
    same = store.similarity_search(QUESTION, EVERYTHING, filter=to_qdrant(filter_))
    assert {d.page_content for d in same} == expected


async def test_event_loops_find_the_same_in_their_collections(home: Home) -> None:
    store = written(home, RetrievalMode.HYBRID)
    collection = reader(store, home)
    questions = [QUESTION, "Who kept the lighthouse?"]
    expected = [collection.retrieve([question], 2) for question in questions]
    found = await asyncio.gather(*(collection.aretrieve([one], 2) for one in questions))
    assert found == expected


def test_words_without_their_frequencies_are_told(home: Home) -> None:
    store = QdrantVectorStore.construct_instance(
        EncoderEmbeddings(LetterEncoder()),
        RetrievalMode.HYBRID,
        EncoderSparseEmbeddings(bm25()),
        home.options,
        "c",
    )
    store.add_texts(TEXTS)
    with pytest.warns(UserWarning, match="'langchain-sparse' .* not multiplied by inverse"):
        collection = reader(store, home)
    assert len(collection.retrieve([QUESTION], EVERYTHING)[0]) == EVERYTHING


def indexed(home: Home) -> PassageIndex:
    """Our index, for theirs to read."""
    index = PassageIndex(home.store(), LetterEncoder(), sparse=bm25(), compatible=True)
    loaded = [
        Document(text, metadata=metadata) for text, metadata in zip(TEXTS, METADATA, strict=True)
    ]
    assert index.add_documents(from_documents(loaded)).added == EVERYTHING
    return index


def test_our_index_is_ranked_by_theirs_as_by_ours(home: Home) -> None:
    index = indexed(home)
    for mode, options in (
        (RetrievalMode.DENSE, SearchOptions(mode="dense")),
        (RetrievalMode.SPARSE, SearchOptions(mode="sparse")),
        (RetrievalMode.HYBRID, SearchOptions(fusion="rrf", rrf_k=2)),
    ):
        store = theirs(home, mode, vector_name="dense", sparse_vector_name="bm25")
        found = store.similarity_search_with_score(QUESTION, EVERYTHING)
        (expected,) = index.retrieve([QUESTION], EVERYTHING, options)
        assert len(expected) >= 4
        assert scores(found) == pytest.approx(our_scores(expected), abs=1e-5)
        ranked = sorted(found, key=lambda one: (-one[1], one[0].metadata["_id"]))  # ties by id
        assert [document.metadata["_id"] for document, _ in ranked] == [p.id for p in expected]


def test_our_index_shows_theirs_its_metadata(home: Home) -> None:
    indexed(home)
    store = theirs(home, RetrievalMode.DENSE, vector_name="dense")
    found = store.similarity_search(QUESTION, EVERYTHING)
    shown = {
        document.page_content: {
            key: value for key, value in document.metadata.items() if not key.startswith("_")
        }
        for document in found
    }
    assert shown == dict(zip(TEXTS, METADATA, strict=True))


def test_files_show_theirs_title_source_and_page(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "bridge.md"
    file.write_text("# Bridge\n\nOpened in 1893.", encoding="utf-8")
    index = PassageIndex(home.store(), LetterEncoder(), compatible=True)
    index.add_files([file])
    (found,) = theirs(home, RetrievalMode.DENSE, vector_name="dense").similarity_search("?", 1)
    shown = {key: value for key, value in found.metadata.items() if not key.startswith("_")}
    assert found.page_content == "Opened in 1893."
    assert shown == {"title": "Bridge", "source": str(file)}


@pytest.mark.parametrize("filter_", FILTERS, ids=str)
def test_filters_of_theirs_hold_in_our_index(home: Home, filter_: Filter) -> None:
    index = indexed(home)
    store = theirs(home, RetrievalMode.HYBRID, vector_name="dense", sparse_vector_name="bm25")
    expected = {
        text
        for text, metadata in zip(TEXTS, METADATA, strict=True)
        if filter_.matches({"metadata": metadata})
    }
    found = store.similarity_search(QUESTION, EVERYTHING, filter=to_qdrant(filter_))
    assert {d.page_content for d in found} == expected
    (ours,) = index.retrieve([QUESTION], EVERYTHING, SearchOptions(filter=filter_))
    assert {p.text for p in ours} == expected


def test_a_dictionary_is_a_filter_there_too(home: Home) -> None:
    indexed(home)
    store = theirs(home, RetrievalMode.DENSE, vector_name="dense")
    late = to_qdrant(from_dict({"metadata.page": {"$gt": 4}}))
    assert [d.page_content for d in store.similarity_search("?", 5, filter=late)] == TEXTS[4:]


async def test_their_store_in_an_event_loop_reads_our_index(home: Home) -> None:
    indexed(home)
    store = theirs(home, RetrievalMode.HYBRID, vector_name="dense", sparse_vector_name="bm25")
    found = await store.asimilarity_search_with_score(QUESTION, 3)
    assert scores(found) == scores(store.similarity_search_with_score(QUESTION, 3))


async def test_encoders_in_their_types_give_the_same_vectors_and_use_threads() -> None:
    threads: set[int] = set()

    class Watched(LetterEncoder):
        def _vector(self, text: str) -> list[float]:
            threads.add(threading.get_ident())
            return super()._vector(text)

    embeddings = EncoderEmbeddings(Watched())
    dense = LetterEncoder().encode_passages(TEXTS)
    assert await embeddings.aembed_documents(TEXTS) == dense
    assert await embeddings.aembed_query(TEXTS[0]) == dense[0]
    assert threading.get_ident() not in threads
    assert embeddings.embed_query(TEXTS[1]) == dense[1]
    there_and_back = EmbeddingsEncoder(embeddings, name="letters")
    assert there_and_back.encode_questions(TEXTS[:1])[0] == pytest.approx(dense[0], abs=1e-6)
    fake = DeterministicFakeEmbedding(size=8)
    encoder = EmbeddingsEncoder(fake, name="fake")
    assert EncoderEmbeddings(encoder).embed_query("x") == encoder.encode_questions(["x"])[0]
    sparse, words = EncoderSparseEmbeddings(bm25()), bm25().encode_passages(TEXTS)
    given = await sparse.aembed_documents(TEXTS)
    assert [(one.indices, one.values) for one in given] == [(w.indices, w.values) for w in words]
    assert set(sparse.embed_query(TEXTS[0]).values) == {1.0}
    assert await sparse.aembed_query("x") == sparse.embed_query("x")


def test_langchain_qdrant_is_needed_for_the_sparse_ones_alone() -> None:
    code = """
import sys
sys.modules["langchain_qdrant"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "langchain_qdrant" else find(name)
from langchain_openrag import EncoderEmbeddings
from openrag_core import MissingExtraError
try:
    import langchain_openrag.sparse
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "langchain_qdrant not installed. Run: pip install 'openrag-moe[langchain-qdrant]'\n"
    )
