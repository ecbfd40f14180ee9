"""The reading half of the pipeline as a response synthesizer: it stands in LlamaIndex's engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE

from llamaindex_openrag.fixed_prompts import FixedPrompts
from llamaindex_openrag.run import Run
from openrag_core import ConfigError, OpenRAG
from openrag_core.build import check_pipeline

Query = str | QueryBundle


class OpenRAGSynthesizer(FixedPrompts, BaseSynthesizer):
    """Writes one answer from each node that somebody else found, and keeps the best.

    The response is that of `OpenRAGQueryEngine.synthesize`: source nodes with the scores of the
    answers, and in its `metadata` every candidate, the confidence and whether it is grounded. The
    pipeline's gate and retriever are not asked, its reranker ranks the nodes.

    Args:
        rag: The pipeline.
        streaming: Whether to respond while the answer is still being written.
        callback_manager: Of LlamaIndex; by default that of its `Settings`.

    Raises:
        ConfigError: It is no pipeline.
    """

    def __init__(
        self,
        rag: OpenRAG,
        *,
        streaming: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        # Never asked; without one LlamaIndex would make the LLM of its settings.
        super().__init__(MockLLM(), callback_manager, streaming=streaming)
        self.rag = check_pipeline(rag)

    def synthesize(
        self,
        query: Query,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer from the nodes; the additional ones are only handed on.

        Raises:
            ConfigError: The pipeline reads chains of passages, which nodes do not tell; or there
                are settings of a prompt.
        """
        run = self._reading(query, nodes, additional_source_nodes, response_kwargs)
        return run.respond(self._streaming)

    async def asynthesize(
        self,
        query: Query,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The same; the event loop goes on."""
        run = self._reading(query, nodes, additional_source_nodes, response_kwargs)
        return await run.arespond(self._streaming)

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The text alone, from texts alone."""
        return _text(self.synthesize(query_str, _nodes(text_chunks), **response_kwargs))

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The same; the event loop goes on."""
        return _text(await self.asynthesize(query_str, _nodes(text_chunks), **response_kwargs))

    def _reading(
        self,
        query: Query,
        nodes: Sequence[NodeWithScore],
        additional: Sequence[NodeWithScore] | None,
        unknown: dict[str, Any],
    ) -> Run:
        if unknown:
            raise ConfigError(
                f"OpenRAGSynthesizer does not know {', '.join(sorted(unknown))}: it takes a query, "
                "nodes and additional_source_nodes"
            )
        bundle = QueryBundle(query) if isinstance(query, str) else query
        return Run.reading(self.rag, bundle, self.callback_manager, nodes, additional or ())


def _nodes(texts: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def _text(response: RESPONSE_TYPE) -> RESPONSE_TEXT_TYPE:
    return str(response) if isinstance(response, Response) else response.response_gen
