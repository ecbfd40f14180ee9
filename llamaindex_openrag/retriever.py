"""The passage index as a retriever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores import MetadataFilters

from llamaindex_openrag.filters import from_metadata_filters
from llamaindex_openrag.nodes import to_node
from openrag_core import ConfigError, Passage, Retriever, SearchOptions
from openrag_core.retrieval import PassageIndex
from openrag_core.steps import Call, Steps, arun, run


class OpenRAGRetriever(BaseRetriever):
    """Finds the nodes nearest to a question; to rerank them, add an `OpenRAGPostprocessor`.

    Args:
        retriever: A `PassageIndex`, or whatever else satisfies our `Retriever` port.
        similarity_top_k: Most nodes, >= 1.
        options: How the index is searched; by default as it was told when it was opened.
        filters: Only nodes of which they hold are found; they are joined with those of `options`.
        callback_manager: Of LlamaIndex.
        object_map: Of LlamaIndex, for recursive retrieval.
        objects: Of LlamaIndex, for recursive retrieval.
        verbose: Of LlamaIndex.

    Raises:
        ConfigError: Another retriever than the index is given options or filters, or the number
            is below 1.
        FilterError: An operator of the filters is unknown; an unknown field is refused when a
            question is asked.
    """

    def __init__(
        self,
        retriever: Retriever,
        similarity_top_k: int = 5,
        *,
        options: SearchOptions | None = None,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: Mapping[str, Any] | None = None,
        objects: Sequence[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            callback_manager=callback_manager,
            object_map=dict(object_map or {}),
            objects=None if objects is None else list(objects),
            verbose=verbose,
        )
        if similarity_top_k < 1:
            raise ConfigError(f"similarity_top_k must be at least 1, got {similarity_top_k}")
        self.similarity_top_k = similarity_top_k
        self._retriever = retriever
        self._options = options
        if filters is not None or options is not None:
            self._options = _narrowed(retriever, options, filters)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return run(self._search(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await arun(self._search(query_bundle))

    def _search(self, query_bundle: QueryBundle) -> Steps[list[NodeWithScore]]:
        arguments: tuple[object, ...] = ([query_bundle.query_str], self.similarity_top_k)
        if self._options is not None:
            arguments = (*arguments, self._options)
        found: list[list[Passage]] = yield Call(self._retriever, "retrieve", arguments)
        return [to_node(passage) for passage in found[0]]


def _narrowed(
    retriever: Retriever, options: SearchOptions | None, filters: MetadataFilters | None
) -> SearchOptions:
    if not isinstance(retriever, PassageIndex):
        raise ConfigError(
            f"{type(retriever).__name__} takes neither options nor filters: give a PassageIndex, "
            "or leave them out"
        )
    options = options or retriever.options
    if filters is None:
        return options
    wanted = from_metadata_filters(filters)
    return replace(options, filter=wanted if options.filter is None else options.filter & wanted)
