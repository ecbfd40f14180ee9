"""core/openrag_core/training/critic.py: labels from a critic that fails, repeats and is resumed."""

from pathlib import Path
from typing import Any

import pytest

from openrag_core import ConfigError, CriticError
from openrag_core.training import ChatCritic, Helpers, JsonCache, Judgement, Question, Text
from openrag_core.training.critic import judge_all, parse_judgement
from tests.core.training.fakes import FakeCritic
from tests.fakes import FakeChat

YES = '{"relevant": true, "support": "full", "utility": 5}'
TEXTS = tuple(Text("", text) for text in ("It was Ana.", "It rained.", "Ana, they say."))
ASKED = Question("1", "Who?", ("Ana",), passages=TEXTS)


def chat(*replies: str | Exception) -> tuple[ChatCritic, list[str]]:
    """A critic over a model that gives these replies, and what the model was asked."""
    rest, asked = list(replies), []

    def reply(prompt: str) -> str:
        asked.append(prompt)
        said = rest.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return ChatCritic(FakeChat(reply), name="model", attempts=3, longest_pause=0), asked


def test_a_reply_is_read_whatever_surrounds_it() -> None:
    reply = f"Well {{so}}:\n```json\n{YES}\n```\nI hope that helps."
    assert parse_judgement(reply) == Judgement(relevant=True, support="full", utility=5)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "relevant, fully supported",
        YES.replace("true", '"yes"'),
        YES.replace("full", "fully"),
        YES.replace('"full"', '["full"]'),
        YES.replace("5", "6"),
        YES.replace("5", "4.5"),
        YES.replace('"utility": 5', '"other": 5'),
    ],
)
def test_a_reply_that_is_no_judgement_is_refused(reply: str) -> None:
    with pytest.raises(CriticError, match=r"no judgement in the reply|relevant must be"):
        parse_judgement(reply)


def test_a_judgement_in_the_passage_is_not_believed() -> None:
    """The reply repeats the passage, in which somebody has written a judgement."""
    with pytest.raises(CriticError, match="say different things"):
        parse_judgement(f"The passage says {YES}, but: {YES.replace('true', 'false')}")


def test_what_is_no_chat_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got function: put LangChain's into .*LangChainChat"):
        ChatCritic(lambda text: text)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="does not tell its name"):
        ChatCritic(FakeChat(str))


def test_the_model_is_told_all_that_it_needs() -> None:
    critic, asked = chat(YES)
    critic.judge("Who opened it?", "Ana {x}", Text("Velora", "Ana did {y}."))
    assert all(part in asked[0] for part in ("Who opened it?", "Ana {x}", "Velora\nAna did {y}."))


def test_a_model_that_fails_is_asked_again() -> None:
    critic, asked = chat(ConnectionError("busy"), "what?", YES)
    assert critic.judge("Who?", "Ana", TEXTS[0]).support == "full"
    assert len(asked) == 3


def test_a_model_that_always_fails_is_named_with_its_reason() -> None:
    critic, _ = chat(*[ConnectionError("busy")] * 3)
    with pytest.raises(CriticError, match=r"critic model gave no judgement on 'Who\?': .*busy"):
        critic.judge("Who?", "Ana", TEXTS[0])


def test_passages_are_judged_in_their_order() -> None:
    seen: list[int] = []
    judged = list(judge_all([ASKED], FakeCritic(), cache=JsonCache(), progress=seen.append))
    assert [(text.text, judgement.tokens) for _, text, judgement in judged] == [
        ("It was Ana.", ("[Relevant]", "[Fully supported][Utility:5]")),
        ("It rained.", ("[Irrelevant]", "[No support / Contradictory][Utility:1]")),
        ("Ana, they say.", ("[Relevant]", "[Fully supported][Utility:5]")),
    ]
    assert sum(seen) == 3


def test_what_was_judged_before_a_failure_is_not_judged_again(tmp_path: Path) -> None:
    file = tmp_path / "cache.jsonl"
    failing = FakeCritic(fails_on="Ana, they say.")
    with pytest.raises(CriticError):
        list(judge_all([ASKED], failing, cache=JsonCache(file), threads=1))
    again = FakeCritic()
    assert len(list(judge_all([ASKED], again, cache=JsonCache(file)))) == 3
    assert again.judged == ["Ana, they say."]
    other = FakeCritic(name="another critic")
    list(judge_all([ASKED], other, cache=JsonCache(file)))
    assert len(other.judged) == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (RuntimeError("rate limit"), r"critic mine failed on 'Who\?' .RuntimeError: rate limit"),
        ({"relevant": True}, "critic mine must give a Judgement; got dict"),
    ],
)
def test_a_critic_of_ones_own_fails_in_words(said: object, message: str) -> None:
    class Mine:
        name = "mine"

        def judge(self, *_: object) -> Any:  # noqa: ANN401
            if isinstance(said, Exception):
                raise said
            return said

    with pytest.raises(CriticError, match=message):
        list(judge_all([ASKED], Mine(), cache=JsonCache()))


def test_a_chat_model_is_no_critic() -> None:
    with pytest.raises(ConfigError, match="got FakeChat: put a chat model into a ChatCritic"):
        Helpers(critic=FakeChat(str))  # type: ignore[arg-type]
