"""The passage index as a retriever."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores import MetadataFilters

from llamaindex_openrag.filters import from_metadata_filters
from llamaindex_openrag.nodes import to_node
from llamaindex_openrag.postprocessor import OpenRAGPostprocessor
from openrag_core import ConfigError, Reranker, Retriever, SearchOptions
from openrag_core.conversation import check_questions
from openrag_core.ports import SearchRetriever
from openrag_core.steps import Call, Steps, arun, lists_of, run


class OpenRAGRetriever(BaseRetriever):
    """Finds the nodes nearest to a question, and may rerank them.

    Args:
        retriever: A `PassageIndex`, or whatever else satisfies our `Retriever` port.
        similarity_top_k: Most nodes, >= 1.
        options: How the index is searched; by default as it was told when it was opened.
        filters: Only nodes of which they hold are found; they are joined with those of `options`.
        reranker: Chooses the best of `fetch_k` nodes; as an `OpenRAGPostprocessor` would.
        fetch_k: >= 1. Without effect where there is no reranker.
        **settings: LlamaIndex's own, such as `callback_manager` and `objects`.

    Raises:
        ConfigError: Another retriever than the index is given options or filters, or a number is
            too small.
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
        reranker: Reranker | None = None,
        fetch_k: int = 20,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if min(similarity_top_k, fetch_k) < 1:
            raise ConfigError(
                "similarity_top_k and fetch_k must be at least 1; "
                f"got {similarity_top_k} and {fetch_k}"
            )
        self.similarity_top_k = similarity_top_k
        self._fetch_k = fetch_k
        self._reranker = reranker
        self._retriever = retriever
        self._options = options
        if filters is not None or options is not None:
            self._options = _narrowed(retriever, options, filters)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = run(self._search(query_bundle))
        rank = self._postprocessor
        return nodes if rank is None else rank.postprocess_nodes(nodes, query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = await arun(self._search(query_bundle))
        rank = self._postprocessor
        return nodes if rank is None else await rank.apostprocess_nodes(nodes, query_bundle)

    @property
    def _postprocessor(self) -> OpenRAGPostprocessor | None:
        if self._reranker is None:
            return None
        return OpenRAGPostprocessor(
            reranker=self._reranker,
            top_n=self.similarity_top_k,
            callback_manager=self.callback_manager,
        )

    def _search(self, query_bundle: QueryBundle) -> Steps[list[NodeWithScore]]:
        check_questions([query_bundle.query_str])
        top_k = self.similarity_top_k  # which may have been set since
        if self._reranker is not None:
            top_k = max(top_k, self._fetch_k)
        searched = "\n".join(query_bundle.embedding_strs)  # the question, or what a transform made
        arguments: tuple[object, ...] = ([searched], top_k)
        if self._options is not None:
            arguments = (*arguments, self._options)
        given = yield Call(self._retriever, "retrieve", arguments)
        (found,) = lists_of(self._retriever, "retrieve", given, 1)
        return [to_node(passage) for passage in found]


def _narrowed(
    retriever: Retriever, options: SearchOptions | None, filters: MetadataFilters | None
) -> SearchOptions:
    if not isinstance(retriever, SearchRetriever):
        raise ConfigError(
            f"{type(retriever).__name__} takes neither options nor filters: give a PassageIndex, "
            "or leave them out"
        )
    options = options or retriever.options
    return options if filters is None else options.narrowed(from_metadata_filters(filters))
