"""The passage index: documents in, passages out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from openrag_core.errors import (
    DocumentError,
    IndexMismatchError,
    IndexNotFoundError,
)
from openrag_core.records import Passage
from openrag_core.retrieval.chunking import Chunk, Chunker
from openrag_core.retrieval.documents import Document, hash_file, read_file
from openrag_core.retrieval.encoders import Bm25Encoder, DenseEncoder, average_length
from openrag_core.retrieval.store import Hit, Point, PointStore, Query

SCHEMA = 1  # of the payload; raised when an old index can no longer be read
_NAMESPACE = UUID("7a4f2f0e-7f52-5d0c-9d58-0d2c0b6a6f1e")  # of point ids; never change it
_WINDOW = 64  # chunks that are encoded and stored together, whole documents only


@dataclass(slots=True)
class IndexReport:
    """What became of the files that were to be indexed."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    passages: int = 0
    """Written by this run."""
    skipped: dict[Path, str] = field(default_factory=dict)
    """Files that could not be indexed, each with the reason."""


class PassageIndex:
    """Finds passages by meaning and by words; satisfies the `Retriever` port.

    Args:
        store: Where the points live.
        encoder: The same that the index was made with.
        language: Of the documents, for stop words and stemming.

    Raises:
        IndexMismatchError: The index was made with another encoder, schema or language.
    """

    def __init__(
        self, store: PointStore, encoder: DenseEncoder, *, language: str = "english"
    ) -> None:
        self.store = store
        self.encoder = encoder
        self._language = language
        self._chunk = Chunker(encoder.tokenizer)
        self._bm25: Bm25Encoder | None = None
        if store.description is not None:
            self._check(store.description)
            self._bm25 = Bm25Encoder(store.description["average_length"], language)

    @property
    def local(self) -> bool:
        """Whether it is in this process, so that asking in vain costs nothing."""
        return self.store.local

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The passages nearest to each question, best first, at most `top_k` each.

        Raises:
            IndexNotFoundError: Nothing has been indexed yet.
        """
        sparse = [self._sparse.encode_question(question) for question in questions]
        queries = map(Query, self.encoder.encode(questions), sparse)
        return [[_passage(hit) for hit in hits] for hits in self.store.search(list(queries), top_k)]

    def add_files(
        self, files: Iterable[Path], on_file: Callable[[Path], None] = lambda _: None
    ) -> IndexReport:
        """Index files; those that are indexed already and have not changed are left alone.

        Args:
            files: Read one after the other.
            on_file: Called with each file once it is dealt with.

        Returns:
            What became of them; a file that cannot be read is skipped and named there.
        """
        report = IndexReport()
        known = self.store.documents()
        self.add_documents(self._changed(files, known, report, on_file), report)
        return report

    def add_documents(self, documents: Iterable[Document], report: IndexReport) -> None:
        """Index documents, replacing what was stored of them before."""
        for window in self._windows(documents):
            chunks = [chunk for _, own in window for chunk in own]
            if self._bm25 is None:
                self._create(chunks)
            vectors = iter(self.encoder.encode([_read_as(chunk) for chunk in chunks]))
            points = [
                self._point(document, number, chunk, next(vectors))
                for document, own in window
                for number, chunk in enumerate(own)
            ]
            # The first chunk of a document goes last: where it is, the document is whole.
            self.store.upsert(sorted(points, key=lambda point: -point.payload["chunk"]))
            for document, _ in window:
                self.store.delete_stale(document.id, document.content_hash)
            report.passages += len(points)

    def gone(self, paths: Sequence[Path]) -> list[str]:
        """Documents that were indexed from these files and folders and are there no more."""
        roots = [path.resolve() for path in paths]
        return [
            document
            for document in self.store.documents()
            if any(Path(document).is_relative_to(root) for root in roots)
            and not Path(document).exists()
        ]

    def remove(self, documents: Iterable[str]) -> None:
        """Delete documents, by id."""
        for document in documents:
            self.store.delete_stale(document, content_hash="")

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def _changed(
        self,
        files: Iterable[Path],
        known: dict[str, str],
        report: IndexReport,
        on_file: Callable[[Path], None],
    ) -> Iterator[Document]:
        for file in files:
            try:
                before = known.get(str(file.resolve()))
                if before is not None and before == hash_file(file):
                    report.unchanged += 1
                else:
                    yield read_file(file)
                    report.changed += before is not None
                    report.added += before is None
            except DocumentError as error:
                report.skipped[file] = str(error)
            on_file(file)

    def _windows(
        self, documents: Iterable[Document]
    ) -> Iterator[list[tuple[Document, list[Chunk]]]]:
        window: list[tuple[Document, list[Chunk]]] = []
        for document in documents:
            if chunks := list(self._chunk(document)):
                window.append((document, chunks))
            if sum(len(chunks) for _, chunks in window) >= _WINDOW:
                yield window
                window = []
        if window:
            yield window

    def _create(self, sample: Sequence[Chunk]) -> None:
        length = average_length([_read_as(chunk) for chunk in sample], self._language)
        self._bm25 = Bm25Encoder(length, self._language)
        self.store.create(self._description | {"average_length": length}, self.encoder.dimension)

    @property
    def _description(self) -> dict[str, object]:
        return {"schema": SCHEMA, "encoder": self.encoder.name, "language": self._language}

    @property
    def _sparse(self) -> Bm25Encoder:
        if self._bm25 is None:
            raise IndexNotFoundError(
                f"there is no index at {self.store.address}. Make an index: openrag index PATH"
            )
        return self._bm25

    def _check(self, stored: Mapping[str, Any]) -> None:
        for what, ours in self._description.items():
            if stored.get(what) != ours:
                self.store.close()
                raise IndexMismatchError(
                    f"the index at {self.store.address} was made with {what} "
                    f"{stored.get(what)!r}, and you are using {ours!r}: use that {what}, "
                    "or index into another place"
                )

    def _point(self, document: Document, number: int, chunk: Chunk, dense: list[float]) -> Point:
        return Point(
            id=str(uuid5(_NAMESPACE, f"{document.id}\n{number}\n{document.content_hash}")),
            dense=dense,
            sparse=self._sparse.encode_passage(_read_as(chunk)),
            payload={
                "text": chunk.text,
                "title": chunk.title,
                "source": document.source,
                "page": chunk.page,
                "doc_id": document.id,
                "chunk": number,
                "content_hash": document.content_hash,
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def check_indexed(store: PointStore) -> None:
    """Find out whether a store holds anything.

    Raises:
        IndexNotFoundError: It does not.
    """
    if store.description is None or not store.count():
        what = "there is no index at" if store.description is None else "nothing is indexed in"
        raise IndexNotFoundError(f"{what} {store.address}. Make an index: openrag index PATH")


def _read_as(chunk: Chunk) -> str:
    """What the encoders see: the title says what the text is about."""
    return f"{chunk.title}\n{chunk.text}".strip()


def _passage(hit: Hit) -> Passage:
    payload = dict(hit.payload)
    return Passage(
        id=hit.id,
        text=payload.pop("text"),
        title=payload.pop("title"),
        source=payload.pop("source"),
        metadata={key: value for key, value in payload.items() if value is not None},
        retrieval_score=hit.score,
    )
