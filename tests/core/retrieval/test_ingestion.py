"""core/openrag_core/retrieval/ingestion.py: nothing twice, nothing half, however it ends."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from openrag_core import (
    DocumentError,
    Field,
    IndexMismatchError,
    SearchOptions,
)
from openrag_core.retrieval import (
    ChatContext,
    Document,
    IndexReport,
    PassageIndex,
    ServerStore,
    TitleContext,
    document_from_text,
)
from openrag_core.retrieval.chunking import Chunk
from openrag_core.retrieval.store import Point
from tests.core.retrieval.conftest import LetterEncoder, memory
from tests.fakes import FakeChat


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.unchanged, len(report.skipped)


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


def test_names_that_lead_nowhere_are_skipped(folder: Path, encoder: LetterEncoder) -> None:
    loop, seen = folder / "loop.md", list[Path]()
    loop.symlink_to(loop)
    files = [loop, folder / ("z" * 300 + ".md"), folder / "ferry.txt"]
    report = PassageIndex(memory(), encoder).add_files(files, seen.append)
    assert counts(report) == (1, 0, 0, 2)
    assert all("cannot be read" in reason for reason in report.skipped.values())
    assert sorted(seen) == sorted(files)


class Meanwhile(ServerStore):
    """Before it stores anything, somebody else does something."""

    other: Callable[[], object] | None = None

    def upsert(self, points: Sequence[Point]) -> None:
        if self.other is not None:
            other, self.other = self.other, None
            other()
        super().upsert(points)


def test_two_writers_of_one_document_do_not_delete_it(encoder: LetterEncoder) -> None:
    client = QdrantClient(":memory:")
    ours, theirs = Meanwhile(client, "c"), ServerStore(client, "c")
    index = PassageIndex(ours, encoder)
    index.add_documents([document_from_text("Opened in 1893.", "d")])
    other = PassageIndex(theirs, encoder)
    ours.other = lambda: other.add_documents([document_from_text("Opened in 1895.", "d")])
    index.add_documents([document_from_text("Opened in 1894.", "d")])
    assert {one.text for one in index.passages()} == {"Opened in 1894.", "Opened in 1895."}
    index.add_documents([document_from_text("Opened in 1895.", "d")])
    assert [one.text for one in index.passages()] == ["Opened in 1895."]


def test_what_is_gone_from_disk_can_be_removed(folder: Path, encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_files(sorted(folder.iterdir()))
    assert index.gone([folder]) == []
    (folder / "ferry.txt").unlink()
    assert index.gone([folder / "elsewhere"]) == []
    assert index.gone([folder]) == [str(folder / "ferry.txt")]
    index.remove(index.gone([folder]))
    assert index.documents() == [str(folder / "bridge.md")]


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


def long_text(name: str, parts: int = 6) -> str:
    return "\n\n".join(f"# Part {n}\n\nThis is part {n} of {name}." for n in range(parts))


@pytest.mark.parametrize("broken", ["upsert", "delete"])
def test_a_change_that_was_interrupted_leaves_one_version(
    encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Stopped while the new version is stored, or before the old one is deleted; then edited."""
    for then in ("second", "first", "third"):
        store = memory()
        index = PassageIndex(store, encoder)
        index.add_documents([document_from_text(long_text("first"), "1")])
        whole = store.upsert

        def stop(points: object, whole: Any = whole) -> None:  # noqa: ANN401
            if isinstance(points, list):
                whole(points[:3])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, broken, stop)
            with pytest.raises(KeyboardInterrupt):
                index.add_documents([document_from_text(long_text("second"), "1")])
        index.add_documents([document_from_text(long_text(then), "1")])
        found = index.retrieve(["part"], 30)[0]
        assert len(found) == store.count() == 6
        assert all(then in passage.text for passage in found)


def test_what_never_became_whole_is_gone_with_its_file(
    folder: Path, encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "long.md").write_text(long_text("it"), encoding="utf-8")
    store = memory()
    index = PassageIndex(store, encoder)
    index.add_files([folder / "ferry.txt"])
    whole = store.upsert

    def half(points: Sequence[Point]) -> None:
        whole(points[:3])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "upsert", half)
        with pytest.raises(KeyboardInterrupt):
            index.add_files([folder / "long.md"])
    (folder / "long.md").unlink()
    index.remove(index.gone([folder]))
    assert store.count() == 1


