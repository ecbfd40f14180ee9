"""Reranking by Cohere's service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from cohere import AsyncClientV2, ClientV2
from cohere.core.api_error import ApiError

from openrag_core.errors import ConfigError, OpenRAGError, RerankerError
from openrag_core.records import Passage


class CohereReranker:
    """Cohere's rerank endpoint; satisfies the `Reranker` port.

    The client waits and tries again where the service is busy (408, 409, 429, 5xx), as long as
    its Retry-After says. Questions are asked side by side.

    Args:
        model: Such as "rerank-v3.5".
        api_key: By default $CO_API_KEY.
        base_url: Of another service that speaks the same protocol.
        timeout: Longest wait for one reply, in seconds.
        max_retries: How often a request is tried again.
        max_tokens_per_doc: Longer passages are cut by the service.
        concurrency: Most requests at once.
        min_relevance: The score, in [0, 1], from which a passage counts as relevant. Cohere's
            scores are not calibrated: set it on questions of your own.

    Raises:
        ConfigError: There is no API key, or a number is below 1.
    """

    def __init__(
        self,
        model: str = "rerank-v3.5",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        max_tokens_per_doc: int = 4096,
        concurrency: int = 8,
        min_relevance: float = 0.3,
    ) -> None:
        if max_tokens_per_doc < 1 or concurrency < 1:
            raise ConfigError(
                "max_tokens_per_doc and concurrency must be at least 1; "
                f"got {max_tokens_per_doc}, {concurrency}"
            )
        self._model = model
        self._max_tokens = max_tokens_per_doc
        self._concurrency = concurrency
        self.min_relevance = min_relevance
        self.search_units = 0.0
        """What was billed so far."""
        self._counting = Lock()
        self._arguments: dict[str, Any] = {
            "api_key": api_key,
            "base_url": base_url,
            "timeout": timeout,
            "max_retries": max_retries,
        }
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClientV2] = (
            WeakKeyDictionary()
        )
        try:
            self._client = ClientV2(**self._arguments)
        except ApiError as error:
            raise ConfigError("no API key for Cohere: set CO_API_KEY") from error

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first.

        Raises:
            RerankerError: The service refused, or did not answer in time.
        """

        def ask(question: str, own: Sequence[Passage]) -> list[Passage]:
            if not own:
                return []
            try:
                return self._ranked(own, self._client.rerank(**self._request(question, own, top_k)))
            except (ApiError, httpx.HTTPError) as error:
                raise _told(error) from error

        with ThreadPoolExecutor(self._concurrency) as threads:
            return list(threads.map(ask, questions, passages))

    async def arerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The same; the event loop goes on.

        Raises:
            RerankerError: The service refused, or did not answer in time.
        """
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:  # connections belong to one loop
            client = self._clients[loop] = AsyncClientV2(**self._arguments)
        turns = asyncio.Semaphore(self._concurrency)

        async def ask(question: str, own: Sequence[Passage]) -> list[Passage]:
            if not own:
                return []
            try:
                async with turns:
                    reply = await client.rerank(**self._request(question, own, top_k))
            except (ApiError, httpx.HTTPError) as error:
                raise _told(error) from error
            return self._ranked(own, reply)

        asked = (ask(*pair) for pair in zip(questions, passages, strict=True))
        return list(await asyncio.gather(*asked))

    def _request(self, question: str, passages: Sequence[Passage], top_k: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "query": question,
            "documents": [passage.titled_text for passage in passages],
            "top_n": top_k,
            "max_tokens_per_doc": self._max_tokens,
        }

    def _ranked(self, passages: Sequence[Passage], reply: Any) -> list[Passage]:  # noqa: ANN401
        units = reply.meta.billed_units if reply.meta else None
        with self._counting:
            self.search_units += (units.search_units if units else None) or 0.0
        return [
            replace(passages[result.index], rerank_score=result.relevance_score)
            for result in reply.results
        ]


def _told(error: ApiError | httpx.HTTPError) -> OpenRAGError:
    if isinstance(error, ApiError):
        return RerankerError(
            f"Cohere refused ({error.status_code}): {error.body}. "
            "Check the key and the model's name, or answer without it (--reranker maxsim)"
        )
    return RerankerError(f"Cohere did not answer: {type(error).__name__} {error}")
