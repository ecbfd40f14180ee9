"""Qdrant collections that others made: langchain-qdrant, LlamaIndex, or anything like them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

from qdrant_client import models

from openrag_core.errors import ConfigError, IndexMismatchError
from openrag_core.filters import Filter, map_conditions
from openrag_core.records import Passage
from openrag_core.retrieval.encoders import DenseEncoder
from openrag_core.retrieval.layouts import find_layout
from openrag_core.retrieval.requests import VectorNames
from openrag_core.retrieval.searching import (
    check_call,
    check_filter,
    check_found,
    encode,
    search_distinct,
)
from openrag_core.retrieval.server import ServerStore
from openrag_core.retrieval.sparse import SparseEncoder
from openrag_core.retrieval.store import Hit, Query
from openrag_core.search import SearchOptions
from openrag_core.steps import Call, Steps, arun, run

_LIKENESS = (models.Distance.COSINE, models.Distance.DOT)  # higher is nearer


class QdrantCollection:
    """Finds passages in a collection as it is; satisfies the `Retriever` port. It never writes.

    Which vectors there are is read from the collection, and where text and metadata lie from one of
    its points. Filters name our fields: "title", "source", "page" and the like, which others keep
    among the metadata, and "metadata.KEY".

    Args:
        store: The collection: `ServerStore(client, name)`, or `ServerStore.connect(server, name)`.
        encoder: Of the dense vectors, the same that they were made with; None for a collection, or
            a search, by words alone.
        sparse: Of the sparse vectors, likewise; None searches by meaning alone.
        vector_name: Of the dense vectors, where there are several; "" for those without a name.
        sparse_vector_name: Of the sparse ones, likewise.
        content_key: Payload key of the text, where it has another name than the layout's.
        metadata_key: Payload key of the metadata, likewise; "" where they lie beside the text.
        options: Of searches that are given none. "hybrid" means both kinds where there are both.

    Raises:
        IndexNotFoundError: There is no such collection, or it is empty.
        IndexMismatchError: Its payload or vectors are none that are known, or not the encoder's.
        IndexUnreachableError: The server does not answer, or refuses.
    """

    def __init__(
        self,
        store: ServerStore,
        encoder: DenseEncoder | None,
        *,
        sparse: SparseEncoder | None = None,
        vector_name: str | None = None,
        sparse_vector_name: str | None = None,
        content_key: str | None = None,
        metadata_key: str | None = None,
        options: SearchOptions | None = None,
    ) -> None:
        made, payload = store.look()
        _check_ours(store, encoder, sparse)
        self.encoder, self.sparse = encoder, sparse
        self.options = options or SearchOptions()
        self.layout = find_layout(payload, content_key, metadata_key, store.address)
        self.vectors = VectorNames(
            None if encoder is None else _dense(made, vector_name, encoder, store.address),
            None if sparse is None else _words(made, sparse_vector_name, sparse, store.address),
        )
        if self.vectors == VectorNames(None, None):
            raise IndexMismatchError(
                f"{store.address} has {_listed(_dense_vectors(made))} dense and "
                f"{_listed(made.sparse_vectors)} sparse vectors: give an encoder for the one, or "
                "sparse for the other"
            )
        self.store = store.named(self.vectors)

    @property
    def local(self) -> bool:
        """Whether it is in this process, so that asking in vain costs nothing."""
        return self.store.local

    def narrowed(self, filter_: Filter | Mapping[str, Any]) -> Self:
        """As of a `PassageIndex`."""
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
            options: By default those given to the constructor; all but `neighbours`.

        Raises:
            ConfigError: `top_k` is below 1, or the options ask for vectors that there are not.
            QuestionError: It is one string instead of a list.
            FilterError: Nothing was found, and a field of the filter is in no passage.
            IndexMismatchError: A point has no text where the others have it.
        """
        return run(self._retrieve(questions, top_k, options or self.options))

    async def aretrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """As `retrieve`; the event loop goes on, and a server is asked without a thread."""
        return await arun(self._retrieve(questions, top_k, options or self.options))

    def close(self) -> None:
        """Close the connection."""
        self.store.close()

    def _retrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions
    ) -> Steps[list[list[Passage]]]:
        check_call(questions, top_k)
        check_filter(options.filter)
        theirs = self._possible(options)
        queries: list[Query] = yield Call(self, "_queries", (questions, theirs))
        found = yield from search_distinct(self.store, queries, top_k, theirs, self._contents)
        passages: list[list[Passage]] = yield Call(self, "_passages", (found, options))
        return passages

    def _possible(self, options: SearchOptions) -> SearchOptions:
        """The options in the collection's own terms."""
        missing = [
            kind
            for kind, name in (("dense", self.vectors.dense), ("sparse", self.vectors.sparse))
            if name is None
        ]
        mode = options.mode
        if mode == "hybrid" and missing:
            mode = "sparse" if missing == ["dense"] else "dense"
        if mode in missing or (options.diversity is not None and "dense" in missing):
            raise ConfigError(
                f"{self.store.address} is searched without {missing[0]} vectors, which mode "
                f"{options.mode!r} or diversity needs: give their encoder, if there are such, or "
                "another mode"
            )
        if options.neighbours:
            raise ConfigError(
                f"neighbours={options.neighbours}: others do not say which piece follows which. "
                "Set it to 0; an index of ours is read with its neighbours by PassageIndex"
            )
        if options.filter is None:
            return replace(options, mode=mode)
        return replace(
            options, mode=mode, filter=map_conditions(options.filter, self.layout.condition)
        )

    def _queries(self, questions: Sequence[str], options: SearchOptions) -> list[Query]:
        return encode(questions, options, self.encoder, self.sparse)

    def _contents(self, hit: Hit) -> tuple[str, str]:
        return self.layout.text(hit), self.layout.document(hit)

    def _passages(
        self, found: Sequence[Sequence[Hit]], options: SearchOptions
    ) -> list[list[Passage]]:
        if not all(found):
            check_found(self.store, options.filter, self.layout.condition)
        return [[self.layout.passage(hit) for hit in hits] for hits in found]


