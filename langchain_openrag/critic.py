"""Any LangChain chat model as the critic of training data."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel

from langchain_openrag.ports import model_name
from openrag_core.training import ChatCritic


def chat_model_critic(model: BaseChatModel, *, attempts: int = 5) -> ChatCritic:
    """Make a critic, for `build_dataset` or `openrag data build --critic MODULE:NAME`.

    Args:
        model: Asked with one message per passage; its own temperature should be 0.
        attempts: How often it is asked before giving up.
    """

    def ask(prompt: str) -> str:
        return str(model.invoke(prompt).text)

    return ChatCritic(ask, name=model_name(model), attempts=attempts)
