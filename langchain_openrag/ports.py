"""LangChain's retrievers, compressors and chat models behind our ports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, ensure_config

from langchain_openrag.documents import to_passage
from langchain_openrag.tracing import inner_configs
from openrag_core import ConfigError, Message, Passage, Token
from openrag_core.conversation import Reply, Role
from openrag_core.reranking.scored import best_first

_MESSAGES: dict[Role, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}
_RANKED = ("place", "relevance_score")
_UNSEEN = ("nostream", "langsmith:nostream")
"""Candidates are not to be streamed as if they were the answer; LangGraph knows these tags."""


class LangChainRetriever:
    """Any LangChain retriever; satisfies our `Retriever`.

    Args:
        retriever: Finds as many documents as it is set to; of them `top_k` are kept.
    """

    def __init__(self, retriever: Runnable[str, list[Document]]) -> None:
        self._retriever = retriever

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The documents that it finds for each question, as passages."""
        with inner_configs(len(questions)) as configs:
            found = self._retriever.batch(list(questions), configs)
        return [_passages(own, top_k) for own in found]

    async def aretrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The same; the event loop goes on."""
        with inner_configs(len(questions)) as configs:
            found = await self._retriever.abatch(list(questions), configs)
        return [_passages(own, top_k) for own in found]


class LangChainReranker:
    """Any LangChain document compressor that scores; satisfies our `Reranker`.

    Args:
        compressor: Writes `metadata["relevance_score"]`, higher for better ones, and keeps the
            rest of the metadata.
        min_relevance: The score from which it calls a document relevant.
    """

    def __init__(self, compressor: BaseDocumentCompressor, *, min_relevance: float) -> None:
        self._compressor = compressor
        self.min_relevance = min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first."""
        with _callbacks(len(questions)) as callbacks:
            ranked = [
                self._compressor.compress_documents(_placed(own), question, heard) if own else []
                for question, own, heard in zip(questions, passages, callbacks, strict=True)
            ]
        return [_ranked(*pair, top_k) for pair in zip(passages, ranked, strict=True)]

    async def arerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The same; the event loop goes on."""

        async def compress(
            question: str, own: Sequence[Passage], heard: Callbacks
        ) -> Sequence[Document]:
            if not own:
                return []
            return await self._compressor.acompress_documents(_placed(own), question, heard)

        with _callbacks(len(questions)) as callbacks:
            ranked = await asyncio.gather(*map(compress, questions, passages, callbacks))
        return [_ranked(*pair, top_k) for pair in zip(passages, ranked, strict=True)]


class LangChainChat:
    """Any LangChain chat model; satisfies our `ChatModel`, for `ChatGenerator` and `ChatCondenser`.

    Args:
        model: Its log-probabilities are read where it tells them, which the gates "f_minp" and
            "f_meanp" need; many models do after `model.bind(logprobs=True)`.
    """

    def __init__(self, model: BaseChatModel | Runnable[list[BaseMessage], AIMessage]) -> None:
        self._model = model

    @property
    def name(self) -> str | None:
        """Kind and settings of the model, under which its replies are kept; None of a chain."""
        match self._model:
            case BaseChatModel() as model:
                return _model_name(model)
            case RunnableBinding(bound=BaseChatModel() as model, kwargs=settings):
                return _model_name(model, **settings)
        return None

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each conversation."""
        messages = [_messages(one) for one in conversations]
        with _unseen(len(messages)) as configs:
            replies = self._model.batch(messages, configs)  # type: ignore[arg-type]
        return [_reply(one) for one in replies]

    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """The same; the event loop goes on."""
        messages = [_messages(one) for one in conversations]
        with _unseen(len(messages)) as configs:
            replies = await self._model.abatch(messages, configs)  # type: ignore[arg-type]
        return [_reply(one) for one in replies]


def _model_name(model: BaseChatModel, **settings: object) -> str:
    """What tells a chat model from others: its kind, and a hash of its settings without secrets."""
    digest = sha256(model._get_llm_string(**settings).encode()).hexdigest()[:12]  # type: ignore[arg-type]
    return f"{model._llm_type} {digest}"


@contextmanager
def _callbacks(number: int) -> Iterator[list[Callbacks]]:
    with inner_configs(number) as configs:
        yield [ensure_config(one)["callbacks"] for one in configs]


@contextmanager
def _unseen(number: int) -> Iterator[list[RunnableConfig]]:
    with inner_configs(number) as configs:
        yield [{**one, "tags": [*(one.get("tags") or ()), *_UNSEEN]} for one in configs]


def _passages(documents: Sequence[Document], top_k: int) -> list[Passage]:
    return [to_passage(one) for one in documents[:top_k]]


def _placed(passages: Sequence[Passage]) -> list[Document]:
    """Documents that know their place, since compressors make new ones."""
    return [
        Document(
            id=passage.id,
            page_content=passage.text,
            metadata={
                # A score of an earlier stage is none of the compressor's.
                **{k: v for k, v in passage.metadata.items() if k != "relevance_score"},
                "title": passage.title,
                "source": passage.source,
                "place": place,
            },
        )
        for place, passage in enumerate(passages)
    ]


def _ranked(
    passages: Sequence[Passage], documents: Sequence[Document], top_k: int
) -> list[Passage]:
    for one in documents:
        if lost := [key for key in _RANKED if one.metadata.get(key) is None]:
            raise ConfigError(
                f"the compressor gives documents without {', '.join(lost)} in their "
                "metadata: give one that scores documents and keeps what they bring along"
            )
    kept = [passages[one.metadata["place"]] for one in documents]
    return best_first(kept, (float(one.metadata["relevance_score"]) for one in documents), top_k)


def _messages(conversation: Sequence[Message]) -> list[BaseMessage]:
    return [_MESSAGES[one.role](one.text) for one in conversation]


def _reply(message: BaseMessage) -> Reply:
    usage = getattr(message, "usage_metadata", None) or {}
    told = message.response_metadata.get("logprobs") or {}
    content = told.get("content") or [] if isinstance(told, dict) else []
    return Reply(
        text=str(message.text).strip(),
        tokens=tuple(Token(one["token"], min(0.0, float(one["logprob"]))) for one in content),
        prompt_tokens=usage.get("input_tokens", 0),
        new_tokens=usage.get("output_tokens", 0),
        finish="length" if message.response_metadata.get("finish_reason") == "length" else "stop",
    )
