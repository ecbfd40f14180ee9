"""core/openrag_core/model/chat.py: the generator, and its base, as chat models."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openrag_core import ConfigError, Message, QuestionError
from openrag_core.conversation import Reply
from openrag_core.model import BaseChat, TransformersChat, TransformersGenerator, chat, load
from openrag_core.prompts import encode, token_id
from tests.core.model.test_generator import FIXTURES, Loaded
from tests.core.model.test_generator import trained as trained  # noqa: PLC0414  (a fixture)
from tests.core.model.typist import dictate

ASKED = [Message("user", "Who built it?")]


@pytest.fixture
def generator(trained: Loaded) -> TransformersGenerator:
    return TransformersGenerator(*trained, max_new_tokens=40)


@pytest.fixture
def untrained() -> TransformersGenerator:
    """As a dense model, which is asked by its chat template."""
    model, tokenizer = load(FIXTURES / "tiny-a", dtype="float32")
    model.config.reflection_trained = False
    tokenizer.chat_template = "{% for m in messages %}<s>{{m.role}}: {{m.content}}{% endfor %}"
    return TransformersGenerator(model, tokenizer, max_new_tokens=8)


def letters(generator: TransformersGenerator, text: str) -> list[int]:
    """As many tokens as there are bytes, so that words are split."""
    tokenizer = generator.tokenizer
    ids = [id_ for letter in text for id_ in encode(tokenizer, [letter])]
    assert generator.text(ids) == text
    return ids


def streamed(chat: TransformersChat) -> tuple[list[str], Reply]:
    """The pieces of a reply, and the reply."""
    stream, pieces = chat.begin(ASKED), []
    while (piece := stream.next()) is not None:
        pieces.append(piece)
    assert [piece.result is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].result is not None
    return [piece.text for piece in pieces], pieces[-1].result


def test_a_reply_tells_what_was_read_and_written(generator: TransformersGenerator) -> None:
    (end,) = generator.ends
    dictate(generator, [*letters(generator, " Ana "), end])
    (reply,) = TransformersChat(generator).reply([ASKED])
    assert (reply.text, reply.finish, reply.new_tokens) == ("Ana", "stop", 6)
    assert [token.text for token in reply.tokens] == [*" Ana ", "</s>"]
    assert {token.logprob for token in reply.tokens} == {-0.25}
    assert reply.prompt_tokens == len(generator.prompts.drafting("Who built it?"))
    assert streamed(TransformersChat(generator)) == (["", "A", "n", "a", "", ""], reply)


def test_a_reply_that_is_cut_off_says_so(generator: TransformersGenerator) -> None:
    dictate(generator, letters(generator, "Ana"))
    (reply,) = TransformersChat(generator, max_new_tokens=5).reply([ASKED])
    assert (reply.text, reply.finish, reply.new_tokens) == ("AnaAn", "length", 5)
    assert TransformersChat(generator).reply([ASKED])[0].new_tokens == 40  # the generator's own


def test_reflection_tokens_are_no_part_of_the_text(generator: TransformersGenerator) -> None:
    first, last = (token_id(generator.tokenizer, t) for t in ("[Relevant]", "[Utility:5]"))
    dictate(generator, [first, *letters(generator, "Ana"), last, *generator.ends])
    pieces, reply = streamed(TransformersChat(generator))
    assert (reply.text, pieces) == ("Ana", ["", "A", "n", "a", "", ""])
    assert [token.special for token in reply.tokens] == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("stop", "written", "text", "tokens"),
    [
        (["END"], "a EN. b END c", "a EN. b", 11),
        (["END"], "END", "", 3),
        (["\n\n"], "one\ntwo\n\nthree", "one\ntwo", 9),
        (["\nUser:"], "\nUser: Why?", "", 6),  # white space that the text itself would lose
        (["END "], "b END c", "b", 6),
        (["Né"], "foo Né", "foo", 7),  # half of the é is no reason to show the N
        (["aab", "ab"], "xaab", "x", 4),
        (["b", "abc"], "xab", "xa", 3),
        (["."], "  Ana . ", "Ana", 7),
        (["\n"], "café\n", "café", 6),  # the é takes two tokens
    ],
)
def test_a_stop_text_ends_the_reply_and_no_part_of_it_is_shown(
    generator: TransformersGenerator, stop: list[str], written: str, text: str, tokens: int
) -> None:
    dictate(generator, letters(generator, written))
    talk = TransformersChat(generator, stop=stop)
    (reply,) = talk.reply([ASKED])
    assert (reply.text, reply.finish, reply.new_tokens) == (text, "stop", tokens)
    told = "".join(one.text for one in reply.tokens).replace("\ufffd" * 2, "é")
    assert told.strip() == text
    pieces, again = streamed(talk)
    assert ("".join(pieces), again) == (text, reply)


def test_the_beginning_of_a_stop_text_is_shown_once_it_is_none(
    generator: TransformersGenerator,
) -> None:
    dictate(generator, letters(generator, "a EN"))
    pieces, reply = streamed(TransformersChat(generator, stop=["END"], max_new_tokens=4))
    assert pieces == ["a", "", "", " EN"]
    assert (reply.text, reply.finish) == ("a EN", "length")
    dictate(generator, letters(generator, "EEND"))
    assert streamed(TransformersChat(generator, stop=["END"]))[0] == ["", "E", "", ""]


def test_a_trained_model_gets_several_turns_as_one_instruction(
    generator: TransformersGenerator,
) -> None:
    said = [
        Message("system", "Be brief."),
        Message("user", "Who?"),
        Message("assistant", "Ana."),
        Message("user", "When?"),
    ]
    prompt = generator.tokenizer.decode(generator.prompts.replying(said))
    assert "Be brief.\nUser: Who?\nAssistant: Ana.\nUser: When?" in str(prompt)
    alone = generator.prompts.replying(said[1:2])
    assert alone == generator.prompts.drafting("Who?")


def test_any_other_gets_them_by_its_template(untrained: TransformersGenerator) -> None:
    said = [Message("system", "Be brief."), Message("user", "Who?")]
    prompt = str(untrained.tokenizer.decode(untrained.prompts.replying(said)))
    assert prompt == "<s>system: Be brief.<s>user: Who?"
    assert TransformersChat(untrained).reply([said])[0].new_tokens <= 8


@pytest.mark.parametrize("said", [[], [Message("system", "Be brief.")]])
def test_a_conversation_in_which_nobody_asks_is_refused(
    generator: TransformersGenerator, said: list[Message]
) -> None:
    talk = TransformersChat(generator)
    with pytest.raises(QuestionError, match="add a user's message"):
        talk.reply([ASKED, said])
    with pytest.raises(QuestionError, match="add a user's message"):
        talk.begin(said)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1, got 0"),
        ({"stop": "END"}, "a list of texts.*'END'"),
        ({"stop": ["END", ""]}, "none of them empty"),
    ],
)
def test_impossible_settings_are_refused(
    generator: TransformersGenerator, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformersChat(generator, **settings)


async def test_a_conversation_that_is_too_long_is_refused(
    generator: TransformersGenerator,
) -> None:
    talk, long = TransformersChat(generator), [Message("user", "word " * 2000)]
    for begin in (lambda: talk.reply([long]), lambda: talk.begin(long)):
        with pytest.raises(QuestionError, match="the model holds 1024"):
            begin()
    with pytest.raises(QuestionError, match="the model holds 1024"):
        await talk.areply([long])
    with pytest.raises(QuestionError, match="the model holds 1024"):
        await talk.abegin(long)


async def test_conversations_are_replied_to_together(generator: TransformersGenerator) -> None:
    rows: list[int] = []
    dictate(generator, [*letters(generator, "Ana"), *generator.ends], rows.append)
    talk = TransformersChat(generator)
    replies = talk.reply([ASKED, [Message("user", "Who built the tower?")]])
    assert [reply.text for reply in replies] == ["Ana", "Ana"]
    assert rows == [2] * 4
    assert (await talk.areply([ASKED]))[0].text == "Ana"
    assert (talk.reply([]), await talk.areply([])) == ([], [])


async def test_a_cancelled_task_stops_the_model(generator: TransformersGenerator) -> None:
    running, loop = asyncio.Event(), asyncio.get_running_loop()
    rows: list[int] = []

    def on_token(number: int) -> None:
        rows.append(number)
        loop.call_soon_threadsafe(running.set)

    dictate(generator, letters(generator, "Ana"), on_token)
    talk = TransformersChat(generator, max_new_tokens=500)
    task = asyncio.create_task(talk.areply([ASKED]))
    await asyncio.wait_for(running.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await TransformersChat(generator, max_new_tokens=1).areply([ASKED])  # the model is free again
    assert len(rows) < 450


def test_a_checkpoint_that_does_not_tell_its_base_cannot_condense() -> None:
    with pytest.raises(ConfigError, match=r"tiny-a does not tell which dense model.*condenser="):
        BaseChat(FIXTURES / "tiny-a").reply([ASKED])


def test_the_base_keeps_to_the_limits_that_it_is_given(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "base_of", Path)
    monkeypatch.setattr(chat, "load", lambda _: (generator.model, generator.tokenizer))
    base = BaseChat("checkpoint", base="moved", max_new_tokens=3, max_batch_tokens=512)
    own = base._loaded()._generator
    assert (own.max_new_tokens, own._decoder.max_batch_tokens) == (3, 512)
    assert base.reply([ASKED])[0].new_tokens <= 3


async def test_the_base_is_loaded_once_by_whoever_asks_first(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[Path, object]] = []

    def remember(folder: Path, device: object) -> tuple[object, object]:
        loads.append((folder, device))
        return generator.model, generator.tokenizer

    monkeypatch.setattr(chat, "base_of", Path)
    monkeypatch.setattr(chat, "load", remember)
    base = BaseChat("checkpoint", base="moved", device="cpu")
    assert loads == []
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: base.reply([ASKED]), range(8)))
    assert loads == [(Path("checkpoint/moved"), "cpu")]
    (expected,) = TransformersChat(
        TransformersGenerator(generator.model, generator.tokenizer)
    ).reply([ASKED])
    assert {reply.text for (reply,) in replies} == {expected.text}
    assert (await base.areply([ASKED]))[0].text == expected.text
    assert len(loads) == 1
