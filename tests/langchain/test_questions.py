"""langchain_openrag/questions.py: what was said before a question is its history."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate

from langchain_openrag.questions import to_question
from openrag_core import Conversation, Message, QuestionError

ASKED = Conversation("When?", (Message("user", "Who?"), Message("assistant", "Ana")))
TURNS = [HumanMessage("Who?"), AIMessage("Ana")]


@pytest.mark.parametrize(
    "value",
    [
        {"question": "When?", "chat_history": TURNS},
        {"input": "When?", "chat_history": [("human", "Who?"), ("ai", "Ana")]},
        {"query": "When?", "history": [{"role": "user", "content": "Who?"}, AIMessage("Ana")]},
        {"messages": [*TURNS, HumanMessage("When?")]},
        [SystemMessage("Be brief."), *TURNS, HumanMessage("When?"), AIMessage("Later said.")],
        [
            HumanMessage("Who?"),
            AIMessage("", tool_calls=[{"name": "find", "args": {}, "id": "1"}]),
            ToolMessage("Ana", tool_call_id="1"),
            AIMessage("Ana"),
            HumanMessage("When?"),
        ],
        ChatPromptTemplate.from_messages([*TURNS, ("user", "{q}")]).invoke({"q": "When?"}),
    ],
)
def test_the_history_is_what_people_and_the_model_said_before(value: Any) -> None:  # noqa: ANN401
    assert to_question(value) == ASKED


@pytest.mark.parametrize(
    "value",
    [
        {"question": "When?", "chat_history": "Human: Who?\nAI: Ana"},
        {"question": HumanMessage("When?"), "chat_history": TURNS},
    ],
)
def test_the_forms_of_classic_chains_are_read(value: Any) -> None:  # noqa: ANN401
    assert to_question(value) == ASKED


@pytest.mark.parametrize(
    "value",
    [
        {"question": "When?", "chat_history": []},
        {"messages": "When?"},
        {"messages": HumanMessage("When?")},
        {"input": HumanMessage("When?")},
        "When?",
    ],
)
def test_a_question_without_history_stands_alone(value: object) -> None:
    assert to_question(value) == "When?"


def test_a_history_that_is_none_is_refused() -> None:
    with pytest.raises(QuestionError, match="what stands under messages are none"):
        to_question({"question": "When?", "chat_history": [{"text": "Who?"}]})
    with pytest.raises(QuestionError, match="no conversation in 'once upon"):
        to_question({"question": "When?", "chat_history": "once upon a time"})
    for history in ({"x": 1}, b"Human: Who?", 7):
        with pytest.raises(QuestionError, match="give a list"):
            to_question({"question": "When?", "chat_history": history})
    with pytest.raises(QuestionError, match=r"question, input, query as a string \(and chat_hist"):
        to_question({"chat_history": TURNS})
