"""core/openrag_core/retrieval/index.py: documents in, passages out, nothing twice."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from openrag_core import IndexMismatchError, IndexNotFoundError, Retriever
from openrag_core.retrieval import EdgeStore, IndexReport, PassageIndex, ServerStore
from openrag_core.retrieval.documents import Document, Section
from openrag_core.retrieval.index import check_indexed
from openrag_core.retrieval.store import Point
from tests.core.retrieval.conftest import LetterEncoder


def memory() -> ServerStore:
    return ServerStore(QdrantClient(":memory:"), "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    files.mkdir()
    (files / "bridge.md").write_text(
        "# Bridge\n\nOpened in 1893.\n\n## Repairs\n\nClosed in 1950.", encoding="utf-8"
    )
    (files / "ferry.txt").write_text("The ferry takes 25 minutes.", encoding="utf-8")
    (files / "empty.txt").write_text("", encoding="utf-8")
    return files


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.unchanged, len(report.skipped)


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


def test_only_what_changed_is_touched(folder: Path, encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    files = sorted(folder.iterdir())
    seen: list[Path] = []
    report = index.add_files(files, seen.append)
    assert counts(report) == (2, 0, 0, 1)
    assert report.passages == 3
    assert report.skipped == {folder / "empty.txt": "holds no text"}
    assert seen == files

    encoder.encoded = 0
    assert counts(index.add_files(files)) == (0, 0, 2, 1)
    assert encoder.encoded == 0

    (folder / "bridge.md").write_text("# Bridge\n\nOpened in 1894.", encoding="utf-8")
    report = index.add_files(files)
    assert counts(report) == (0, 1, 1, 1)
    assert report.passages == 1
    assert index.store.count() == 2
    assert "1894" in index.retrieve(["When was the bridge opened?"], 1)[0][0].text


def test_what_is_gone_from_disk_can_be_removed(folder: Path, encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_files(sorted(folder.iterdir()))
    assert index.gone([folder]) == []
    (folder / "ferry.txt").unlink()
    assert index.gone([folder / "elsewhere"]) == []
    assert index.gone([folder]) == [str(folder / "ferry.txt")]
    index.remove(index.gone([folder]))
    assert list(index.store.documents()) == [str(folder / "bridge.md")]


def test_an_interruption_loses_no_part_of_a_document(
    tmp_path: Path, encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes half of a document, as a server may, and breaks."""
    text = "\n\n".join(f"# Part {n}\n\nThis is part {n}." for n in range(6))
    (tmp_path / "long.md").write_text(text, encoding="utf-8")
    store = memory()
    index = PassageIndex(store, encoder)
    whole = store.upsert

    def half(points: Sequence[Point]) -> None:
        whole(points[: len(points) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "upsert", half)
    with pytest.raises(KeyboardInterrupt):
        index.add_files([tmp_path / "long.md"])
    monkeypatch.setattr(store, "upsert", whole)
    assert store.count() == 3
    assert counts(PassageIndex(store, encoder).add_files([tmp_path / "long.md"])) == (1, 0, 0, 0)
    assert store.count() == 6


def test_many_documents_go_in_windows(encoder: LetterEncoder) -> None:
    store, sizes = memory(), []
    index = PassageIndex(store, encoder)
    upsert = store.upsert

    def spy(points: Sequence[Point]) -> None:
        sizes.append(len(points))
        upsert(points)

    store.upsert = spy  # type: ignore[method-assign]
    report = IndexReport()
    documents = (Document(str(n), f"{n}.md", "0", (Section("", f"Text {n}."),)) for n in range(150))
    index.add_documents(documents, report)
    assert sizes == [64, 64, 22]
    assert report.passages == store.count() == 150


def test_a_document_without_text_is_passed_over(encoder: LetterEncoder) -> None:
    index, report = PassageIndex(memory(), encoder), IndexReport()
    index.add_documents([Document("a", "a", "0", ()), Document("b", "b", "0", ())], report)
    assert report.passages == 0


def test_nothing_indexed_is_said_with_the_command(encoder: LetterEncoder) -> None:
    with pytest.raises(IndexNotFoundError, match="openrag index PATH"):
        PassageIndex(memory(), encoder).retrieve(["When?"], 1)
    store = memory()
    with pytest.raises(IndexNotFoundError, match="there is no index at :memory:"):
        check_indexed(store)
    store.create({}, 26)
    with pytest.raises(IndexNotFoundError, match="nothing is indexed in :memory:"):
        check_indexed(store)


def test_a_foreign_index_is_refused_with_both_names(folder: Path, encoder: LetterEncoder) -> None:
    store = memory()
    PassageIndex(store, encoder).add_files([folder / "ferry.txt"])
    with pytest.raises(IndexMismatchError, match=r"encoder 'letters'.*using 'words'"):
        PassageIndex(store, LetterEncoder("words"))


def test_another_language_is_refused(folder: Path, encoder: LetterEncoder) -> None:
    store = memory()
    PassageIndex(store, encoder, language="german").add_files([folder / "ferry.txt"])
    with pytest.raises(IndexMismatchError, match="language 'german'"):
        PassageIndex(store, encoder)


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
