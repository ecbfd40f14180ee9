"""core/openrag_core/chat_generator.py: any chat model drafts and writes."""

import asyncio
from collections.abc import Sequence

import pytest

from openrag_core import (
    ChatGenerator,
    ConfigError,
    Gate,
    Generator,
    Message,
    OpenRAG,
    Passage,
    Token,
)
from openrag_core.conversation import Reply
from openrag_core.ports import StreamingGenerator
from openrag_core.prompts import READING
from openrag_core.records import Evidence
from tests.core.test_pipeline import BRIDGE, FERRY
from tests.fakes import FakeReranker, FakeRetriever, tokens


class Sage:
    """Knows what is said of the last line that it is told."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        self.heard: list[list[list[Message]]] = []

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        self.heard.append([list(one) for one in conversations])
        return [self._reply(one[-1].text) for one in conversations]

    def _reply(self, text: str) -> Reply:
        return next(reply for word, reply in self.replies.items() if word in text)


class Native(Sage):
    async def areply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        await asyncio.sleep(0)
        return [Reply(f"async {one.text}") for one in self.reply(conversations)]


def sage() -> Sage:
    return Sage(Bridge=Reply("1893", tokens(0.9)), Ferry=Reply("1912"), When=Reply("long ago"))


def test_it_is_a_generator_that_does_not_stream() -> None:
    assert isinstance(ChatGenerator(sage()), Generator)
    assert not isinstance(ChatGenerator(sage()), StreamingGenerator)


def test_a_draft_is_a_reply_to_the_bare_question() -> None:
    chat = sage()
    (draft,) = ChatGenerator(chat).draft(["When?"])
    assert (draft.text, draft.tokens) == ("long ago", ())
    assert chat.heard == [[[Message("user", "When?")]]]


def test_answers_are_written_in_one_call_and_keep_their_places() -> None:
    chat = sage()
    evidence: list[list[Evidence]] = [[(BRIDGE,), (FERRY, BRIDGE)], [], [(FERRY,)]]
    written = ChatGenerator(chat).write(["When?", "Why?", "Where?"], evidence)
    assert [[one.text for one in own] for own in written] == [["1893", "1893"], [], ["1912"]]
    assert [[one.evidence for one in own] for own in written] == [
        [(BRIDGE,), (FERRY, BRIDGE)],
        [],
        [(FERRY,)],
    ]
    assert [len(conversations) for conversations in chat.heard] == [3]
    assert written[0][0].tokens == tokens(0.9)
    system, user = chat.heard[0][1]
    assert system == Message("system", READING)
    assert user == Message("user", "Text: Ferry\n1912\n\nBridge\n1893\n\nQuestion: When?")


async def test_in_an_event_loop_the_chat_models_own_twin_is_asked() -> None:
    generator = ChatGenerator(Native(Bridge=Reply("1893"), When=Reply("long ago")))
    assert [draft.text for draft in await generator.adraft(["When?"])] == ["async long ago"]
    written = await generator.awrite(["When?"], [[(BRIDGE,)]])
    assert written[0][0].text == "async 1893"
    assert (await ChatGenerator(sage()).adraft(["When?"]))[0].text == "long ago"


def test_reflection_tokens_cannot_be_asked_for() -> None:
    generator = ChatGenerator(sage())
    with pytest.raises(ConfigError, match=r"f_ret.*f_minp"):
        generator.request(["When?"])
    with pytest.raises(ConfigError, match="f_ret"):
        OpenRAG(generator, FakeRetriever([BRIDGE]), gate=Gate("f_ret"))


def test_a_gate_that_compares_probabilities_needs_them() -> None:
    pipeline = OpenRAG(ChatGenerator(sage()), FakeRetriever([BRIDGE]), gate=Gate("f_minp"))
    with pytest.raises(ConfigError, match="does not tell the probabilities"):
        pipeline.answer("When?")
    unsure = Sage(When=Reply("long ago", tokens(0.9, 0.2)), Who=Reply("Ana", tokens(0.8)))
    pipeline = OpenRAG(ChatGenerator(unsure), FakeRetriever([]), gate=Gate("f_minp"))
    when, who = pipeline.answer_many(["When?", "Who?"])
    assert (when.decision.retrieve, who.decision.retrieve) == (True, False)
    assert [when.decision.value, who.decision.value] == pytest.approx([0.2, 0.8])


def test_an_empty_draft_is_one_without_confidence_and_fails_nobody() -> None:
    chat = Sage(When=Reply(""), Who=Reply("Ana", tokens(0.8)))
    pipeline = OpenRAG(ChatGenerator(chat), FakeRetriever([]), gate=Gate("f_minp"))
    when, who = pipeline.answer_many(["When?", "Who?"])
    assert (when.decision.retrieve, when.decision.value) == (True, 0.0)
    assert who.text == "Ana"


def test_the_reranker_chooses_among_its_answers_and_can_refuse_them() -> None:
    passages = [BRIDGE, FERRY]
    reranker = FakeReranker({"bridge": 0.3, "ferry": 0.8})
    pipeline = OpenRAG(ChatGenerator(sage()), FakeRetriever(passages), reranker=reranker)
    answer = pipeline.answer("When?")
    assert (answer.text, answer.grounded) == ("1912", True)
    assert answer.confidence == 0.0  # nothing is known of it
    assert [one.score.seq for one in answer.candidates] == [0.0, pytest.approx(0.9)]
    none = FakeReranker({"bridge": 0.3, "ferry": 0.4})
    refused = OpenRAG(ChatGenerator(sage()), FakeRetriever(passages), reranker=none)
    assert refused.answer("When?").abstained


def test_a_thought_is_no_answer_and_its_tokens_are_none_of_the_answers() -> None:
    thought = (Token("<think>", -9.0), Token("Hm.", -9.0), Token("</think>", -9.0))
    sure = Reply("<think>Hm.</think>\n1893", (*thought, Token("\n", -9.0), Token("1893", 0.0)))
    cut_off = Reply("<think>Hm.", thought[:2], finish="length")
    reranker = FakeReranker({"bridge": 0.9})
    told = OpenRAG(
        ChatGenerator(Sage(Bridge=sure, When=cut_off)),
        FakeRetriever([BRIDGE]),
        reranker=reranker,
        gate=Gate("f_minp"),
    ).answer("When?")
    assert (told.text, told.grounded, told.confidence) == ("1893", True, 1.0)
    assert told.decision.value == 0.0  # nothing was said
    silent = OpenRAG(ChatGenerator(Sage(Bridge=cut_off)), FakeRetriever([BRIDGE]), reranker)
    assert silent.answer("When?").abstained


def test_a_passage_without_a_title_is_its_text_alone() -> None:
    chat = sage()
    ChatGenerator(chat).write(["When?"], [[(Passage(id="p", text="The Ferry."),)]])
    assert chat.heard[0][0][1].text == "Text: The Ferry.\n\nQuestion: When?"
