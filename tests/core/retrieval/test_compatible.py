"""core/openrag_core/retrieval/payload.py: our own index, for others and as one of theirs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrag_core import Field, IndexMismatchError, SearchOptions
from openrag_core.retrieval import (
    Bm25Encoder,
    Document,
    EdgeStore,
    PassageIndex,
    QdrantCollection,
    Section,
    copy_points,
    document_from_text,
)
from openrag_core.retrieval.layouts import OPENRAG
from openrag_core.retrieval.requests import VectorNames
from tests.core.retrieval.conftest import LetterEncoder, memory
from tests.core.retrieval.test_collections import METADATA, QUESTION, TEXTS


def documents() -> Iterator[Document]:
    for text, metadata in zip(TEXTS, METADATA, strict=True):
        yield document_from_text(
            text, metadata["source"], title=metadata["title"], metadata=metadata
        )


@pytest.mark.parametrize("compatible", [False, True])
def test_our_own_index_is_read_too(compatible: bool) -> None:
    store = memory()
    index = PassageIndex(store, LetterEncoder(), compatible=compatible)
    index.add_documents(documents())
    found = QdrantCollection(store, LetterEncoder(), sparse=index.sparse)
    assert found.layout == OPENRAG
    assert found.vectors == VectorNames("dense", "bm25")
    options = SearchOptions(filter=Field("source") != "zoo.md")
    expected = index.retrieve([QUESTION, "pie"], 3, options)
    assert [len(own) for own in expected] == [3, 3]
    assert found.retrieve([QUESTION, "pie"], 3, options) == expected
    with pytest.raises(IndexMismatchError, match="encoder 'letters', and you are using 'others'"):
        QdrantCollection(store, LetterEncoder("others"))
    with pytest.raises(IndexMismatchError, match=r"sparse 'bm25/english', and .* 'bm25/german'"):
        QdrantCollection(store, None, sparse=Bm25Encoder("german"))


def test_an_index_that_is_shared_is_not_read_past_its_tenants() -> None:
    store = memory()
    index = PassageIndex(store, LetterEncoder(), tenant="one", compatible=True)
    index.add_documents(documents())
    with pytest.raises(IndexMismatchError, match="shared by tenants: open it with PassageIndex"):
        QdrantCollection(store, LetterEncoder(), content_key="page_content")


def test_an_index_stays_readable_by_others_wherever_it_goes(tmp_path: Path) -> None:
    edge = EdgeStore(tmp_path / "index")
    PassageIndex(edge, LetterEncoder(), compatible=True).add_documents(documents())
    target = memory()
    copy_points(edge, target)
    copied = PassageIndex(target, LetterEncoder())
    assert copied.compatible
    copied.add_documents([document_from_text("A new one.", "new", metadata={"page": 7, "x": True})])
    (new,) = (point.payload for page in target.scroll(Field("doc_id") == "new") for point in page)
    assert (new["page_content"], new["page"], new["x"]) == ("A new one.", 7, True)
    assert new["metadata"] == {"title": "", "source": "new", "page": 7, "x": True}
    assert new["ref_doc_id"] == new["document_id"] == new["doc_id"] == "new"
    for wrong in (edge, target):
        with pytest.raises(IndexMismatchError, match=r"with compatible True, and you .* False"):
            PassageIndex(wrong, LetterEncoder(), compatible=False)


def test_what_a_document_brought_is_shown_before_ours() -> None:
    index = PassageIndex(memory(), LetterEncoder(), compatible=True)
    sections = (Section("Zoo > Prices", "Free on Mondays.", page=4),)
    metadata = {"title": "The Zoo", "chunk": "x", "author": "Ann"}
    index.add_documents([Document("zoo", "zoo.pdf", "hash", sections, metadata)])
    ((point,),) = index.store.scroll()
    stored = point.payload
    assert stored["metadata"] == {"source": "zoo.pdf", "page": 4, **metadata}
    assert json.loads(stored["_node_content"])["metadata"] == stored["metadata"]
    assert (stored["author"], stored["page"]) == ("Ann", 4)
    assert (stored["title"], stored["chunk"]) == ("Zoo > Prices", 0)  # the index's own stay


def test_an_index_is_not_readable_by_others_unasked() -> None:
    index = PassageIndex(memory(), LetterEncoder())
    index.add_documents(documents())
    ((first, *_),) = index.store.scroll()
    assert not {"page_content", "_node_content", "author"} & first.payload.keys()
    assert index.store.description == {**(index.store.description or {}), "compatible": False}


def test_an_index_from_before_there_was_a_choice_is_opened() -> None:
    made = PassageIndex(memory(), LetterEncoder())
    made.add_documents(documents())
    older = dict(made.store.description or {})
    del older["compatible"]
    store = memory()
    store.create(older)
    store.upsert([point for page in made.store.scroll(vectors=True) for point in page])
    assert PassageIndex(store, LetterEncoder()).retrieve([QUESTION], 2) == made.retrieve(
        [QUESTION], 2
    )
