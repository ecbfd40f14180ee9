"""Collections of LlamaIndex's Qdrant store read by ours, and ours by LlamaIndex's."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, models

from llamaindex_openrag import (
    EmbeddingEncoder,
    EncoderEmbedding,
    from_documents,
    from_metadata_filters,
    sparse_doc_fn,
    sparse_query_fn,
)
from openrag_core import Field, Filter, Passage, SearchOptions
from openrag_core.retrieval import (
    PassageIndex,
    QdrantCollection,
)
from openrag_core.retrieval.requests import VectorNames
from tests.core.retrieval.conftest import LetterEncoder
from tests.homes import EVERYTHING, QUESTION, TEXTS, Home, bm25, home_in

METADATA: list[dict[str, Any]] = [
    {"file_path": "docs/bridge.md", "title": "Bridge", "page": 1, "place": "river"},
    {"file_path": "docs/ferry.md", "title": "Ferry", "page": 2, "fare": 2.5},
    {"file_path": "docs/keth.md", "title": "Keth", "page": 3, "place": "coast"},
    {"file_name": "tower.md", "title": "Tower", "page": 4},
    {"file_path": "docs/keth.md", "title": "Keth", "page": 5, "place": "town"},
]
DENSE, SPARSE = SearchOptions(mode="dense"), SearchOptions(mode="sparse")


def where(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:  # noqa: ANN401
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


FILTERS: list[tuple[MetadataFilters, set[int]]] = [
    (where("page", 3), {2}),
    (where("page", 3, FilterOperator.GTE), {2, 3, 4}),
    (where("fare", 2.5), {1}),
    (where("place", ["river", "town"], FilterOperator.IN), {0, 4}),
    (where("place", None, FilterOperator.IS_EMPTY), {1, 3}),
    (
        MetadataFilters(
            filters=[where("title", "Keth"), where("page", 4, FilterOperator.GT)],
            condition=FilterCondition.AND,
        ),
        {4},
    ),
    (
        MetadataFilters(
            filters=[where("title", "Keth"), where("page", 1)], condition=FilterCondition.OR
        ),
        {0, 2, 4},
    ),
]


def theirs(home: Home, *, hybrid: bool, **settings: Any) -> QdrantVectorStore:
    """Their store over `c`."""
    return QdrantVectorStore(
        "c",
        client=home.client,
        enable_hybrid=hybrid,
        sparse_doc_fn=sparse_doc_fn(bm25()),
        sparse_query_fn=sparse_query_fn(bm25()),
        sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF),
        index_doc_id=False,  # the store in memory warns that it needs none
        **settings,
    )


def written(home: Home, *, hybrid: bool) -> QdrantVectorStore:
    """A collection as theirs makes it, filled by theirs."""
    store = theirs(home, hybrid=hybrid)
    vectors = LetterEncoder().encode_passages(TEXTS)
    store.add(
        [
            TextNode(
                id_=str(UUID(int=number)),
                text=text,
                metadata=METADATA[number],
                embedding=vectors[number],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc {number}")},
            )
            for number, text in enumerate(TEXTS)
        ]
    )
    return store


def reader(home: Home) -> QdrantCollection:
    return QdrantCollection(home.store(), LetterEncoder(), sparse=bm25())


def query(
    mode: VectorStoreQueryMode = VectorStoreQueryMode.DEFAULT,
    filters: MetadataFilters | None = None,
    top_k: int = EVERYTHING,
) -> VectorStoreQuery:
    return VectorStoreQuery(
        query_embedding=LetterEncoder().encode_questions([QUESTION])[0],
        query_str=QUESTION,
        similarity_top_k=top_k,
        mode=mode,
        filters=filters,
    )


def scores(result: VectorStoreQueryResult) -> dict[str, float]:
    pairs = zip(result.nodes or (), result.similarities or (), strict=True)
    return {node.get_content(): score for node, score in pairs}


def our_scores(found: Sequence[Passage]) -> dict[str, Any]:
    return {passage.text: passage.retrieval_score for passage in found}


@pytest.mark.parametrize("hybrid", [False, True])
def test_their_collection_is_ranked_as_by_theirs(home: Home, hybrid: bool) -> None:
    store = written(home, hybrid=hybrid)
    collection = reader(home)
    expected = ("text-dense", "text-sparse-new") if hybrid else ("", None)
    assert collection.vectors == VectorNames(*expected)
    (found,) = collection.retrieve([QUESTION], EVERYTHING, DENSE)
    dense = scores(store.query(query()))
    assert [p.text for p in found] == list(dense)
    assert our_scores(found) == pytest.approx(dense, abs=1e-6)
    for passage in found:
        number = UUID(passage.id).int
        metadata = METADATA[number]
        assert passage.text == TEXTS[number]
        assert passage.metadata == metadata | {"doc_id": f"doc {number}"}
        file = metadata.get("file_path") or metadata["file_name"]
        assert (passage.title, passage.source) == (metadata["title"], file)
    (both,) = collection.retrieve([QUESTION], 1)
    assert both[0].text == TEXTS[1]
    if hybrid:
        (words,) = collection.retrieve([QUESTION], EVERYTHING, SPARSE)
        their_words = scores(store.query(query(VectorStoreQueryMode.SPARSE)))
        assert len(words) == 4  # one text shares no word
        assert our_scores(words) == pytest.approx(their_words, abs=1e-5)


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
@pytest.mark.parametrize("hybrid", [False, True])
def test_filters_hold_in_their_collections(
    home: Home, hybrid: bool, filters: MetadataFilters, expected: set[int]
) -> None:
    store = written(home, hybrid=hybrid)
    assert set(scores(store.query(query(filters=filters)))) == {TEXTS[n] for n in expected}
    options = SearchOptions(filter=from_metadata_filters(filters))
    (found,) = reader(home).retrieve([QUESTION], EVERYTHING, options)
    assert {UUID(p.id).int for p in found} == expected


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (Field("source") == "docs/keth.md", {2, 4}),
        (Field("source") == "tower.md", {3}),
        (Field("source") != "docs/keth.md", {0, 1, 3}),
        (Field("doc_id").is_in(["doc 1", "doc 2"]), {1, 2}),
    ],
    ids=str,
)
def test_our_own_fields_hold_there(home: Home, filter_: Filter, expected: set[int]) -> None:
    written(home, hybrid=True)
    (found,) = reader(home).retrieve([QUESTION], EVERYTHING, SearchOptions(filter=filter_))
    assert {UUID(p.id).int for p in found} == expected


async def test_event_loops_find_the_same_in_their_collections(home: Home) -> None:
    written(home, hybrid=True)
    collection = reader(home)
    assert await collection.aretrieve([QUESTION], 3) == collection.retrieve([QUESTION], 3)


def test_the_older_name_of_sparse_vectors_is_known(home: Home) -> None:
    store = theirs(home, hybrid=True, sparse_vector_name="text-sparse")
    vector = LetterEncoder().encode_passages(TEXTS[:1])[0]
    store.add([TextNode(id_=str(UUID(int=0)), text=TEXTS[0], embedding=vector)])
    assert reader(home).vectors == VectorNames("text-dense", "text-sparse")
    ((passage,),) = reader(home).retrieve(["bridge"], 1)
    assert (passage.text, passage.metadata) == (TEXTS[0], {})  # of no document


def indexed(home: Home) -> PassageIndex:
    """Our index, for theirs to read."""
    index = PassageIndex(home.store(), LetterEncoder(), sparse=bm25(), compatible=True)
    loaded = [
        Document(text=text, metadata=metadata, id_=f"doc {number}")
        for number, (text, metadata) in enumerate(zip(TEXTS, METADATA, strict=True))
    ]
    assert index.add_documents(from_documents(loaded)).added == EVERYTHING
    return index


def ours(home: Home) -> QdrantVectorStore:
    """Their store over our index."""
    return theirs(home, hybrid=True, dense_vector_name="dense", sparse_vector_name="bm25")


def test_our_index_is_ranked_by_theirs_as_by_ours(home: Home) -> None:
    index, store = indexed(home), ours(home)
    for mode, options in (
        (VectorStoreQueryMode.DEFAULT, DENSE),
        (VectorStoreQueryMode.SPARSE, SPARSE),
    ):
        result = store.query(query(mode))
        (expected,) = index.retrieve([QUESTION], EVERYTHING, options)
        assert len(expected) >= 4
        assert result.ids == [p.id for p in expected]
        assert scores(result) == pytest.approx(our_scores(expected), abs=1e-5)
    fused = store.query(query(VectorStoreQueryMode.HYBRID))
    assert next(iter(scores(fused))) == TEXTS[1]
    plain = theirs(home, hybrid=False, dense_vector_name="dense")
    assert plain.query(query()).ids == [
        p.id for p in index.retrieve([QUESTION], EVERYTHING, DENSE)[0]
    ]


def test_our_index_shows_theirs_whole_nodes(home: Home) -> None:
    index = indexed(home)
    (found,) = index.retrieve([QUESTION], EVERYTHING, DENSE)
    nodes = ours(home).query(query()).nodes or []
    for node, passage in zip(nodes, found, strict=True):
        assert isinstance(node, TextNode)
        number = TEXTS.index(node.text)
        metadata = METADATA[number]
        source = metadata.get("file_path", f"doc {number}")
        assert node.metadata == {"source": source, **metadata}
        assert node.node_id == passage.id
        assert node.ref_doc_id == passage.metadata["doc_id"]
        assert (node.start_char_idx, node.end_char_idx) == (0, len(node.text))


def test_their_retriever_reads_our_index(home: Home) -> None:
    index = indexed(home)
    there = VectorStoreIndex.from_vector_store(
        ours(home), embed_model=EncoderEmbedding(index.encoder)
    )
    nodes = there.as_retriever(similarity_top_k=2).retrieve(QUESTION)
    (expected,) = index.retrieve([QUESTION], 2, DENSE)
    assert [one.node.node_id for one in nodes] == [p.id for p in expected]
    assert [one.score for one in nodes] == pytest.approx([p.retrieval_score for p in expected])


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
def test_filters_of_theirs_hold_in_our_index(
    home: Home, filters: MetadataFilters, expected: set[int]
) -> None:
    index = indexed(home)
    assert set(scores(ours(home).query(query(filters=filters)))) == {TEXTS[n] for n in expected}
    options = SearchOptions(filter=from_metadata_filters(filters))
    (found,) = index.retrieve([QUESTION], EVERYTHING, options)
    assert {p.text for p in found} == {TEXTS[n] for n in expected}


def test_their_document_ids_are_ours(home: Home) -> None:
    index, store = indexed(home), ours(home)
    (document, *_) = index.documents()
    asked = query()
    asked.doc_ids = [document]
    assert len(store.query(asked).ids or []) == 1
    store.delete(document)
    assert document not in index.documents()
    assert index.count() == EVERYTHING - 1


async def test_their_store_in_an_event_loop_reads_our_index() -> None:
    with home_in("rest") as home:
        index = indexed(home)
        there = AsyncQdrantClient(**home.options)
        store = theirs(
            home, hybrid=True, dense_vector_name="dense", sparse_vector_name="bm25", aclient=there
        )
        result = await store.aquery(query())
        assert result.ids == [p.id for p in index.retrieve([QUESTION], EVERYTHING, DENSE)[0]]
        await there.close()


async def test_an_encoder_in_their_type_gives_the_same_vectors_and_uses_threads() -> None:
    threads: set[int] = set()

    class Watched(LetterEncoder):
        def _vector(self, text: str) -> list[float]:
            threads.add(threading.get_ident())
            return super()._vector(text)

    embedding = EncoderEmbedding(Watched())
    dense = LetterEncoder().encode_passages(TEXTS)
    assert embedding.model_name == "letters"
    assert await embedding.aget_query_embedding(TEXTS[0]) == dense[0]
    assert await embedding.aget_text_embedding(TEXTS[0]) == dense[0]
    assert await embedding.aget_text_embedding_batch(TEXTS) == dense
    assert threading.get_ident() not in threads
    assert embedding.get_text_embedding_batch(TEXTS) == dense
    assert embedding.get_query_embedding(TEXTS[2]) == embedding.get_text_embedding(TEXTS[2])
    there_and_back = EmbeddingEncoder(EncoderEmbedding(LetterEncoder(), embed_batch_size=2))
    assert there_and_back.name == "letters"
    for mine, given in zip(there_and_back.encode_passages(TEXTS), dense, strict=True):
        assert mine == pytest.approx(given, abs=1e-6)


def test_sparse_functions_give_the_terms_of_each_text() -> None:
    indices, values = sparse_doc_fn(bm25())(TEXTS)
    expected = bm25().encode_passages(TEXTS)
    assert (indices, values) == ([w.indices for w in expected], [w.values for w in expected])
    terms, ones = sparse_query_fn(bm25())(["ferry minutes"])
    known: Mapping[int, float] = dict(zip(indices[1], values[1], strict=True))
    assert terms[0]
    assert set(terms[0]) <= known.keys()
    assert set(ones[0]) == {1.0}
