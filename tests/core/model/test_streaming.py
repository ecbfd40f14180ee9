"""core/openrag_core/model/streaming.py: tokens on their way to a reader, one by one."""

import asyncio
from concurrent.futures import CancelledError, Future
from math import nan
from threading import Thread
from typing import Any

import pytest

from openrag_core import GenerationError, Passage
from openrag_core.model import TransformersGenerator
from openrag_core.model.decoding import Continuation, Prompt
from openrag_core.model.streaming import Texts
from openrag_core.ports import Piece, StreamingGenerator, TextStream
from tests.core.model.test_generator import Loaded
from tests.core.model.test_generator import trained as trained  # noqa: PLC0414  (a fixture)
from tests.core.model.typist import Typist, dictate

WAIT = 10


@pytest.fixture
def typist() -> Typist:
    return Typist()


def begin(typist: Typist, *prompts: Prompt) -> Texts[str]:
    """Texts whose whole is their place and what was written."""
    prompts = prompts or (Prompt([1], 99),)
    return Texts(typist, prompts, lambda n, one: f"{n}:{typist.text(one.ids)}")


def rest(texts: Texts[Any]) -> list[Piece[Any]]:
    pieces = []
    while (piece := texts.next()) is not None:
        pieces.append(piece)
    return pieces


def first(texts: Texts[Any]) -> Piece[Any]:
    piece = texts.next()
    assert piece is not None
    return piece


def test_what_is_written_can_be_read_at_once(typist: Typist) -> None:
    texts: TextStream[str] = begin(typist)
    typist.type("H")
    assert texts.next() == Piece(0, typist.tokens(Continuation([72], [-0.5], [[]]))[0], "H")
    typist.type("i")
    piece = texts.next()
    assert piece is not None
    assert (piece.text, piece.token.text, piece.result) == ("i", "i", None)
    typist.type("\0")
    last = texts.next()
    assert last is not None
    assert (last.text, last.token.special, last.result) == ("", True, "0:Hi")
    typist.done()
    assert texts.next() is None


def test_a_reader_who_is_slow_misses_nothing(typist: Typist) -> None:
    texts = begin(typist)
    typist.type("Hello\0")
    typist.done()
    pieces = rest(texts)
    assert [piece.text for piece in pieces] == ["H", "e", "l", "l", "o", ""]
    assert [piece.token.text for piece in pieces] == ["H", "e", "l", "l", "o", ""]
    assert [piece.result for piece in pieces] == [None] * 5 + ["0:Hello"]


def test_a_reader_who_is_fast_waits(typist: Typist) -> None:
    texts = begin(typist)
    got: Future[list[Piece[str]]] = Future()
    reader = Thread(target=lambda: got.set_result(rest(texts)))
    reader.start()
    for byte in b"Hello\0":
        typist.type(bytes([byte]))
    typist.done()
    assert "".join(piece.text for piece in got.result(WAIT)) == "Hello"
    reader.join()


def test_the_end_is_told_as_often_as_it_is_asked_for(typist: Typist) -> None:
    texts = begin(typist)
    typist.type("\0")
    typist.done()
    assert len(rest(texts)) == 1
    assert [texts.next(), texts.next()] == [None, None]
    assert asyncio.run(texts.anext()) is None


@pytest.mark.parametrize("written", ["", "He"])
def test_an_error_is_raised_after_what_was_written(typist: Typist, written: str) -> None:
    texts = begin(typist)
    typist.type(written)
    typist.future.set_exception(GenerationError("no memory"))
    assert [first(texts).text for _ in written] == list(written)
    for _ in range(2):
        with pytest.raises(GenerationError, match="no memory"):
            texts.next()


async def test_an_error_reaches_who_waits(typist: Typist) -> None:
    texts = begin(typist)
    waiting = asyncio.create_task(texts.anext())
    await asyncio.sleep(0)
    typist.future.set_exception(GenerationError("no memory"))
    with pytest.raises(GenerationError, match="no memory"):
        await waiting


def test_cancelling_wakes_the_reader(typist: Typist) -> None:
    texts = begin(typist)
    typist.type("He")
    texts.cancel()
    assert typist.future.cancelled()
    assert [piece.text for piece in rest(texts)] == ["H", "e"]
    texts.cancel()
    with pytest.raises(CancelledError):
        typist.future.result()


async def test_who_gives_up_waiting_loses_nothing(typist: Typist) -> None:
    texts = begin(typist)
    typist.type("a")
    given_up = asyncio.create_task(texts.anext())  # that piece is on its way
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert first(texts).text == "a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(texts.anext(), 0.001)
    typist.type("b\0")
    typist.done()
    assert [piece.text for piece in rest(texts)] == ["b", ""]


@pytest.mark.parametrize(
    "text",
    [
        "naïve",
        "日本語 で",
        "a 🦊 b",
        " \n two  words \n",
        "ends in ünd",
        "\N{REPLACEMENT CHARACTER}!",
    ],
)
def test_the_pieces_add_up_to_the_text_without_white_space_around_it(
    typist: Typist, text: str
) -> None:
    texts = begin(typist)
    typist.type(text + "\0")
    typist.done()
    pieces = rest(texts)
    assert "".join(piece.text for piece in pieces) == text.strip()
    shown = ""
    for piece in pieces:
        shown += piece.text
        assert text.strip().startswith(shown)
        assert shown == shown.strip()
    assert len(pieces) == len(text.encode()) + 1


