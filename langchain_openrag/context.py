"""Any LangChain chat model writes the context of passages before they are indexed."""

from __future__ import annotations

from pathlib import Path

from langchain_core.language_models import BaseChatModel

from openrag_core.cache import JsonCache
from openrag_core.retrieval import ChatContext


def chat_model_context(
    model: BaseChatModel, *, name: str, cache: Path | None = None, threads: int = 8
) -> ChatContext:
    """Make a contextualizer, for `open_index(context=...)`.

    Args:
        model: Asked with one message per passage; `with_retry` makes it try again.
        name: Of the model; the index remembers it.
        cache: A file that keeps what was written, so that nothing is asked twice.
        threads: Most questions at once.
    """

    def ask(prompt: str) -> str:
        return str(model.invoke(prompt).text)

    return ChatContext(ask, name=name, cache=JsonCache(cache), threads=threads)
