"""The other direction: what LlamaIndex has, behind our ports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from hashlib import sha256
from inspect import getattr_static

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LogProb
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_openrag.messages import from_messages
from llamaindex_openrag.nodes import to_node, to_passage
from openrag_core import ConfigError, Passage, Token
from openrag_core.conversation import Message, Reply
from openrag_core.reranking.scored import best_first


class LlamaIndexRetriever:
    """Any LlamaIndex retriever; satisfies `Retriever`.

    Args:
        retriever: It finds as many nodes as it was made to; those beyond `top_k` are left out.
    """

    def __init__(self, retriever: BaseRetriever) -> None:
        self._retriever = retriever
        self._blocks = _inherits(retriever, BaseRetriever, "_aretrieve")

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """At most `top_k` passages of each question, in the retriever's order."""
        found = map(self._retriever.retrieve, questions)
        return [list(map(to_passage, nodes[:top_k])) for nodes in found]

    async def aretrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The same, all at once; the event loop goes on."""
        found = await asyncio.gather(*map(self._ask, questions))
        return [list(map(to_passage, nodes[:top_k])) for nodes in found]

    async def _ask(self, question: str) -> list[NodeWithScore]:
        if self._blocks:
            return await asyncio.to_thread(self._retriever.retrieve, question)
        return await self._retriever.aretrieve(question)


class LlamaIndexReranker:
    """Any LlamaIndex postprocessor that scores nodes; satisfies `Reranker`.

    Args:
        postprocessor: Its own `top_n` should not be below the pipeline's `top_k`.
        min_relevance: The score from which a passage counts as relevant; -inf where its scores
            cannot be compared between questions.
    """

    def __init__(self, postprocessor: BaseNodePostprocessor, *, min_relevance: float) -> None:
        self._postprocessor = postprocessor
        self.min_relevance = min_relevance

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first.

        Raises:
            ConfigError: The postprocessor gives no scores.
        """
        pairs = zip(questions, passages, strict=True)
        ranked = [
            self._postprocessor.postprocess_nodes(list(map(_copied, own)), QueryBundle(question))
            for question, own in pairs
        ]
        return [self._ranked(*pair, top_k) for pair in zip(passages, ranked, strict=True)]

    async def arerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The same, all at once; the event loop goes on."""
        ranked = await asyncio.gather(
            *(
                self._postprocessor.apostprocess_nodes(
                    list(map(_copied, own)), QueryBundle(question)
                )
                for question, own in zip(questions, passages, strict=True)
            )
        )
        return [self._ranked(*pair, top_k) for pair in zip(passages, ranked, strict=True)]

    def _ranked(
        self, passages: Sequence[Passage], nodes: Sequence[NodeWithScore], top_k: int
    ) -> list[Passage]:
        if any(one.score is None for one in nodes):
            raise ConfigError(
                f"{type(self._postprocessor).__name__} gives nodes no scores: only a "
                "postprocessor that scores them can rank passages"
            )
        by_id = {passage.id: passage for passage in passages}
        known = {passage.key: passage for passage in passages}
        given = [to_passage(one) for one in nodes]
        ours = [known.get(one.key) or by_id.get(one.id) or one for one in given]
        return best_first(ours, (one.retrieval_score or 0.0 for one in given), top_k)


def _copied(passage: Passage) -> NodeWithScore:
    """A node that a postprocessor may change, as some do, without changing the retriever's."""
    return to_node(passage).model_copy(deep=True)


class LlamaIndexChat:
    """Any LlamaIndex LLM; satisfies `ChatModel`.

    `ChatGenerator(LlamaIndexChat(llm))` answers with it, `ChatCondenser(LlamaIndexChat(llm))`
    makes questions of a conversation stand alone. Of an LLM that gives several likely tokens for
    a place, the first counts as the one that was written.

    Args:
        llm: Its own temperature should be 0; the gates "f_minp" and "f_meanp" need one that
            returns `logprobs`.
        concurrency: Most conversations that it is asked at once, >= 1.

    Raises:
        ConfigError: The number is below 1.
    """

    def __init__(self, llm: LLM, *, concurrency: int = 8) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}")
        self._llm = llm
        self._concurrency = concurrency
        asynchronous = "achat" if llm.metadata.is_chat_model else "acomplete"
        self._blocks = _inherits(llm, CustomLLM, asynchronous)

    @property
    def name(self) -> str | None:
        """Kind, name and a hash of the LLM's settings; None where it has no name."""
        if (named := self._llm.metadata.model_name) in {"", "unknown"}:
            return None
        settings = {k: v for k, v in self._llm.to_dict().items() if not k.endswith("key")}
        told = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
        return f"{self._llm.class_name()} {named} {sha256(told.encode()).hexdigest()[:12]}"

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """One reply to each conversation."""
        with ThreadPoolExecutor(self._concurrency) as threads:
            asked = [threads.submit(copy_context().run, self._ask, one) for one in conversations]
            return [future.result() for future in asked]

    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """The same; the event loop goes on."""
        turns = asyncio.Semaphore(self._concurrency)

        async def ask(conversation: Sequence[Message]) -> Reply:
            async with turns:
                if self._blocks:
                    return await asyncio.to_thread(self._ask, conversation)
                return await self._aask(conversation)

        return list(await asyncio.gather(*map(ask, conversations)))

    def _ask(self, conversation: Sequence[Message]) -> Reply:
        messages = from_messages(conversation)
        if self._llm.metadata.is_chat_model:
            return _said(self._llm.chat(messages))
        return _completed(self._llm.complete(self._prompt(messages), formatted=True))

    async def _aask(self, conversation: Sequence[Message]) -> Reply:
        messages = from_messages(conversation)
        if self._llm.metadata.is_chat_model:
            return _said(await self._llm.achat(messages))
        return _completed(await self._llm.acomplete(self._prompt(messages), formatted=True))

    def _prompt(self, messages: Sequence[ChatMessage]) -> str:
        written_out = self._llm.messages_to_prompt or messages_to_prompt
        return written_out(messages)


def _said(response: ChatResponse) -> Reply:
    return _reply(response.message.content, response.logprobs)


def _completed(response: CompletionResponse) -> Reply:
    return _reply(response.text, response.logprobs)


def _reply(text: str | None, logprobs: list[list[LogProb]] | None) -> Reply:
    written = [likely[0] for likely in logprobs or () if likely]
    tokens = tuple(Token(one.token, min(one.logprob, 0.0)) for one in written)
    return Reply((text or "").strip(), tokens, new_tokens=len(tokens))


def _inherits(part: object, base: type, method: str) -> bool:
    """Whether an asynchronous method is LlamaIndex's own, which only calls the blocking one."""
    return getattr_static(type(part), method) is getattr_static(base, method, None)