def test_half_a_character_at_the_end_is_shown_as_it_is(typist: Typist) -> None:
    texts = begin(typist, Prompt([1], 3))
    typist.type(b"a\xe6\x97")
    assert [first(texts).text for _ in range(3)] == ["a", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_text_ends_at_its_limit_its_stop_and_where_numbers_are_none(typist: Typist) -> None:
    limit, stop = Prompt([1], 2), Prompt([1], 9, stop=lambda written: len(written.ids) == 3)
    texts = begin(typist, limit, stop, Prompt([1], 9))
    typist.type("abcd", place=0)
    typist.type("efgh", place=1)
    typist.type("ij", place=2, logprob=nan)
    typist.done()
    results = [piece.result for piece in rest(texts) if piece.result]
    assert results == ["0:ab", "1:efg", "2:i"]


def test_texts_that_are_written_together_are_told_apart(typist: Typist) -> None:
    texts = begin(typist, Prompt([1], 9), Prompt([2], 9))
    for a, b in zip("one\0", "two\0", strict=True):
        typist.type(a, place=0)
        typist.type(b, place=1)
    typist.done()
    pieces = rest(texts)
    assert [piece.place for piece in pieces] == [0, 1] * 4
    assert [piece.result for piece in pieces[-2:]] == ["0:one", "1:two"]
    for place, text in enumerate(("one", "two")):
        assert "".join(piece.text for piece in pieces if piece.place == place) == text


@pytest.mark.parametrize(
    ("before", "after", "shown", "result"),
    [
        ("He", "Hello\0", "Hello", "0:Hello"),
        ("Hello", "Hello\0", "Hello", "0:Hello"),
        ("Hello\0", "Hello\0", "Hello", "0:Hello"),
        ("Hello", "Hel\0", "Hello", "0:Hel"),  # other sums of floats, in a batch of another size
        ("Hello\0", "Hel\0", "Hello", "0:Hello"),
        ("", "Hi\0", "Hi", "0:Hi"),
    ],
)
def test_a_text_that_is_begun_anew_is_given_once(
    typist: Typist, before: str, after: str, shown: str, result: str
) -> None:
    texts = begin(typist)
    typist.type(before)
    typist.begin()
    typist.type(after)
    typist.done()
    pieces = rest(texts)
    assert "".join(piece.text for piece in pieces) == shown
    assert [piece.result for piece in pieces if piece.result] == [result]


def test_nothing_to_write_is_the_end(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained)
    assert isinstance(generator, StreamingGenerator)
    assert generator.begin_write("When?", []).next() is None


async def test_a_real_models_text_is_that_of_its_answer(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=24)
    evidence = [
        (Passage(id="b", title="Bridge", text="It opened in 1893."),),
        (Passage(id="f", text="The ferry left."), Passage(id="t", text="The tower is high.")),
    ]
    (expected,) = generator.write(["When?"], [evidence])
    pieces = rest(generator.begin_write("When?", evidence))
    results = {piece.place: piece.result for piece in pieces if piece.result}
    for place, written in enumerate(expected):
        assert results[place] == written
        own = [piece for piece in pieces if piece.place == place]
        assert tuple(piece.token for piece in own) == written.tokens
        assert "".join(piece.text for piece in own) == written.text.strip()
    stream = await generator.abegin_write("When?", evidence)
    assert len([piece async for piece in all_of(stream)]) == len(pieces)
    (draft,) = generator.draft(["When?"])
    assert rest(generator.begin_draft("When?"))[-1].result == draft
    drafted = [piece async for piece in all_of(await generator.abegin_draft("When?"))]
    assert "".join(piece.text for piece in drafted) == draft.text.strip() != ""


async def all_of(texts: Texts[Any]) -> Any:  # noqa: ANN401
    while (piece := await texts.anext()) is not None:
        yield piece


def test_a_real_model_that_computes_no_numbers_says_so(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained[0]
    forward, calls = model.forward, 0

    def poisoned(**inputs: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        output = forward(**inputs)
        if calls == 3:
            output.logits[:] = float("nan")
        return output

    monkeypatch.setattr(model, "forward", poisoned)
    stream = TransformersGenerator(*trained).begin_draft("When?")
    with pytest.raises(GenerationError, match=r"no number \(NaN\)"):
        rest(stream)
    assert calls == 3


def test_a_real_model_whose_memory_runs_out_begins_anew(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = [(Passage(id=str(n), text=f"Bridge {n} opened in 18{n}3."),) for n in range(4)]
    expected = TransformersGenerator(*trained, max_new_tokens=8).write(["When?"], [evidence])[0]
    model = trained[0]
    forward, calls = model.forward, 0

    def short(**inputs: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if len(inputs["input_ids"]) > 2 and calls > 4:
            raise MemoryError
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", short)
    pieces = rest(TransformersGenerator(*trained, max_new_tokens=8).begin_write("When?", evidence))
    for place, written in enumerate(expected):
        own = [piece for piece in pieces if piece.place == place]
        assert [piece.result.text for piece in own if piece.result] == [written.text]
        assert len(own) == len(written.tokens)
        assert "".join(piece.text for piece in own) == written.text.strip()


async def test_cancelling_frees_a_real_model(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=500)
    tokens: list[int] = []
    dictate(generator, [9], tokens.append)
    stream = generator.begin_draft("When?")
    assert stream.next() is not None
    stream.cancel()
    other = await generator.abegin_draft("Who?")
    assert await other.anext() is not None
    written = len(tokens)
    other.cancel()
    assert written < 450


async def test_a_task_that_is_cancelled_while_the_prompt_is_made_asks_for_nothing(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=500)
    asked: list[object] = []
    monkeypatch.setattr(generator, "submit", asked.append)
    for beginning in (
        generator.abegin_draft("When?"),
        generator.abegin_write("When?", [(Passage(id="p", text="x"),)]),
    ):
        task = asyncio.create_task(beginning)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    assert asked == []
