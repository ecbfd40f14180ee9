"""core/openrag_core/retrieval/copying.py: the embedded index on a server, point for point."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from openrag_core import Field, IndexMismatchError, IndexNotFoundError
from openrag_core.retrieval import (
    EdgeStore,
    PassageIndex,
    Server,
    ServerStore,
    copy_points,
    document_from_text,
)
from openrag_core.retrieval.store import Point
from tests.core.retrieval.conftest import LetterEncoder
from tests.core.retrieval.rest import served

QUESTIONS = ["Text 3?", "Text 7?"]


@pytest.fixture
def embedded(tmp_path: Path, encoder: LetterEncoder) -> Iterator[PassageIndex]:
    index = PassageIndex(EdgeStore(tmp_path / "index"), encoder)
    index.add_documents(
        document_from_text(f"Text {n}.", str(n), metadata={"even": n % 2 == 0}) for n in range(9)
    )
    yield index
    index.close()


def test_a_copy_is_searched_alike(embedded: PassageIndex, encoder: LetterEncoder) -> None:
    with served() as (url, _):
        server = Server(url=url, replication_factor=2, shard_number=3, write_consistency_factor=2)
        target = ServerStore.connect(server, "copy")
        dealt: list[int] = []
        assert copy_points(embedded.store, target, dealt.append) == sum(dealt) == 9
        copy = PassageIndex(target, encoder)
        expected = embedded.retrieve(QUESTIONS, 3)
        for own, same in zip(copy.retrieve(QUESTIONS, 3), expected, strict=True):
            assert [p.id for p in own] == [p.id for p in same]
            assert [p.metadata for p in own] == [p.metadata for p in same]
            scores = [p.retrieval_score for p in same]
            assert [p.retrieval_score for p in own] == pytest.approx(scores, abs=1e-5)
        copy.close()


def test_a_copy_goes_on_where_it_was_and_follows_changes(
    embedded: PassageIndex, encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as (url, asked):
        target = ServerStore.connect(Server(url=url), "copy")
        whole = target.upsert

        def half(points: Sequence[Point]) -> None:
            whole(points[:4])
            raise KeyboardInterrupt

        monkeypatch.setattr(target, "upsert", half)
        with pytest.raises(KeyboardInterrupt):
            copy_points(embedded.store, target)
        monkeypatch.setattr(target, "upsert", whole)
        assert copy_points(embedded.store, target) == 5
        embedded.remove(["0"])
        embedded.add_documents([document_from_text("Changed.", "1")])
        assert copy_points(embedded.store, target) == 1
        assert target.count() == 9
        assert copy_points(embedded.store, target, sync=True) == 0
        assert target.count() == 8
        assert {p.text for p in PassageIndex(target, encoder).retrieve(["Changed."], 8)[0]} == {
            "Changed.",
            *(f"Text {n}." for n in range(2, 9)),
        }
        before = len(asked)
        assert copy_points(embedded.store, target) == 0
        methods = {(one["method"], one["path"].rpartition("/")[2]) for one in asked[before:]}
        assert methods == {("POST", "scroll")}
        target.close()


def test_other_indexes_are_not_mixed(
    embedded: PassageIndex, tmp_path: Path, encoder: LetterEncoder
) -> None:
    other = PassageIndex(EdgeStore(tmp_path / "other"), LetterEncoder("words"))
    with pytest.raises(IndexNotFoundError, match="nothing to copy"):
        copy_points(other.store, embedded.store)
    other.add_documents([document_from_text("Text.", "1")])
    with pytest.raises(IndexMismatchError, match=r"'letters'.*another collection"):
        copy_points(other.store, embedded.store)
    assert encoder.name == "letters"
    other.close()


def test_half_a_document_is_not_called_whole(
    tmp_path: Path, encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = PassageIndex(EdgeStore(tmp_path / "index"), encoder)
    parts = "\n\n".join(f"# {n}\n\nPart {n}." for n in range(5))
    index.add_documents(document_from_text(f"{parts} {n}", str(n)) for n in range(400))
    with served() as (url, _):
        target = ServerStore.connect(Server(url=url), "copy")
        upsert = target.upsert

        def stop(points: Sequence[Point]) -> None:
            if points[0].payload["chunk"] == 0:
                upsert(points[: len(points) // 2])
                raise KeyboardInterrupt
            upsert(points)

        monkeypatch.setattr(target, "upsert", stop)
        with pytest.raises(KeyboardInterrupt):
            copy_points(index.store, target)
        copy = PassageIndex(target, encoder)
        whole = copy.documents()
        assert len(whole) == 200
        assert target.count(Field("doc_id").is_in(whole)) == 5 * len(whole)
        target.close()
    index.close()


def test_other_tenants_are_left_alone(tmp_path: Path, encoder: LetterEncoder) -> None:
    source = PassageIndex(EdgeStore(tmp_path / "index"), encoder, tenant="one")
    source.add_documents([document_from_text("One.", "1")])
    with served() as (url, _):
        target = ServerStore.connect(Server(url=url), "copy")
        copy_points(source.store, target)
        other = PassageIndex(target, encoder, tenant="other")
        other.add_documents([document_from_text("Other.", "1")])
        copy_points(source.store, target, sync=True)
        assert other.count() == 1
        target.close()
    source.close()
