"""The passage index: documents in, passages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openrag_core.errors import (
    ConfigError,
    FilterError,
    IndexMismatchError,
    IndexNotFoundError,
)
from openrag_core.filters import All, Condition, Field, Filter, conditions
from openrag_core.records import Passage
from openrag_core.retrieval.chunking import CHUNK_OVERLAP, CHUNK_SIZE, Chunker
from openrag_core.retrieval.contextual import (
    AbsentContext,
    Contextualizer,
    NoContext,
    TitleContext,
)
from openrag_core.retrieval.documents import MAX_BYTES, Document
from openrag_core.retrieval.encoders import DenseEncoder
from openrag_core.retrieval.ingestion import IndexReport, ingest_documents, ingest_files
from openrag_core.retrieval.neighbours import read_large
from openrag_core.retrieval.sparse import Bm25Encoder, SparseEncoder
from openrag_core.retrieval.store import Hit, PointStore, Query, SparseVector
from openrag_core.search import SearchOptions

SCHEMA = 2  # of the payload; raised when an old index can no longer be read
FIELDS = (
    *("text", "title", "source", "page", "start", "end", "doc_id", "chunk"),
    *("content_hash", "created_at", "tenant"),
)
"""What can be filtered by, beside "metadata.KEY"."""
_SPARE = 3  # times top_k that is searched where some hits may be left out


class PassageIndex:
    """Finds passages by meaning and by words; satisfies the `Retriever` port.

    Args:
        store: Where the points live.
        encoder: Of the dense vectors; the same that the index was made with.
        sparse: Of the sparse vectors, likewise; by default the index's own, of a new one English
            BM25.
        context: What is encoded before each piece, likewise; of a new one title and headings.
        chunk: Cuts documents into pieces, likewise; of a new one to 160 of the encoder's tokens.
        options: Of searches that are given none.
        tenant: Whose documents are written and found; the others' are neither seen nor touched.

    Raises:
        IndexMismatchError: The index was made with another encoder, schema or setting.
    """

    def __init__(
        self,
        store: PointStore,
        encoder: DenseEncoder,
        *,
        sparse: SparseEncoder | None = None,
        context: Contextualizer | None = None,
        chunk: Chunker | None = None,
        options: SearchOptions | None = None,
        tenant: str | None = None,
    ) -> None:
        self.store = store
        self.encoder = encoder
        made = store.description or {}
        self.sparse = sparse or _sparse(made)
        self.context = context or _context(made)
        self.chunk = chunk or Chunker(
            encoder.tokenizer,
            size=made.get("chunk_size", CHUNK_SIZE),
            overlap=made.get("chunk_overlap", CHUNK_OVERLAP),
        )
        self.options = options or SearchOptions()
        self.tenant = tenant
        if store.description is not None:
            self._check(store.description)
            self.sparse.restore(store.description["fitted"])

    @property
    def local(self) -> bool:
        """Whether it is in this process, so that asking in vain costs nothing."""
        return self.store.local

    def retrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """The passages nearest to each question, best first, at most `top_k` each.

        Of passages with the same text the best one is kept.

        Args:
            questions: Searched together, in one request.
            top_k: >= 1.
            options: By default those of the index.

        Raises:
            ConfigError: `top_k` is below 1.
            FilterError: A field of the filter is in no passage.
            IndexNotFoundError: Nothing has been indexed yet.
        """
        options = self._options(top_k, options)
        queries = self._queries(questions, options)
        found = self.store.search(queries, _limit(top_k, options), options) if queries else []
        return self._passages(found, top_k, options)

    async def aretrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """As `retrieve`; the event loop goes on, and a server is asked without a thread."""
        asearch = getattr(self.store, "asearch", None)
        if asearch is None:
            return await asyncio.to_thread(self.retrieve, questions, top_k, options)
        options = self._options(top_k, options)
        queries = await asyncio.to_thread(self._queries, questions, options)
        found = await asearch(queries, _limit(top_k, options), options) if queries else []
        return await asyncio.to_thread(self._passages, found, top_k, options)

    def add_files(
        self,
        files: Iterable[Path],
        on_file: Callable[[Path], None] = lambda _: None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> IndexReport:
        """Index files; those that are indexed already and have not changed are left alone.

        It can be stopped at any time and run again: what is stored is whole documents.

        Args:
            files: Read one after the other.
            on_file: Called with each file once it is dealt with.
            max_bytes: Larger files are skipped.

        Returns:
            What became of them; a file that cannot be read is skipped and named there.
        """
        report = IndexReport()
        ingest_files(self, files, report, on_file, max_bytes)
        return report

    def add_documents(self, documents: Iterable[Document]) -> IndexReport:
        """Index documents, replacing what was stored of them before, unless it is the same."""
        report = IndexReport()
        ingest_documents(self, documents, report)
        return report

    def documents(self) -> list[str]:
        """Ids of the documents that are there as a whole."""
        first = self.own(Field("chunk") == 0)
        pages = self.store.scroll(first, fields=["doc_id"])
        return [point.payload["doc_id"] for page in pages for point in page]

    def content_hashes(self, documents: Sequence[str]) -> dict[str, str]:
        """Content hash of those documents that are there as a whole."""
        first = self.own(Field("doc_id").is_in(documents) & (Field("chunk") == 0))
        pages = self.store.scroll(first, fields=["doc_id", "content_hash"]) if documents else ()
        payloads = (point.payload for page in pages for point in page)
        return {payload["doc_id"]: payload["content_hash"] for payload in payloads}

    def gone(self, paths: Sequence[Path]) -> list[str]:
        """Documents that were indexed from these files and folders and are there no more."""
        roots = [path.resolve() for path in paths]
        return [
            document
            for document in self.documents()
            if any(Path(document).is_relative_to(root) for root in roots)
            and not Path(document).exists()
        ]

    def remove(self, documents: Iterable[str]) -> None:
        """Delete documents, by id."""
        if ids := list(documents):
            self.store.delete(self.own(Field("doc_id").is_in(ids)))

    def count(self) -> int:
        """How many passages there are."""
        return self.store.count(None if self.tenant is None else self.own())

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def create(self, sample: Sequence[str]) -> None:
        """Make the store, fitted to the first passages."""
        fitted = self.sparse.fit(sample)
        self.store.create(self._description | {"fitted": dict(fitted)})

    def own(self, filter_: Filter | None = None) -> Filter:
        """The filter, and that the passages are the tenant's."""
        if self.tenant is None:
            return filter_ or All(())
        mine = Field("tenant") == self.tenant
        return mine if filter_ is None else mine & filter_

    @property
    def _description(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "encoder": self.encoder.name,
            "dimension": self.encoder.dimension,
            "sparse": self.sparse.name,
            "idf": self.sparse.idf,
            "context": self.context.name,
            "chunk_size": self.chunk.size,
            "chunk_overlap": self.chunk.overlap,
        }

    def _check(self, stored: Mapping[str, Any]) -> None:
        for what, ours in self._description.items():
            if stored.get(what) != ours:
                self.store.close()
                raise IndexMismatchError(
                    f"the index at {self.store.address} was made with {what} "
                    f"{stored.get(what)!r}, and you are using {ours!r}: use that {what}, "
                    "or index into another place"
                )

    def _options(self, top_k: int, options: SearchOptions | None) -> SearchOptions:
        if top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {top_k}")
        if self.store.description is None:
            raise IndexNotFoundError(
                f"there is no index at {self.store.address}. Make an index: openrag index PATH"
            )
        options = options or self.options
        for one in conditions(options.filter) if options.filter else ():
            if one.field not in FIELDS and not one.field.startswith("metadata."):
                raise FilterError(
                    f"{one.field!r} is no field of a passage: filter by {', '.join(FIELDS)}, or "
                    f"by what documents bring along (metadata.{one.field})"
                )
        if self.tenant is None:
            return options
        return replace(options, filter=self.own(options.filter))

    def _queries(self, questions: Sequence[str], options: SearchOptions) -> list[Query]:
        nothing = SparseVector([], [])
        dense: Iterable[list[float]] = ([] for _ in questions)
        sparse: Iterable[SparseVector] = (nothing for _ in questions)
        if options.mode != "sparse" or options.diversity is not None:
            dense = self.encoder.encode_questions(questions)
        if options.mode != "dense":
            sparse = self.sparse.encode_questions(questions)
        return [Query(*pair) for pair in zip(dense, sparse, strict=True)]

    def _passages(
        self, found: Sequence[Sequence[Hit]], top_k: int, options: SearchOptions
    ) -> list[list[Passage]]:
        if found and not any(found):
            self._explain(options)
        kept = [_kept(hits, options.max_per_document)[:top_k] for hits in found]
        if options.neighbours:
            return read_large(self, kept, options.neighbours)
        return [[to_passage(hit.id, hit.payload, hit.score) for hit in hits] for hits in kept]

    def _explain(self, options: SearchOptions) -> None:
        """Say why nothing was found at all, if it is a mistake.

        Raises:
            IndexNotFoundError: There is nothing.
            FilterError: A field of the filter is in no passage.
        """
        check_indexed(self.store)
        for one in conditions(options.filter) if options.filter else ():
            there = Condition(one.field, "$exists", value=True)
            if one.operator != "$exists" and not self.store.count(self.own(there)):
                raise FilterError(f"no passage at {self.store.address} has a field {one.field!r}")