def test_documents_of_loaders_are_no_files(folder: Path, encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_documents([document_from_text("Page.", f"{folder}/a.pdf#page=1", source="a.pdf")])
    assert index.gone([folder]) == []


def test_a_name_that_is_no_text_is_skipped(folder: Path, encoder: LetterEncoder) -> None:
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt"))
    strange.write_text("text", encoding="utf-8")
    index = PassageIndex(memory(), encoder)
    for _ in range(2):
        report = index.add_files([strange, folder / "ferry.txt"])
        assert list(report.skipped) == [strange]
    assert index.count() == 1


def test_many_documents_go_in_windows(encoder: LetterEncoder) -> None:
    """A long document is cut by a window, and its first piece still comes last."""
    store, sizes = memory(), []
    index = PassageIndex(store, encoder)
    upsert = store.upsert

    def spy(points: Sequence[Point]) -> None:
        sizes.append(len(points))
        upsert(points)
        firsts = store.count(Field("chunk") == 0)
        assert firsts == (0 if len(sizes) == 1 else 1 + (sum(sizes) - 600))

    store.upsert = spy  # type: ignore[method-assign]
    long = "\n\n".join(f"# Part {n}\n\nThis is part {n}." for n in range(600))
    short = [document_from_text(f"Text {n}.", str(n)) for n in range(150)]
    report = index.add_documents(iter([document_from_text(long, "long"), *short]))
    assert sizes == [512, 238]
    assert report.passages == store.count() == 750
    assert report.added == 151
    assert report.seconds > 0


def test_documents_that_have_not_changed_are_not_encoded(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    one, two = document_from_text("One.", "1"), document_from_text("Two.", "2")
    index.add_documents([one, two])
    encoder.encoded = 0
    report = index.add_documents([one, document_from_text("Three.", "2")])
    assert counts(report) == (0, 1, 1, 0)
    assert encoder.encoded == 1
    assert {p.text for p in index.retrieve(["?"], 9)[0]} == {"One.", "Three."}


def test_a_document_that_comes_twice_is_there_once(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    report = index.add_documents([document_from_text(text, "1") for text in ("Old.", "New.")])
    assert counts(report) == (1, 1, 0, 0)
    assert [p.text for p in index.retrieve(["?"], 9)[0]] == ["New."]
    texts = ("Newer.", "Newest.", "Last.")
    index.add_documents([document_from_text(text, "1") for text in texts])
    assert [p.text for p in index.retrieve(["?"], 9)[0]] == ["Last."]


def test_a_document_without_text_is_passed_over(encoder: LetterEncoder) -> None:
    index = PassageIndex(memory(), encoder)
    empty = Document("a", "a", "0", ())
    report = index.add_documents([empty, empty, document_from_text("text", "b")])
    assert (report.added, report.passages) == (1, 1)
    assert report.skipped == {"a": "holds no text"}
    with pytest.raises(DocumentError, match="a: holds no text"):
        document_from_text(" ", "a")
    with pytest.raises(DocumentError, match="metadata is not what JSON"):
        document_from_text("text", "a", metadata={"when": object()})


def test_large_files_are_refused_with_the_limit(folder: Path, encoder: LetterEncoder) -> None:
    report = PassageIndex(memory(), encoder).add_files([folder / "ferry.txt"], max_bytes=10)
    assert "--max-file-mb" in report.skipped[folder / "ferry.txt"]


def test_a_context_is_encoded_and_not_read(encoder: LetterEncoder) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "Zanzibar  zoo.\n"

    context = ChatContext(FakeChat(ask), name="fake")
    index = PassageIndex(memory(), encoder, context=context)
    index.add_documents(
        [document_from_text("Ferry.", "1", title="T"), document_from_text("X.", "2")]
    )
    ((found,),) = index.retrieve(
        ["zanzibar"], 1, SearchOptions(mode="sparse", filter=Field("doc_id") == "1")
    )
    assert found.text == "Ferry."
    assert len(asked) == 2
    assert "<passage>\nFerry.\n</passage>" in asked[0]
    again = PassageIndex(index.store, encoder)
    assert again.retrieve(["zanzibar"], 1) == index.retrieve(["zanzibar"], 1)
    with pytest.raises(DocumentError, match="written by 'chat fake'"):
        again.add_documents([document_from_text("More.", "3")])
    with pytest.raises(IndexMismatchError, match="context 'chat fake'"):
        PassageIndex(index.store, encoder, context=TitleContext())

    def broken(prompt: str) -> str:
        raise TimeoutError(prompt[:3])

    index = PassageIndex(memory(), encoder, context=ChatContext(FakeChat(broken), name="fake"))
    with pytest.raises(DocumentError, match="1: chat fake wrote no context"):
        index.add_documents([document_from_text("Ferry.", "1")])


@pytest.mark.parametrize(
    ("reply", "context"), [("<think>Hm.</think>\n A  zoo.", "T\nA zoo."), ("<think>Hm.", "T")]
)
def test_a_context_is_what_a_model_says_not_what_it_thinks(reply: str, context: str) -> None:
    document = document_from_text("Ferry.", "1", title="T")
    contextualizer = ChatContext(FakeChat(lambda _: reply), name="fake")
    assert contextualizer(document, [Chunk("T", "Ferry.", 0)]) == [context]


def test_a_context_that_is_empty_is_not_kept() -> None:
    replies = iter(["<think>cut off", "A zoo."])
    contextualizer = ChatContext(FakeChat(lambda _: next(replies)), name="fake", threads=1)
    document, chunks = document_from_text("Ferry.", "1", title="T"), [Chunk("T", "Ferry.", 0)]
    assert [contextualizer(document, chunks) for _ in range(3)] == [["T"], *[["T\nA zoo."]] * 2]


def test_what_can_be_read_no_more_is_still_found_and_said_to_be(
    folder: Path, encoder: LetterEncoder
) -> None:
    index = PassageIndex(memory(), encoder)
    index.add_files([folder / "ferry.txt"])
    before = index.count()
    (folder / "ferry.txt").write_bytes(b"caf\xe9")
    report = index.add_files([folder / "ferry.txt"])
    assert "what was indexed of it before is still found" in report.skipped[folder / "ferry.txt"]
    assert (index.count(), index.gone([folder])) == (before, [])
    (folder / "ferry.txt").write_bytes(b"")
    assert index.add_files([folder / "ferry.txt"]).skipped == {
        folder / "ferry.txt": "holds no text"
    }
    assert index.gone([folder]) == [str((folder / "ferry.txt").resolve())]
