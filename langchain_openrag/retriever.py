"""Our retrievers as LangChain's."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, SkipValidation, field_validator

from langchain_openrag.documents import to_document
from langchain_openrag.tracing import asking
from openrag_core import Filter, OpenRAG, Reranker, Retriever, SearchOptions
from openrag_core.build import check_pipeline
from openrag_core.conversation import check_questions
from openrag_core.errors import ConfigError
from openrag_core.ports import SearchRetriever, ranked_by
from openrag_core.steps import Call, Steps, arun, lists_of, run


class OpenRAGRetriever(BaseRetriever):
    """Hybrid search in a `PassageIndex` or a `QdrantCollection`, or any other of our retrievers.

    A call may ask for another number, and narrow the search further:
    `retriever.invoke("...", k=3, filter={"page": {"$lt": 9}})`.
    """

    index: SkipValidation[Retriever]
    """`openrag_core.build.open_index()` opens one."""
    k: int = Field(default=5, ge=1)
    """Passages that are found."""
    filter: SkipValidation[Filter] | dict[str, Any] | None = None
    """Only passages of which it holds, and those of `options`; see `openrag_core.filters`."""
    options: SkipValidation[SearchOptions] | None = None
    """How an index is searched; by default as it was opened."""
    reranker: SkipValidation[Reranker] | None = None
    """Chooses among `fetch_k` passages."""
    fetch_k: int = Field(default=20, ge=1)
    """Passages that a reranker chooses from."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        return run(self._find(query, **kwargs))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        return await arun(self._find(query, **kwargs))

    def _find(
        self,
        query: str,
        *,
        k: int | None = None,
        filter: Filter | dict[str, Any] | None = None,
        **unknown: Any,
    ) -> Steps[list[Document]]:
        if unknown:
            raise ConfigError(
                f"a call of OpenRAGRetriever takes k and filter, not {', '.join(sorted(unknown))}"
            )
        check_questions([query])
        wanted = self.k if k is None else k
        if wanted < 1:
            raise ConfigError(f"k must be at least 1, got {wanted}")
        top_k = wanted if self.reranker is None else max(wanted, self.fetch_k)
        options = self._options(filter)
        arguments: tuple[Any, ...] = (
            ([query], top_k) if options is None else ([query], top_k, options)
        )
        given = yield Call(self.index, "retrieve", arguments)
        (found,) = lists_of(self.index, "retrieve", given, 1)
        if self.reranker is not None:
            given = yield Call(self.reranker, "rerank", ([query], [found], wanted))
            (found,) = ranked_by(self.reranker, given, 1, wanted)
        return [to_document(passage) for passage in found]

    def _options(self, filter: Filter | dict[str, Any] | None) -> SearchOptions | None:
        """What the index is told; None for it to search as it was opened."""
        filters = [one for one in (self.filter, filter) if one not in (None, {})]
        if not filters and self.options is None:
            return None
        if not isinstance(self.index, SearchRetriever):
            raise ConfigError(
                f"{type(self.index).__name__} takes neither filters nor options: give "
                "OpenRAGRetriever a PassageIndex, or leave them out"
            )
        options = self.options or self.index.options
        for one in filters:
            options = options.narrowed(one)
        return options


class AdaptiveRetriever(BaseRetriever):
    """The passages that an answer would be written from; none where the gate says that it knows."""

    rag: SkipValidation[OpenRAG]
    """The pipeline; its gate should be "f_minp", "f_meanp" or "f_ret"."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @field_validator("rag")
    @classmethod
    def _check_rag(cls, rag: object) -> object:
        return check_pipeline(rag)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **unknown: Any
    ) -> list[Document]:
        _refuse(unknown)
        with asking([RunnableConfig(callbacks=run_manager.get_child())]):
            decision, _ = self.rag.decide(query)
            found = self.rag.retrieve(query) if decision.retrieve else []
        return list(map(to_document, found))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **unknown: Any
    ) -> list[Document]:
        _refuse(unknown)
        with asking([RunnableConfig(callbacks=run_manager.get_child())]):
            decision, _ = await self.rag.adecide(query)
            found = await self.rag.aretrieve(query) if decision.retrieve else []
        return list(map(to_document, found))


def _refuse(unknown: dict[str, Any]) -> None:
    if unknown:
        raise ConfigError(
            f"AdaptiveRetriever finds what the pipeline would read, and a call cannot change that: "
            f"leave out {', '.join(sorted(unknown))}, or set it on the pipeline"
        )