def _check_ours(
    store: ServerStore, encoder: DenseEncoder | None, sparse: SparseEncoder | None
) -> None:
    """Refuse what would be refused of an index of ours.

    Raises:
        IndexMismatchError: It is one, and shared by tenants, or made with other encoders.
    """
    made = store.description or {}
    if "schema" not in made:
        return
    if made.get("tenants"):
        raise IndexMismatchError(
            f"the index at {store.address} is shared by tenants: open it with "
            "PassageIndex(store, encoder, tenant=...)"
        )
    for what, one in (("encoder", encoder), ("sparse", sparse)):
        if one is not None and made.get(what) != one.name:
            raise IndexMismatchError(
                f"the index at {store.address} was made with {what} {made.get(what)!r}, and you "
                f"are using {one.name!r}: use that one"
            )


def _dense(
    made: models.CollectionParams, name: str | None, encoder: DenseEncoder, address: str
) -> str | None:
    """Name of the dense vector, None where there is none.

    Raises:
        IndexMismatchError: There are several, or it is none that the encoder's can be compared to.
    """
    vectors = _dense_vectors(made)
    name = _chosen(vectors, name, "vector_name", address)
    if name is None:
        return None
    if vectors[name].size != encoder.dimension:
        raise IndexMismatchError(
            f"the vectors {name!r} in {address} have length {vectors[name].size}, and those of the "
            f"encoder {encoder.name!r} {encoder.dimension}: use the encoder that they were made "
            "with"
        )
    if vectors[name].distance not in _LIKENESS:
        raise IndexMismatchError(
            f"the vectors {name!r} in {address} are compared by {vectors[name].distance.value}: "
            "only collections with Cosine and Dot can be read"
        )
    return name


def _words(
    made: models.CollectionParams, name: str | None, sparse: SparseEncoder, address: str
) -> str | None:
    """Name of the sparse vector, None where there is none.

    Raises:
        IndexMismatchError: There are several, or not the named one.
    """
    vectors = made.sparse_vectors or {}
    name = _chosen(vectors, name, "sparse_vector_name", address)
    if name is not None and sparse.idf != (vectors[name].modifier == models.Modifier.IDF):
        warnings.warn(
            f"the sparse vectors {name!r} in {address} are "
            f"{'not ' if sparse.idf else ''}multiplied by inverse document frequencies, and "
            f"{sparse.name!r} is made to be searched {'with' if sparse.idf else 'without'} that: "
            "ranks will be worse",
            stacklevel=3,
        )
    return name


def _chosen(
    vectors: Mapping[str, Any], name: str | None, argument: str, address: str
) -> str | None:
    """The name that was given, or the only one.

    Raises:
        IndexMismatchError: It is not there, or there are several.
    """
    if name is None and len(vectors) <= 1:
        return next(iter(vectors), None)
    if name not in vectors:
        wanted = "several" if name is None else f"none that is called {name!r}"
        raise IndexMismatchError(
            f"of the vectors in {address} there are {wanted}: give {argument}, one of "
            f"{_listed(vectors)}"
        )
    return name


def _dense_vectors(made: models.CollectionParams) -> Mapping[str, models.VectorParams]:
    """Those that hold one vector for each point, by name."""
    named = {"": made.vectors} if isinstance(made.vectors, models.VectorParams) else made.vectors
    return {name: one for name, one in (named or {}).items() if one.multivector_config is None}


def _listed(vectors: Mapping[str, Any] | None) -> str:
    return ", ".join(map(repr, sorted(vectors or {}))) or "no"
