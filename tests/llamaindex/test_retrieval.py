"""llamaindex_openrag: documents, embeddings and filters in our index."""

from datetime import UTC, datetime

import pytest
from llama_index.core import Document, MockEmbedding
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from qdrant_client import QdrantClient

from llamaindex_openrag import (
    EmbeddingEncoder,
    from_documents,
    from_metadata_filters,
    to_metadata_filters,
)
from openrag_core import Field, Filter, FilterError, SearchOptions
from openrag_core.filters import All, Not
from openrag_core.retrieval import PassageIndex, ServerStore

LOADED = [
    Document(text="The ferry takes 25 minutes.", metadata={"file_path": "a.md", "year": 1893}),
    Document(text=" ", metadata={"file_path": "a.md"}),
    Document(text="No file.", id_="own", metadata={"year": 1950}),
]


def test_what_readers_give_is_indexed_and_replaced() -> None:
    encoder = EmbeddingEncoder(MockEmbedding(embed_dim=8), name="mock")
    index = PassageIndex(ServerStore(QdrantClient(":memory:"), "test"), encoder)
    assert index.add_documents(from_documents(iter(LOADED))).added == 2
    again = [Document(text=d.text, metadata=d.metadata, id_=d.id_) for d in LOADED]
    assert index.add_documents(from_documents(again)).unchanged == 2
    assert sorted(index.documents()) == ["a.md#1", "own"]
    late = MetadataFilters(
        filters=[MetadataFilter(key="year", value=1900, operator=FilterOperator.GT)]
    )
    options = SearchOptions(filter=from_metadata_filters(late))
    assert [p.text for p in index.retrieve(["?"], 5, options)[0]] == ["No file."]


def test_the_model_names_the_encoder() -> None:
    encoder = EmbeddingEncoder(MockEmbedding(embed_dim=8, model_name="mock-8"))
    assert (encoder.name, encoder.dimension) == ("mock-8", 8)
    assert encoder.encode_passages([]) == []


@pytest.mark.parametrize(
    "filter_",
    [
        Field("source") == "a.md",
        Field("metadata.year") >= 1900,
        Field("metadata.year").is_in([1893, 1950]),
        Field("metadata.tags").exists,
        Field("metadata.page") == 3,
        ~(Field("page") < 3),
        (Field("page") == 3) & ((Field("metadata.year") != 1893) | Field("tenant").exists),
    ],
    ids=str,
)
def test_filters_go_there_and_back(filter_: Filter) -> None:
    read = from_metadata_filters(to_metadata_filters(filter_))
    for payload in (
        {"source": "a.md", "page": 3, "metadata": {"year": 1950, "tags": ["x"], "page": 4}},
        {"source": "b.md", "page": 2, "tenant": "t", "metadata": {"year": 1893}},
        {},
    ):
        assert read.matches(payload) == filter_.matches(payload)


def test_conditions_are_kept() -> None:
    one = MetadataFilter(key="year", value=1, operator=FilterOperator.EQ)
    two = MetadataFilter(key="page", value=[1, 2], operator=FilterOperator.IN)
    year, page = Field("metadata.year") == 1, Field("page").is_in([1, 2])
    for condition, expected in (
        (FilterCondition.AND, year & page),
        (FilterCondition.OR, year | page),
        (FilterCondition.NOT, Not(year | page)),
    ):
        given = MetadataFilters(filters=[one, two], condition=condition)
        assert from_metadata_filters(given) == expected
        nested = MetadataFilters(filters=[given, two])
        assert from_metadata_filters(nested) == All((expected, page))


def test_times_are_texts_there() -> None:
    since = MetadataFilter(key="created_at", value="2026-01-01", operator=FilterOperator.GTE)
    read = from_metadata_filters(MetadataFilters(filters=[since]))
    assert read == (Field("created_at") >= datetime(2026, 1, 1))
    assert read.matches({"created_at": "2026-03-01T00:00:00+00:00"})
    assert not read.matches({"created_at": "2025-03-01T00:00:00+00:00"})


def test_what_has_no_counterpart_is_refused() -> None:
    text = MetadataFilter(key="year", value="x", operator=FilterOperator.TEXT_MATCH)
    with pytest.raises(FilterError, match="'text_match' is no operator"):
        from_metadata_filters(MetadataFilters(filters=[text]))
    with pytest.raises(FilterError, match="without a filter"):
        from_metadata_filters(MetadataFilters(filters=[]))
    with pytest.raises(FilterError, match="no truth values"):
        to_metadata_filters(Field("metadata.open") == True)  # noqa: E712
    with pytest.raises(FilterError, match="no times"):
        to_metadata_filters(Field("created_at") > datetime(2025, 1, 1, tzinfo=UTC))
