"""Any LangChain chat model as the critic of training data."""

from __future__ import annotations

from hashlib import sha256

from langchain_core.language_models import BaseChatModel

from openrag_core.training import ChatCritic


def chat_model_critic(model: BaseChatModel, *, attempts: int = 5) -> ChatCritic:
    """Make a critic, for `build_dataset` or `openrag data build --critic MODULE:NAME`.

    Args:
        model: Asked with one message per passage; its own temperature should be 0.
        attempts: How often it is asked before giving up.
    """

    def ask(prompt: str) -> str:
        return str(model.invoke(prompt).text)

    settings = sha256(model._get_llm_string().encode()).hexdigest()[:12]
    return ChatCritic(ask, name=f"{model._llm_type} {settings}", attempts=attempts)
