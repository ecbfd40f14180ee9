"""The passage index: documents in, passages out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from openrag_core.errors import (
    ConfigError,
    IndexMismatchError,
    IndexNotFoundError,
    PassageIndexError,
)
from openrag_core.filters import Field, Filter
from openrag_core.records import Passage
from openrag_core.retrieval.chunking import CHUNK_OVERLAP, CHUNK_SIZE, Chunker
from openrag_core.retrieval.contextual import (
    AbsentContext,
    Contextualizer,
    NoContext,
    TitleContext,
)
from openrag_core.retrieval.documents import MAX_BYTES, Document, has_content
from openrag_core.retrieval.encoders import DenseEncoder
from openrag_core.retrieval.ingestion import IndexReport, ingest_documents, ingest_files
from openrag_core.retrieval.neighbours import read_with_neighbours
from openrag_core.retrieval.payload import to_passage
from openrag_core.retrieval.searching import (
    check_call,
    check_filter,
    check_found,
    encode,
    search_distinct,
)
from openrag_core.retrieval.sparse import Bm25Encoder, SparseEncoder
from openrag_core.retrieval.store import Hit, PointStore, Query
from openrag_core.search import SearchOptions
from openrag_core.steps import Call, Steps, arun, run

SCHEMA = 2  # of the payload; raised when an old index can no longer be read
_MAKE_ONE = "Make an index: openrag index PATH, with the same --index or --qdrant-url"


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
        tenant: Whose documents are written and found; the others' are neither seen nor touched. An
            index is either shared by tenants or not.
        compatible: Whether LangChain's and LlamaIndex's Qdrant stores can read it, likewise; of a
            new one no, since every text is then stored three times. See `readable_by_others`.

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
        compatible: bool | None = None,
    ) -> None:
        self.store = store
        self.encoder = encoder
        made = store.description or {}
        self.sparse = _sparse(made) if sparse is None else copy(sparse)  # fitted to this index
        self.context = _context(made) if context is None else context
        self.chunk = chunk or Chunker(
            encoder.tokenizer,
            size=made.get("chunk_size", CHUNK_SIZE),
            overlap=made.get("chunk_overlap", CHUNK_OVERLAP),
        )
        self.options = options or SearchOptions()
        self.tenant = tenant
        self.compatible = bool(made.get("compatible")) if compatible is None else compatible
        self._checked = False
        self._exists()

    @property
    def local(self) -> bool:
        """Whether it is in this process, so that asking in vain costs nothing."""
        return self.store.local

    def narrowed(self, filter_: Filter | Mapping[str, Any]) -> Self:
        """A view of the same index in which only passages are found of which the filter holds too.

        What is counted, listed and written is the whole index; closing either closes both. Options
        of a call take the place of the view's, as always.
        """
        view = copy(self)
        view.options = self.options.narrowed(filter_)
        return view

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
            QuestionError: It is one string instead of a list.
            FilterError: Nothing was found, and a field of the filter is in no passage.
            IndexNotFoundError: Nothing has been indexed yet.
        """
        return run(self._retrieve(questions, top_k, options or self.options))

    async def aretrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """As `retrieve`; the event loop goes on, and a server is asked without a thread."""
        return await arun(self._retrieve(questions, top_k, options or self.options))

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
            files: Paths, read one after the other; no folders (see `find_files`).
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
        first = self.scoped(Field("chunk") == 0)
        pages = self.store.scroll(first, fields=["doc_id"])
        return [point.payload["doc_id"] for page in pages for point in page]

    def passages(self) -> Iterator[Passage]:
        """Every passage, in no order; none where nothing is indexed."""
        pages = self.store.scroll(self.scope) if self._exists() else ()
        return (to_passage(point.id, point.payload, None) for page in pages for point in page)

    def versions(self, documents: Sequence[str]) -> dict[str, dict[str, bool]]:
        """What is there of these documents: by content hash, whether it is whole."""
        found: dict[str, dict[str, bool]] = {}
        if not documents or not self._exists():
            return found
        asked = self.scoped(Field("doc_id").is_in(documents))
        for page in self.store.scroll(asked, fields=["doc_id", "content_hash", "chunk"]):
            for payload in (point.payload for point in page):
                hashes = found.setdefault(payload["doc_id"], {})
                hashes[payload["content_hash"]] = (
                    hashes.get(payload["content_hash"], False) or payload["chunk"] == 0
                )
        return found

    def gone(self, paths: Sequence[Path]) -> list[str]:
        """Files that were indexed from these files and folders and are gone, or empty now."""
        roots = [path.resolve() for path in paths]
        pages = self.store.scroll(self.scope, fields=["doc_id", "source"])
        payloads = (point.payload for page in pages for point in page)
        # Documents of other readers are not known by the path of their source.
        files = {one["doc_id"]: None for one in payloads if one["doc_id"] == one["source"]}
        return [
            file
            for file in files
            if any(Path(file).is_relative_to(root) for root in roots)
            and not has_content(Path(file))
        ]

    def remove(self, documents: Iterable[str]) -> None:
        """Delete documents, by id.

        Raises:
            ConfigError: It is one string instead of several ids.
        """
        if isinstance(documents, str):
            raise ConfigError(f"{documents!r} is one id: give a list of them")
        if (ids := list(documents)) and self._exists():
            self.store.delete(self.scoped(Field("doc_id").is_in(ids)))

    def count(self) -> int:
        """How many passages there are."""
        return self.store.count(self.scope)

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of what is there: another content is another fingerprint.

        Ids of passages are made of their document, its content hash and their place in it.
        """
        pages = self.store.scroll(self.scope, fields=["doc_id"]) if self._exists() else ()
        ids = sorted(str(point.id) for page in pages for point in page)
        return sha256("\n".join(ids).encode()).hexdigest()

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def create(self, sample: Sequence[str]) -> None:
        """Make the store, fitted to the first passages; or take up what another has just made.

        Raises:
            IndexMismatchError: Another has made it with other settings.
        """
        if self._exists():
            return
        fitted = self.sparse.fit(sample)
        try:
            self.store.create(self._description | {"fitted": dict(fitted)})
        except PassageIndexError:
            if not self._exists():
                raise

    @property
    def scope(self) -> Filter | None:
        """That passages are the tenant's; None where there are no tenants."""
        return None if self.tenant is None else Field("tenant") == self.tenant

    def scoped(self, filter_: Filter) -> Filter:
        """The filter, and that passages are the tenant's."""
        return filter_ if self.scope is None else self.scope & filter_

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
            "tenants": self.tenant is not None,
            "compatible": self.compatible,
        }

    def _exists(self) -> bool:
        """Whether the index is there; once it is, it must fit.

        Raises:
            IndexMismatchError: It was made with other settings.
        """
        if not self._checked and (stored := self.store.description) is not None:
            self._check(stored)
            self.sparse.restore(stored["fitted"])
            self._checked = True
        return self._checked

    def _check(self, stored: Mapping[str, Any]) -> None:
        if "schema" not in stored:
            raise IndexMismatchError(
                f"{self.store.address} was made by another program: QdrantCollection "
                "(docs/retrieval.md) searches it as it is, or index into another place"
            )
        for what, ours in self._description.items():
            if (theirs := stored.get(what, False)) == ours:  # older ones do not say "compatible"
                continue
            if what == "tenants":
                raise IndexMismatchError(
                    f"the index at {self.store.address} "
                    + (
                        "was made without tenants: leave the tenant out (--tenant), or index into "
                        "another place"
                        if ours
                        else "is shared by tenants: name one (--tenant)"
                    )
                )
            raise IndexMismatchError(
                f"the index at {self.store.address} was made with {what} "
                f"{theirs!r}, and you are using {ours!r}: use that {_named(what, theirs)}, "
                "or index into another place"
            )

    def _retrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions
    ) -> Steps[list[list[Passage]]]:
        check_call(questions, top_k)
        if not (self._checked or (yield Call(self, "_exists", ()))):
            raise IndexNotFoundError(f"there is no index at {self.store.address}. {_MAKE_ONE}")
        check_filter(options.filter)
        among = self.scope if options.filter is None else self.scoped(options.filter)
        queries: list[Query] = yield Call(self, "_queries", (questions, options))
        found = yield from search_distinct(
            self.store, queries, top_k, replace(options, filter=among), _contents
        )
        passages: list[list[Passage]] = yield Call(self, "_passages", (found, options))
        return passages

    def _queries(self, questions: Sequence[str], options: SearchOptions) -> list[Query]:
        return encode(questions, options, self.encoder, self.sparse)

    def _passages(
        self, found: Sequence[Sequence[Hit]], options: SearchOptions
    ) -> list[list[Passage]]:
        if not all(found):
            check_indexed(self.store)
            check_found(self.store, options.filter, self.scoped)
        if options.neighbours:
            return read_with_neighbours(self, found, options.neighbours)
        return [[to_passage(hit.id, hit.payload, hit.score) for hit in hits] for hits in found]


def _named(what: str, value: object) -> str:
    """What the index was made with, and by which option it is named."""
    kind, _, language = str(value).partition("/")
    if what == "sparse" and kind == "bm25":
        return f"language (--language {language})"
    return f"{what} (--{what})" if what == "encoder" else what


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
        raise IndexNotFoundError(f"{what} {store.address}. {_MAKE_ONE}")


def _contents(hit: Hit) -> tuple[str, str]:
    return hit.payload["text"], hit.payload["doc_id"]
