"""core/openrag_core/retrieval/collections.py, layouts.py: what others stored, by hand."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from openrag_core import (
    ConfigError,
    Field,
    Filter,
    FilterError,
    IndexMismatchError,
    IndexNotFoundError,
    QuestionError,
    SearchOptions,
)
from openrag_core.ports import Retriever
from openrag_core.retrieval import (
    Bm25Encoder,
    QdrantCollection,
    Server,
    ServerStore,
)
from openrag_core.retrieval.requests import VectorNames
from tests.core.retrieval.conftest import LetterEncoder
from tests.core.retrieval.rest import served

TEXTS = ["zebra zoo", "apple tree", "apple pie", "quiet lake", "apple tree"]
METADATA: list[dict[str, Any]] = [
    {"source": "zoo.md", "title": "Zoo", "page": 1, "author": "Ann"},
    {"source": "fruit.md", "title": "Fruit", "page": 2, "author": "Bob"},
    {"source": "fruit.md", "title": "Fruit", "page": 3, "author": "Bob"},
    {"source": "lake.md", "title": "Lake", "page": None, "tags": ["wet", "cold"]},
    {"source": "copy.md", "title": "Fruit", "page": 9, "author": "Ann"},
]
QUESTION = "An apple tree?"
DENSE = SearchOptions(mode="dense")
SPARSE = SearchOptions(mode="sparse")
IDF = models.SparseVectorParams(modifier=models.Modifier.IDF)


def langchain(number: int) -> dict[str, Any]:
    return {"page_content": TEXTS[number], "metadata": METADATA[number]}


def llamaindex(number: int) -> dict[str, Any]:
    node = {"id_": str(UUID(int=number)), "text": TEXTS[number], "metadata": METADATA[number]}
    document = f"doc {number}"
    ids = dict.fromkeys(("doc_id", "document_id", "ref_doc_id"), document)
    return {**METADATA[number], "_node_content": json.dumps(node), "_node_type": "TextNode", **ids}


def flat(number: int) -> dict[str, Any]:
    return {**METADATA[number], "body": TEXTS[number]}


LAYOUTS: dict[str, Any] = {"langchain": langchain, "llamaindex": llamaindex, "flat": flat}
KEYS: dict[str, dict[str, str]] = {"flat": {"content_key": "body"}}


def fill(
    client: QdrantClient,
    *,
    layout: str = "langchain",
    dense: str | None = "",
    sparse: str | None = None,
    distance: models.Distance = models.Distance.COSINE,
) -> None:
    """Store `TEXTS` as others do."""
    vectors = models.VectorParams(size=26, distance=distance)
    client.create_collection(
        "theirs",
        vectors_config={} if dense is None else {dense: vectors} if dense else vectors,
        sparse_vectors_config={sparse: IDF} if sparse else None,
    )
    meanings = LetterEncoder().encode_passages(TEXTS)
    words = Bm25Encoder().encode_passages(TEXTS)
    points = []
    for number in range(len(TEXTS)):
        vector: dict[str, Any] = {} if dense is None else {dense: meanings[number]}
        if sparse:
            terms = words[number]
            vector[sparse] = models.SparseVector(indices=terms.indices, values=terms.values)
        payload = LAYOUTS[layout](number)
        points.append(models.PointStruct(id=str(UUID(int=number)), vector=vector, payload=payload))
    client.upsert("theirs", points)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


def opened(client: QdrantClient, **settings: Any) -> QdrantCollection:
    settings = {"encoder": LetterEncoder(), **settings}
    return QdrantCollection(ServerStore(client, "theirs"), **settings)


def numbers(
    found: QdrantCollection, options: SearchOptions | None = None, top_k: int = 5
) -> list[int]:
    """Which of `TEXTS` were found for the question, by id."""
    return [UUID(p.id).int for p in found.retrieve([QUESTION], top_k, options)[0]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_passages_keep_what_was_stored_with_them(client: QdrantClient, layout: str) -> None:
    fill(client, layout=layout)
    found = opened(client, **KEYS.get(layout, {}))
    assert isinstance(found, Retriever)
    assert found.local
    ((best, *rest),) = found.retrieve([QUESTION], 5)
    by_hand = LetterEncoder().encode_passages([QUESTION, TEXTS[1]])
    cosine = sum(a * b for a, b in zip(*by_hand, strict=True))
    assert best.retrieval_score == pytest.approx(cosine, abs=1e-6)
    known = {"doc_id": "doc 1"} if layout == "llamaindex" else {}
    assert (best.id, best.text) == (str(UUID(int=1)), TEXTS[1])
    assert (best.title, best.source) == ("Fruit", "fruit.md")
    assert best.metadata == METADATA[1] | known
    assert [p.text for p in rest] == ["apple pie", "quiet lake", "zebra zoo"]  # each text once


FILTERS: list[tuple[Filter, set[int]]] = [
    (Field("metadata.page") == 3, {2}),
    (Field("page") > 2, {2, 4}),
    (Field("title") == "Fruit", {1, 2}),  # the fifth has the second's text
    (Field("source") == "fruit.md", {1, 2}),
    (Field("source").not_in(["fruit.md", "lake.md"]), {0, 4}),
    (Field("metadata.tags") == "wet", {3}),
    (~(Field("metadata.author") == "Bob") & Field("page").exists, {0, 4}),
]


@pytest.mark.parametrize(("filter_", "expected"), FILTERS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_filters_name_our_fields(
    client: QdrantClient, layout: str, filter_: Filter, expected: set[int]
) -> None:
    fill(client, layout=layout)
    found = opened(client, **KEYS.get(layout, {}))
    assert set(numbers(found, SearchOptions(filter=filter_))) == expected
    assert set(numbers(found.narrowed(filter_))) == expected


def test_both_kinds_of_vectors_are_searched_where_both_are(client: QdrantClient) -> None:
    fill(client, dense="text-dense", sparse="text-sparse-new", layout="llamaindex")
    both = opened(client, sparse=Bm25Encoder())
    assert both.vectors == VectorNames("text-dense", "text-sparse-new")
    assert numbers(both, SPARSE) == [1, 2]
    assert numbers(both, DENSE) == [1, 2, 3, 0]
    fused = SearchOptions(fusion="rrf", rrf_k=2)
    (hits,) = both.retrieve([QUESTION], 2, fused)
    expected: list[tuple[str, Any]] = [
        ("apple tree", pytest.approx(1 / 2 + 1 / 2)),  # ranks from 0
        ("apple pie", pytest.approx(1 / 4 + 1 / 4)),  # behind both copies of the first
    ]
    assert [(p.text, p.retrieval_score) for p in hits] == expected
    meaning = opened(client)
    assert meaning.vectors == VectorNames("text-dense", None)
    assert numbers(meaning, SearchOptions()) == numbers(both, DENSE)
    words = opened(client, encoder=None, sparse=Bm25Encoder())
    assert numbers(words, SearchOptions()) == [1, 2]


def test_a_collection_of_words_alone(client: QdrantClient) -> None:
    fill(client, dense=None, sparse="langchain-sparse")
    found = opened(client, sparse=Bm25Encoder())
    assert found.vectors == VectorNames(None, "langchain-sparse")
    assert numbers(found, SearchOptions()) == [1, 2]
    with pytest.raises(ConfigError, match="without dense vectors, which mode 'dense'"):
        found.retrieve(["?"], 1, DENSE)
    with pytest.raises(ConfigError, match="diversity needs"):
        found.retrieve(["?"], 1, SearchOptions(diversity=0.2))
    with pytest.raises(IndexMismatchError, match=r"no dense and 'langchain-sparse' sparse vectors"):
        opened(client)


def test_options_work_as_in_our_own_index(client: QdrantClient) -> None:
    fill(client)
    found = opened(client, options=SearchOptions(max_per_document=1))
    assert [p.text for p in found.retrieve([QUESTION], 5)[0]] == [
        "apple tree",
        "quiet lake",
        "zebra zoo",
    ]
    (scores,) = found.retrieve([QUESTION], 5, DENSE)
    least = (scores[1].retrieval_score or 0) - 1e-4
    assert numbers(found, SearchOptions(mode="dense", min_score=least)) == [1, 2]
    assert numbers(found, DENSE, top_k=1) == [1]
    far = SearchOptions(mode="dense", diversity=1.0)
    assert numbers(found, far, top_k=2)[0] == 1
    assert numbers(found, far, top_k=2)[1] != 2
    for wrong, error, words in (
        ((["?"], 0), ConfigError, "top_k must be a whole number"),
        (("?", 1), QuestionError, "give a list"),
        ((["?"], 1, SearchOptions(neighbours=1)), ConfigError, "neighbours=1: others do not say"),
        ((["?"], 1, SPARSE), ConfigError, "without sparse vectors, which mode 'sparse'"),
        (
            (["?"], 1, SearchOptions(filter=Field("author") == "Ann")),
            FilterError,
            r"'author' is no field of a passage.*metadata.author",
        ),
        (
            (["?"], 1, SearchOptions(filter=Field("metadata.autor") == "Ann")),
            FilterError,
            r"no passage at .* has a field 'metadata.autor'",
        ),
    ):
        with pytest.raises(error, match=words):
            found.retrieve(*wrong)
    nobody = SearchOptions(filter=Field("metadata.author") == "Eve")
    assert found.retrieve(["?"], 1, nobody) == [[]]


async def test_a_served_collection_is_read_in_threads_and_event_loops() -> None:
    with served() as (url, asked):
        direct = QdrantClient(url=url, check_compatibility=False)
        fill(direct, sparse="langchain-sparse")
        store = ServerStore.connect(Server(url=url), "theirs")
        found = QdrantCollection(store, LetterEncoder(), sparse=Bm25Encoder())
        assert not found.local
        options = SearchOptions(filter=Field("metadata.author") == "Bob")
        before = len(asked)
        expected = found.retrieve([QUESTION, "pie"], 1, options)
        assert [own[0].text for own in expected] == ["apple tree", "apple pie"]
        assert [one["path"] for one in asked[before:]] == ["collections/theirs/points/query/batch"]
        assert await found.aretrieve([QUESTION, "pie"], 1, options) == expected
        with pytest.raises(
            IndexNotFoundError, match=r"no collection at .*\(coll.*; there is their"
        ):
            QdrantCollection(ServerStore.connect(Server(url=url), "other"), LetterEncoder())
        found.close()
        direct.close()


async def test_a_collection_in_memory_is_read_in_event_loops(client: QdrantClient) -> None:
    fill(client)
    found = opened(client)
    assert await found.aretrieve([QUESTION], 3) == found.retrieve([QUESTION], 3)


def test_what_cannot_be_read_is_refused(client: QdrantClient) -> None:
    with pytest.raises(IndexNotFoundError, match=r"no collection at .*theirs\); there is none"):
        opened(client)
    client.create_collection(
        "theirs", vectors_config=models.VectorParams(size=26, distance=models.Distance.COSINE)
    )
    with pytest.raises(IndexNotFoundError, match=r"nothing is stored in"):
        opened(client)
    client.delete_collection("theirs")
    fill(client, distance=models.Distance.EUCLID)
    with pytest.raises(IndexMismatchError, match=r"compared by Euclid: only .* Cosine and Dot"):
        opened(client)
    with pytest.raises(IndexMismatchError, match=r"have length 26, and those of .* 'letters' 9"):
        opened(client, encoder=LetterEncoder(dimension=9))
    with pytest.raises(
        IndexMismatchError, match=r"none that is called 'x': give vector_name, .*''"
    ):
        opened(client, vector_name="x")


def test_of_several_vectors_one_is_named(client: QdrantClient) -> None:
    fill(client)
    client.delete_collection("theirs")
    one = models.VectorParams(size=26, distance=models.Distance.DOT)
    several = one.model_copy(
        update={
            "multivector_config": models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            )
        }
    )
    client.create_collection(
        "theirs",
        vectors_config={"text": one, "image": one, "tokens": several},
        sparse_vectors_config={"bm25": IDF, "splade": models.SparseVectorParams()},
    )
    vector = LetterEncoder().encode_passages(["apple"])[0]
    client.upsert(
        "theirs", [models.PointStruct(id=7, vector={"text": vector}, payload=langchain(1))]
    )
    with pytest.raises(IndexMismatchError, match=r"several: give vector_name, .* 'image', 'text'$"):
        opened(client)
    with pytest.raises(
        IndexMismatchError, match="give sparse_vector_name, one of 'bm25', 'splade'"
    ):
        opened(client, vector_name="text", sparse=Bm25Encoder())
    found = opened(client, vector_name="text", sparse_vector_name="bm25", sparse=Bm25Encoder())
    assert found.vectors == VectorNames("text", "bm25")
    assert [p.id for p in found.retrieve(["apple"], 1, DENSE)[0]] == ["7"]
    with pytest.warns(UserWarning, match=r"'splade' .* not multiplied .* 'bm25/english' .* with "):
        opened(client, vector_name="text", sparse_vector_name="splade", sparse=Bm25Encoder())


def test_stores_of_one_client_in_memory_take_turns(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client)
    inside: list[int] = []
    busy: list[int] = []

    def exists(_: str) -> bool:
        inside.append(1)
        busy.append(len(inside))
        sleep(0.02)
        inside.pop()
        return False

    stores = [ServerStore(client, name) for name in ("a", "b", "c")]
    monkeypatch.setattr(client, "collection_exists", exists)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda store: store.description, stores)) == [None] * 3
    assert busy == [1, 1, 1]