def _sparse(made: Mapping[str, Any]) -> SparseEncoder:
    """That of an index, as far as it is known; English BM25 for a new one."""
    kind, _, language = str(made.get("sparse", "bm25/english")).partition("/")
    return Bm25Encoder(language) if kind == "bm25" else Bm25Encoder()


def _context(made: Mapping[str, Any]) -> Contextualizer:
    """That of an index; title and headings for a new one."""
    match made.get("context", "title"):
        case "title":
            return TitleContext()
        case "none":
            return NoContext()
        case name:
            return AbsentContext(str(name))


def check_indexed(store: PointStore) -> None:
    """Find out whether a store holds anything.

    Raises:
        IndexNotFoundError: It does not.
    """
    if store.description is None or not store.count():
        what = "there is no index at" if store.description is None else "nothing is indexed in"
        raise IndexNotFoundError(f"{what} {store.address}. Make an index: openrag index PATH")


def to_passage(id_: str, payload: Mapping[str, Any], score: float | None) -> Passage:
    """What is stored, as the pipeline knows it; the document's metadata and the position in one."""
    position = {key: payload[key] for key in FIELDS[3:] if payload.get(key) is not None}
    return Passage(
        id=id_,
        text=payload["text"],
        title=payload["title"],
        source=payload["source"],
        metadata={**(payload.get("metadata") or {}), **position},
        retrieval_score=score,
    )


def _limit(top_k: int, options: SearchOptions) -> int:
    """More than asked for, since of equal texts, and of one document, not all are kept."""
    return top_k * _SPARE if options.max_per_document is None else max(top_k, options.prefetch)


def _kept(hits: Sequence[Hit], max_per_document: int | None) -> list[Hit]:
    texts: set[str] = set()
    documents: dict[str, int] = {}
    kept = []
    for hit in hits:
        text, document = hit.payload["text"], hit.payload["doc_id"]
        if text in texts or documents.get(document, 0) == max_per_document:
            continue
        texts.add(text)
        documents[document] = documents.get(document, 0) + 1
        kept.append(hit)
    return kept
