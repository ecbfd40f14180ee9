"""langchain_openrag/critic.py: any chat model labels training data."""

from langchain_core.language_models import FakeListChatModel

from langchain_openrag.critic import chat_model_critic
from openrag_core.training import Helpers, Question, Text, build_dataset

YES = '{"relevant": true, "support": "partial", "utility": 4}'


def test_a_chat_model_judges_passages() -> None:
    critic = chat_model_critic(FakeListChatModel(responses=[f"Sure: {YES}"]))
    asked = Question("1", "Who?", ("Ana",), passages=(Text("Velora", "Ana was there."),))
    (row,) = build_dataset([asked], helpers=Helpers(critic=critic)).rows
    assert row.output == (
        "[Retrieval]<paragraph>Velora\nAna was there.</paragraph>"
        "[Relevant]Ana[Partially supported][Utility:4]"
    )


def test_models_are_told_apart_by_what_identifies_them() -> None:
    names = {
        chat_model_critic(FakeListChatModel(responses=responses)).name
        for responses in (["a"], ["b"], ["a"])
    }
    assert len(names) == 2
