"""core/openrag_core/retrieval/index.py: what is found, and what is refused."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrag_core import (
    ConfigError,
    DocumentError,
    Field,
    FilterError,
    IndexMismatchError,
    IndexNotFoundError,
    QuestionError,
    Retriever,
    SearchOptions,
)
from openrag_core.retrieval import (
    Bm25Encoder,
    Chunker,
    EdgeStore,
    PassageIndex,
    document_from_text,
    searching,
)
from openrag_core.retrieval.index import check_indexed
from openrag_core.retrieval.store import Hit
from tests.core.retrieval.conftest import LetterEncoder, memory


def test_what_was_indexed_is_found(folder: Path, encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    assert isinstance(index, Retriever)
    index.add_files(sorted(folder.iterdir()))
    ferry, repairs = index.retrieve(["How long does the ferry take?", "When closed?"], 2)
    assert ferry[0].text == "The ferry takes 25 minutes."
    assert ferry[0].source == str(folder / "ferry.txt")
    assert (repairs[0].title, repairs[0].text) == ("Bridge > Repairs", "Closed in 1950.")
    assert len(repairs) == 2
    assert repairs[0].retrieval_score is not None
    assert repairs[0].metadata["chunk"] == 1
    assert "page" not in repairs[0].metadata


def test_what_a_document_brought_is_shown_as_it_was(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    brought = {"created_at": "1893-05-01", "start": 12.5, "doc_id": "other", "by": "Ana"}
    unknown = {"chunk": None, "year": None}
    index.add_documents([document_from_text("The bridge.", "b", metadata={**brought, **unknown})])
    for field in (Field("metadata.created_at") == "1893-05-01", Field("doc_id") == "b"):
        ((found,),) = index.retrieve(["bridge"], 1, SearchOptions(filter=field))
        assert found.metadata.items() >= {**brought, "doc_id": "b", "chunk": 0, "end": 11}.items()
        assert found.metadata["year"] is None


def test_another_content_is_another_fingerprint(folder: Path, encoder: LetterEncoder) -> None:
    index, same = PassageIndex(memory(), encoder), PassageIndex(memory(), encoder)
    empty = index.fingerprint()
    index.add_files(sorted(folder.iterdir()))
    same.add_files(sorted(folder.iterdir(), reverse=True))
    before = index.fingerprint()
    assert empty != before == same.fingerprint()
    (folder / "ferry.txt").write_text("The ferry takes 30 minutes.", encoding="utf-8")
    index.add_files(sorted(folder.iterdir()))
    assert index.count() == same.count()
    assert index.fingerprint() not in {empty, before}


def test_diversity_reaches_what_is_found(tmp_path: Path) -> None:
    class Hand(LetterEncoder):
        def encode_passages(self, texts: Sequence[str]) -> list[list[float]]:
            by_hand = {"one": [1.0, 0, 0], "like it": [0.99, 0.14, 0], "other": [0.6, 0, 0.8]}
            return [by_hand.get(text, [1.0, 0, 0]) for text in texts]

        encode_questions = encode_passages

    for store in (memory(), EdgeStore(tmp_path / "index")):
        index = PassageIndex(store, Hand(dimension=3))
        index.add_documents(document_from_text(t, t) for t in ("one", "like it", "other"))

        def found(index: PassageIndex = index, **options: Any) -> list[str]:
            (own,) = index.retrieve(["?"], 2, SearchOptions(mode="dense", **options))
            return [passage.text for passage in own]

        assert found() == ["one", "like it"]
        assert found(diversity=0.7) == ["one", "other"]
        index.close()


def test_many_equal_texts_do_not_crowd_out_others(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    same = [document_from_text("The ferry takes 25 minutes.", f"same {n}") for n in range(60)]
    others = [document_from_text(f"Bridge number {n}.", f"other {n}") for n in range(20)]
    index.add_documents([*same, *others])
    (found,) = index.retrieve(["How long does the ferry take?"], 5)
    assert len({passage.text for passage in found}) == 5
    (all_,) = index.retrieve(["?"], 40)
    assert len(all_) == 21


def test_indexes_on_one_empty_home_agree(tmp_path: Path, encoder: LetterEncoder) -> None:
    for one, other in (
        [EdgeStore(tmp_path / "index"), EdgeStore(tmp_path / "index")],
        [(store := memory()), store],
    ):
        first, second = PassageIndex(one, encoder), PassageIndex(other, encoder)
        foreign = PassageIndex(other, LetterEncoder("words"))
        first.add_documents([document_from_text("The ferry.", "1")])
        assert [p.text for p in second.retrieve(["ferry"], 1)[0]] == ["The ferry."]
        second.add_documents([document_from_text("A much longer text about bridges.", "2")])
        assert first.retrieve(["bridges"], 2) == second.retrieve(["bridges"], 2)
        with pytest.raises(IndexMismatchError, match="'letters'"):
            foreign.add_documents([document_from_text("Text.", "3")])
        first.close()
        second.close()


def test_vectors_of_another_length_are_refused_with_both(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_documents([document_from_text("Text.", "1")])
    index.encoder = LetterEncoder(dimension=20)
    index.encoder.dimension = 26
    with pytest.raises(IndexMismatchError, match=r"length 20.*length 26"):
        index.retrieve(["?"], 1)
    with pytest.raises(IndexMismatchError, match="length 20"):
        index.add_documents([document_from_text("Text.", "2")])


def test_metadata_comes_back_and_filters(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_documents(
        document_from_text(f"Text {n}.", str(n), title="T", source=f"{n}.md", metadata={"year": n})
        for n in (1990, 2000)
    )
    late = SearchOptions(filter=Field("metadata.year") > 1995)
    ((found,),) = index.retrieve(["Text?"], 5, late)
    assert (found.title, found.source) == ("T", "2000.md")
    assert found.metadata["year"] == 2000
    assert (found.metadata["start"], found.metadata["end"]) == (0, len("Text 2000."))
    assert index.retrieve(["Text?"], 5, SearchOptions(filter=Field("metadata.year") > 2005)) == [[]]
    with pytest.raises(FilterError, match=r"'year' is no field.*metadata.year"):
        index.retrieve(["Text?"], 5, SearchOptions(filter=Field("year") > 1995))
    with pytest.raises(FilterError, match=r"no passage at .* has a field 'metadata.yaer'"):
        index.retrieve(["Text?"], 5, SearchOptions(filter=Field("metadata.yaer") > 1995))


def test_tenants_see_and_touch_their_own_only(encoder: LetterEncoder) -> None:
    store = memory()
    one, other = (PassageIndex(store, encoder, tenant=name) for name in ("one", "other"))
    one.add_documents([document_from_text("Ours.", "1")])
    other.add_documents([document_from_text("Theirs.", "1"), document_from_text("Ours.", "2")])
    assert [p.text for p in one.retrieve(["?"], 5)[0]] == ["Ours."]
    assert {p.text for p in other.retrieve(["?"], 5)[0]} == {"Theirs.", "Ours."}
    one.remove(["1", "2"])
    assert (one.count(), other.count()) == (0, 2)
    one.add_documents([document_from_text("Changed.", "1")])
    assert {p.text for p in other.retrieve(["?"], 5)[0]} == {"Theirs.", "Ours."}
    assert PassageIndex(store, encoder, tenant="new").retrieve(["?"], 5) == [[]]
    with pytest.raises(IndexMismatchError, match="shared by tenants: name one"):
        PassageIndex(store, encoder)


def test_an_index_without_tenants_takes_none(encoder: LetterEncoder) -> None:
    store = memory()
    PassageIndex(store, encoder).add_documents([document_from_text("Ours.", "1")])
    with pytest.raises(IndexMismatchError, match="was made without tenants"):
        PassageIndex(store, encoder, tenant="one")


def test_a_crowding_document_is_not_read_to_its_end(
    encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_MOST", 20)
    index, limits = PassageIndex(memory(), encoder), list[int]()
    long = "\n\n".join(f"# {n}\n\nferry {n}" for n in range(40))
    index.add_documents([document_from_text(long, "c"), document_from_text("ship", "d")])
    search = index.store.search

    def counted(queries: Any, limit: int, options: SearchOptions) -> list[list[Hit]]:  # noqa: ANN401
        limits.append(limit)
        return search(queries, limit, options)

    monkeypatch.setattr(index.store, "search", counted)
    (found,) = index.retrieve(["ferry"], 2, SearchOptions(mode="dense", max_per_document=1))
    assert [p.metadata["doc_id"] for p in found] == ["c"]
    assert limits == [6, 20]


async def test_an_event_loop_does_not_wait_for_the_store(encoder: LetterEncoder) -> None:
    index, threads = PassageIndex(memory(), encoder), list[threading.Thread]()

    def exists() -> bool:
        threads.append(threading.current_thread())
        return False

    index._exists = exists  # type: ignore[method-assign]
    with pytest.raises(IndexNotFoundError):
        await index.aretrieve(["ferry"], 1)
    assert threads
    assert threading.main_thread() not in threads


def test_equal_texts_and_crowding_documents_are_thinned(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    same = [document_from_text("The ferry takes 25 minutes.", name) for name in "ab"]
    long = "\n\n".join(f"# {n}\n\nferry {'e' * n}" for n in range(4))
    index.add_documents([*same, document_from_text(long, "c")])
    (found,) = index.retrieve(["ferry"], 9)
    assert len(found) == 5
    (one,) = index.retrieve(["ferry"], 9, SearchOptions(max_per_document=1))
    assert sorted(p.metadata["doc_id"] for p in one)[-1] == "c"
    assert len(one) == 2


def test_a_small_piece_is_read_with_its_neighbours(encoder: LetterEncoder) -> None:
    words = [f"word{n} {'abcdefgh'[n % 8] * 4}" for n in range(60)]
    index = PassageIndex(memory(), encoder, chunk=Chunker(encoder.tokenizer, size=20, overlap=4))
    index.add_documents([document_from_text(f"# A\n\n{' '.join(words)}\n\n# B\n\nother", "1")])
    question = f"word30 {words[30]}"
    ((small,),) = index.retrieve([question], 1, SearchOptions(mode="sparse"))
    ((large,),) = index.retrieve([question], 1, SearchOptions(mode="sparse", neighbours=1))
    assert small.text in large.text
    assert len(small.text) < len(large.text) < len(" ".join(words))
    assert large.text in " ".join(words)  # no stretch twice, none left out
    ((all_,),) = index.retrieve([question], 1, SearchOptions(mode="sparse", neighbours=99))
    assert all_.text == " ".join(words)


def test_foreign_arguments_are_told_apart(encoder: LetterEncoder, folder: Path) -> None:
    index = PassageIndex(memory(), encoder)
    report = index.add_files([str(folder / "ferry.txt")])  # type: ignore[list-item]
    assert report.added == 1
    with pytest.raises(QuestionError, match="give a list"):
        index.retrieve("ferry?", 1)
    with pytest.raises(DocumentError, match="from_documents"):
        index.add_documents(["text"])  # type: ignore[list-item]


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "5"])
def test_at_least_one_passage_is_asked_for(encoder: LetterEncoder, top_k: Any) -> None:  # noqa: ANN401
    index = PassageIndex(memory(), encoder)
    index.add_documents([document_from_text("Ferry.", "1")])
    with pytest.raises(ConfigError, match="top_k must be a whole number, at least 1"):
        index.retrieve(["?"], top_k)


async def test_event_loops_and_threads_find_the_same(
    encoder: LetterEncoder, tmp_path: Path
) -> None:
    for store in (memory(), EdgeStore(tmp_path / "index")):
        index = PassageIndex(store, encoder)
        index.add_documents(document_from_text(f"Text {n}.", str(n)) for n in range(9))
        questions = [f"Text {n}?" for n in range(9)]
        expected = index.retrieve(questions, 3)
        found = await asyncio.gather(*(index.aretrieve([one], 3) for one in questions))
        assert [own for (own,) in found] == expected
        index.close()


def test_nothing_indexed_is_said_with_the_command(encoder: LetterEncoder) -> None:
    with pytest.raises(IndexNotFoundError, match="openrag index PATH"):
        PassageIndex(memory(), encoder).retrieve(["When?"], 1)
    store = memory()
    with pytest.raises(IndexNotFoundError, match="there is no index at :memory:"):
        check_indexed(store)
    store.create({"dimension": 26, "idf": True})
    with pytest.raises(IndexNotFoundError, match="nothing is indexed in :memory:"):
        check_indexed(store)


def test_a_foreign_index_is_refused_with_both_names(folder: Path, encoder: LetterEncoder) -> None:
    store = memory()
    PassageIndex(store, encoder).add_files([folder / "ferry.txt"])
    with pytest.raises(IndexMismatchError, match=r"encoder 'letters'.*using 'words'"):
        PassageIndex(store, LetterEncoder("words"))
    assert store.count() == 1  # its client, the caller's, is still open


def test_an_encoder_of_words_may_be_given_to_several_indexes(encoder: LetterEncoder) -> None:
    shared = Bm25Encoder()
    words = PassageIndex(memory(), encoder, sparse=shared)
    words.add_documents([document_from_text("ferry " * 60, "long")])
    before = words.sparse.encode_passages(["ferry"])
    PassageIndex(memory(), encoder, sparse=shared).add_documents(
        [document_from_text("ferry", "short")]
    )
    assert words.sparse.encode_passages(["ferry"]) == before


def test_a_filter_that_holds_is_not_blamed_for_finding_nothing(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_documents([document_from_text("ferry", "a", metadata={"part": "x"})])
    words = SearchOptions(mode="sparse")
    for held in (
        ~(Field("metadata.draft") == True),  # noqa: E712  (a condition, no truth value)
        (Field("metadata.draft") == "x") | (Field("metadata.part") == "x"),
    ):
        found = index.retrieve(["ferry", "zebra"], 2, replace(words, filter=held))
        assert [len(own) for own in found] == [1, 0]
    for missing in (
        (Field("metadata.part") == "x") & (Field("metadata.draft") == "x"),
        (Field("metadata.draft") == "x") | (Field("metadata.draft") == "y"),
    ):
        with pytest.raises(FilterError, match=r"has a field 'metadata\.draft'"):
            index.retrieve(["zebra"], 2, replace(words, filter=missing))


def test_one_id_is_no_list_of_ids(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_documents([document_from_text("ferry", one) for one in ("1", "2", "12")])
    with pytest.raises(ConfigError, match="'12' is one id: give a list"):
        index.remove("12")
    assert index.count() == 3


def test_a_collection_of_another_program_is_told_from_ours(encoder: LetterEncoder) -> None:
    """Theirs describe themselves in other words, or not at all."""
    with pytest.raises(IndexMismatchError, match="made by another program: QdrantCollection"):
        PassageIndex(memory(), encoder)._check({})


def test_another_language_is_refused(folder: Path, encoder: LetterEncoder) -> None:
    store = memory()
    PassageIndex(store, encoder, sparse=Bm25Encoder("german")).add_files([folder / "ferry.txt"])
    with pytest.raises(IndexMismatchError, match="sparse 'bm25/german'"):
        PassageIndex(store, encoder, sparse=Bm25Encoder("english"))
    assert PassageIndex(store, encoder).sparse.name == "bm25/german"


def test_pieces_are_cut_as_before(folder: Path, encoder: LetterEncoder) -> None:
    store, small = memory(), Chunker(encoder.tokenizer, size=20, overlap=4)
    PassageIndex(store, encoder, chunk=small).add_files([folder / "ferry.txt"])
    again = PassageIndex(store, encoder)
    assert (again.chunk.size, again.chunk.overlap) == (20, 4)
    with pytest.raises(IndexMismatchError, match="chunk_size 20"):
        PassageIndex(store, encoder, chunk=Chunker(encoder.tokenizer))


def test_both_homes_find_the_same(folder: Path, tmp_path: Path, encoder: LetterEncoder) -> None:
    embedded = PassageIndex(EdgeStore(tmp_path / "index"), encoder)
    served = PassageIndex(memory(), encoder)
    questions = ["How long does the ferry take?", "When closed?", "Opened?"]
    for index in (embedded, served):
        index.add_files(sorted(folder.iterdir()))
    one, other = embedded.retrieve(questions, 3), served.retrieve(questions, 3)
    assert [[p.id for p in own] for own in one] == [[p.id for p in own] for own in other]
    for own, same in zip(one, other, strict=True):
        assert [p.retrieval_score for p in own] == pytest.approx(
            [p.retrieval_score for p in same], abs=1e-4
        )
    embedded.close()
