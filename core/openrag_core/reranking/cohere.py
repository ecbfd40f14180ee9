"""Reranking by Cohere's service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import httpx
from cohere import ClientV2
from cohere.core.api_error import ApiError

from openrag_core.errors import ConfigError, RerankerError
from openrag_core.records import Passage


class CohereReranker:
    """Cohere's rerank endpoint; satisfies the `Reranker` port.

    The client waits and tries again where the service is busy (408, 409, 429, 5xx), as long as
    its Retry-After says.

    Args:
        model: Such as "rerank-v3.5".
        api_key: By default $CO_API_KEY.
        base_url: Of another service that speaks the same protocol.
        timeout: Longest wait for one reply, in seconds.
        max_retries: How often a request is tried again.
        min_relevance: The score, in [0, 1], from which a passage counts as relevant. Cohere's
            scores are not calibrated: set it on questions of your own.

    Raises:
        ConfigError: There is no API key.
    """

    def __init__(
        self,
        model: str = "rerank-v3.5",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        min_relevance: float = 0.3,
    ) -> None:
        self._model = model
        self.min_relevance = min_relevance
        try:
            self._client = ClientV2(
                api_key=api_key, base_url=base_url, timeout=timeout, max_retries=max_retries
            )
        except ApiError as error:
            raise ConfigError("no API key for Cohere: set CO_API_KEY") from error

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first.

        Raises:
            RerankerError: The service refused, or did not answer in time.
        """
        return [
            self._rerank(question, own, top_k) if own else []
            for question, own in zip(questions, passages, strict=True)
        ]

    def _rerank(self, question: str, passages: Sequence[Passage], top_k: int) -> list[Passage]:
        texts = [f"{passage.title}\n{passage.text}".strip() for passage in passages]
        try:
            response = self._client.rerank(
                model=self._model, query=question, documents=texts, top_n=top_k
            )
        except ApiError as error:
            raise RerankerError(
                f"Cohere refused ({error.status_code}): {error.body}. "
                "Check the key and the model's name, or answer without it (--reranker maxsim)"
            ) from error
        except httpx.HTTPError as error:
            raise RerankerError(f"Cohere did not answer: {type(error).__name__} {error}") from error
        return [
            replace(passages[result.index], rerank_score=result.relevance_score)
            for result in response.results
        ]
