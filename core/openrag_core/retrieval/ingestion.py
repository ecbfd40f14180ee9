"""Documents -> points in a store, as a stream.

A window of pieces is encoded at a time, while another thread stores the one before. Memory depends
on the window and on the largest document, not on how many documents there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid5

from openrag_core.errors import DocumentError
from openrag_core.filters import AnyOf, Field
from openrag_core.retrieval.chunking import Chunk
from openrag_core.retrieval.documents import (
    MAX_BYTES,
    Document,
    has_content,
    hash_file,
    read_file,
)
from openrag_core.retrieval.encoders import checked_vectors
from openrag_core.retrieval.payload import readable_by_others, to_payload
from openrag_core.retrieval.store import Point

if TYPE_CHECKING:
    from openrag_core.retrieval.index import PassageIndex

WINDOW = 512  # pieces that are encoded and stored together
_LOOKUP = 64  # documents that are looked up together
_NAMESPACE = UUID("7a4f2f0e-7f52-5d0c-9d58-0d2c0b6a6f1e")  # of point ids; never change it
Versions = Mapping[str, bool]
"""What is there of a document: by content hash, whether it is whole."""
_Item = TypeVar("_Item")


@dataclass(slots=True)
class IndexReport:
    """What became of what was to be indexed."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    passages: int = 0
    """Written by this run."""
    skipped: dict[Path | str, str] = field(default_factory=dict)
    """Files and documents that could not be indexed, each with the reason."""
    seconds: float = 0.0

    @property
    def passages_per_second(self) -> float:
        """Written, by wall time."""
        return self.passages / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class _Piece:
    document: Document
    number: int
    chunk: Chunk
    read_as: str
    """What the encoders see."""


def ingest_files(
    index: PassageIndex,
    files: Iterable[Path],
    report: IndexReport,
    on_file: Callable[[Path], None],
    max_bytes: int = MAX_BYTES,
) -> None:
    """Index those files that are new or have changed; see `PassageIndex.add_files`."""

    def changed() -> Iterator[tuple[Document, Versions]]:
        for some in _groups(map(Path, files)):
            names = _names(some, report, on_file)
            known = index.versions([name for name in names.values() if _is_text(name)])
            for file, name in names.items():
                before = known.get(name, {})
                try:
                    if before and _is_current(before, hash_file(file)):
                        report.unchanged += 1
                    else:
                        yield read_file(file, max_bytes), before
                except DocumentError as error:
                    kept = before and has_content(file)  # what is empty is named by `gone`
                    note = "; what was indexed of it before is still found" if kept else ""
                    report.skipped[file] = f"{error}{note}"
                on_file(file)

    _ingest(index, changed(), report)


def ingest_documents(
    index: PassageIndex, documents: Iterable[Document], report: IndexReport
) -> None:
    """Index those documents that are new or have changed."""

    def changed() -> Iterator[tuple[Document, Versions]]:
        for some in _groups(map(_checked, documents)):
            known = index.versions([document.id for document in some])
            for document in some:
                before = known.get(document.id, {})
                if _is_current(before, document.content_hash):
                    report.unchanged += 1
                elif not document.sections:
                    report.skipped[document.id] = "holds no text"
                else:
                    yield document, before

    _ingest(index, changed(), report)


def _ingest(
    index: PassageIndex, documents: Iterable[tuple[Document, Versions]], report: IndexReport
) -> None:
    """Encode window after window, storing each behind the next one's back."""
    start = perf_counter() - report.seconds
    storing: Future[int] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="openrag-store") as thread:
        for window, replaced in _windows(index, documents, report):
            texts = [piece.read_as for piece in window]
            if texts:
                index.create(texts)
            dense = checked_vectors(index.encoder, index.encoder.encode_passages(texts))
            if storing:
                report.passages += storing.result()
            storing = thread.submit(_store, index, window, dense, replaced)
            report.seconds = perf_counter() - start
        if storing:
            report.passages += storing.result()
    report.seconds = perf_counter() - start


