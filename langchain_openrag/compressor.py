"""Our rerankers as LangChain's document compressors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, SkipValidation

from langchain_openrag.documents import to_passage
from openrag_core import Reranker
from openrag_core._extras import need
from openrag_core.ports import ranked_by
from openrag_core.reranking import reflection
from openrag_core.reranking.reflection import Judge
from openrag_core.steps import Call, Steps, arun, run


class RerankerCompressor(BaseDocumentCompressor):
    """Any of our rerankers; documents keep their ids and metadata.

    The score is written to `metadata["relevance_score"]`.
    """

    reranker: SkipValidation[Reranker]
    """Such as `openrag_core.reranking.maxsim.MaxSimReranker`."""
    top_n: int = Field(default=5, ge=1)
    """Documents that are kept, best first."""
    min_score: float | None = None
    """Documents of a lower score are left out; rerankers have a `min_relevance` that fits them."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """The best documents, best first."""
        del callbacks
        return run(self._compress(documents, query))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """The same; the event loop goes on."""
        del callbacks
        return await arun(self._compress(documents, query))

    def _compress(self, documents: Sequence[Document], query: str) -> Steps[list[Document]]:
        if not documents:
            return []
        # Documents may lack an id, or share one: their place tells them apart.
        places = [replace(to_passage(one), id=str(n)) for n, one in enumerate(documents)]
        arguments = ([query], [places], self.top_n)
        given = yield Call(self.reranker, "rerank", arguments)
        (ranked,) = ranked_by(self.reranker, given, 1, self.top_n)
        return [
            _scored(documents[int(passage.id)], passage.rerank_score)
            for passage in ranked
            if self.min_score is None or (passage.rerank_score or 0.0) >= self.min_score
        ]


class ReflectionReranker(RerankerCompressor):
    """The generator's own judgement: p([Relevant]).

    Args:
        generator: With trained reflection tokens, such as `rag.generator`.
        top_n: Documents that are kept.
        min_score: In [0, 1]; documents of a lower score are left out.

    Raises:
        ConfigError: The generator's reflection tokens are not trained.
    """

    def __init__(self, generator: Judge, *, top_n: int = 5, min_score: float | None = None) -> None:
        made = reflection.ReflectionReranker(generator)
        super().__init__(reranker=made, top_n=top_n, min_score=min_score)


class CrossEncoderReranker(RerankerCompressor):
    """A sentence-transformers cross-encoder.

    Args:
        path_or_name: A folder, or a name on a model hub.
        top_n: Documents that are kept.
        min_score: In [0, 1]; documents of a lower score are left out.
        **settings: Of `openrag_core.reranking.cross_encoder.CrossEncoderReranker`.

    Raises:
        CheckpointError: The model cannot be loaded.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        top_n: int = 5,
        min_score: float | None = None,
        **settings: Any,
    ) -> None:
        from openrag_core.reranking import cross_encoder  # noqa: PLC0415  (loads torch)

        made = cross_encoder.CrossEncoderReranker(path_or_name, **settings)
        super().__init__(reranker=made, top_n=top_n, min_score=min_score)


class CohereReranker(RerankerCompressor):
    """Cohere's service (extra: cohere).

    Args:
        model: Such as "rerank-v3.5".
        top_n: Documents that are kept.
        min_score: In [0, 1]; documents of a lower score are left out.
        **settings: Of `openrag_core.reranking.cohere.CohereReranker`, such as `api_key`.

    Raises:
        MissingExtraError: The package is not installed.
        ConfigError: There is no API key.
    """

    def __init__(
        self,
        model: str = "rerank-v3.5",
        *,
        top_n: int = 5,
        min_score: float | None = None,
        **settings: Any,
    ) -> None:
        need("cohere", "cohere")
        from openrag_core.reranking import cohere  # noqa: PLC0415

        made = cohere.CohereReranker(model, **settings)
        super().__init__(reranker=made, top_n=top_n, min_score=min_score)


def _scored(document: Document, score: float | None) -> Document:
    metadata = {**document.metadata, "relevance_score": score}
    return Document(id=document.id, page_content=document.page_content, metadata=metadata)