def _windows(
    index: PassageIndex, documents: Iterable[tuple[Document, Versions]], report: IndexReport
) -> Iterator[tuple[list[_Piece], list[Document]]]:
    """Pieces of one or more documents, and the documents in them of which older ones may be there.

    The first piece of a document goes last: where it is, the document is whole.
    """
    window: list[_Piece] = []
    replaced: dict[str, Document] = {}
    seen: set[int] = set()  # a document may come twice
    for document, before in documents:
        chunks = list(index.chunk(document))
        contexts = index.context(document, chunks)
        pieces = [
            _Piece(document, number, chunk, f"{context}\n{chunk.text}".strip())
            for number, (chunk, context) in enumerate(zip(chunks, contexts, strict=True))
        ]
        twice = hash(document.id) in seen
        seen.add(hash(document.id))
        changed = twice or any(before.values())
        report.changed += changed
        report.added += not changed
        for piece in (*pieces[1:], *pieces[:1]):
            window.append(piece)
            if piece.number == 0 and (before or twice):
                replaced[document.id] = document
            if len(window) >= WINDOW:
                yield window, list(replaced.values())
                window, replaced = [], {}
    if window:
        yield window, list(replaced.values())


def _is_current(versions: Versions, content_hash: str) -> bool:
    """Whether this version is there as a whole, and no other."""
    return versions == {content_hash: True}


def _checked(document: object) -> Document:
    if not isinstance(document, Document):
        raise DocumentError(
            f"a {type(document).__name__} is no document of ours: use document_from_text, or "
            "from_documents of langchain_openrag or llamaindex_openrag"
        )
    return document


def _names(
    files: Sequence[Path], report: IndexReport, on_file: Callable[[Path], None]
) -> dict[Path, str]:
    """What each file is known by; those that cannot be looked at are skipped."""
    names = {}
    for file in files:
        try:
            names[file] = str(file.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links
            report.skipped[file] = f"cannot be read: {error}"
            on_file(file)
    return names


def _is_text(name: str) -> bool:
    """Whether a file's name is text, which Unix does not ask of it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _store(
    index: PassageIndex,
    window: Sequence[_Piece],
    dense: Sequence[list[float]],
    replaced: Sequence[Document],
) -> int:
    """Store what is new, then delete what it replaces, so that a search never meets a gap.

    What another writer stores of the same document meanwhile stays: if both deleted whatever is
    not their own, nothing would be left. The next one to write it finds two versions.
    """
    seen = {name: set(hashes) for name, hashes in index.versions([d.id for d in replaced]).items()}
    for document in (piece.document for piece in window):
        seen.setdefault(document.id, set()).add(document.content_hash)
    sparse = index.sparse.encode_passages([piece.read_as for piece in window])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    index.store.upsert(
        [
            Point(_id(piece, index.tenant), _payload(index, piece, now), vector, terms)
            for piece, vector, terms in zip(window, dense, sparse, strict=True)
        ]
    )
    stale = [
        (Field("doc_id") == document.id) & Field("content_hash").is_in(sorted(others))
        for document in replaced
        if (others := seen[document.id] - {document.content_hash})
    ]
    if stale:
        index.store.delete(index.scoped(AnyOf(tuple(stale))))
    return len(window)


def _payload(index: PassageIndex, piece: _Piece, now: str) -> dict[str, Any]:
    payload = to_payload(
        piece.document, piece.number, piece.chunk, created_at=now, tenant=index.tenant
    )
    return readable_by_others(_id(piece, index.tenant), payload) if index.compatible else payload


def _id(piece: _Piece, tenant: str | None) -> str:
    document = piece.document
    parts = [document.id, str(piece.number), document.content_hash]
    return str(uuid5(_NAMESPACE, "\n".join(parts if tenant is None else [*parts, tenant])))


def _groups(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while group := list(islice(rest, _LOOKUP)):
        yield group
