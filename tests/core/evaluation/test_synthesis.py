"""core/openrag_core/evaluation/synthesis.py: questions are written, checked, graded and kept."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from openrag_core import ConfigError, EvaluationError, Passage
from openrag_core.cache import JsonCache
from openrag_core.evaluation import Price, Synthesizer, task
from openrag_core.evaluation.synthesis import draw, objection
from openrag_core.retrieval import Document, PassageIndex, Section
from openrag_core.training import read_questions
from tests.core.evaluation.chats import AsyncChat, ScriptedChat
from tests.core.retrieval.conftest import LetterEncoder, memory

FILLER = " ".join(["and so on"] * 10)


def passages(count: int, documents: int = 2) -> list[Passage]:
    return [
        Passage(
            f"p{n:02}", f"Bridge {n} opened in {1900 + n}. {FILLER}", f"T{n}", f"d{n % documents}"
        )
        for n in range(count)
    ]


def say(asked: str) -> str:
    """A question about the bridge; critiques like it, but for bridge 3."""
    found = re.search(r"Bridge (\d+) opened in (\d+)\. and", asked)
    if found and "BEGIN PASSAGE" in asked:
        return json.dumps({"question": f"When did bridge {found[1]} open?", "answer": found[2]})
    return json.dumps({"reason": "r", "grade": 2 if "bridge 3 " in asked else 5})


def writer(chat: ScriptedChat, **settings: object) -> Synthesizer:
    return Synthesizer(chat, longest_pause=0, **settings)  # type: ignore[arg-type]


def test_questions_are_written_in_the_layout_of_the_others(tmp_path: Path) -> None:
    chat = ScriptedChat(say)
    made = writer(chat, price=Price(1.0, 0.0)).synthesize(passages(6), 4)
    assert made.write(tmp_path / "q.jsonl") == 4
    for question in read_questions(tmp_path / "q.jsonl"):
        (gold,) = question.gold
        assert question.answers[0] in gold.text
        assert question.question.startswith("When did bridge ")
    rows = (tmp_path / "q.jsonl").read_text("utf-8").splitlines()
    assert {frozenset(json.loads(row)) for row in rows} == {
        frozenset({"id", "question", "answers", "gold", "gold_ids"})
    }
    known = {one.id for one in passages(6)}
    for example in task("faithfulness").read(tmp_path / "q.jsonl"):
        assert example.gold & known  # what an index finds is known as gold
    assert made.usage == made.paid
    assert made.summary()["usage"]["cost"] == pytest.approx(100 * len(chat.asked) / 1e6)
    with pytest.raises(EvaluationError, match="cannot be written"):
        made.write(tmp_path / "q.jsonl" / "under a file")


def test_what_was_dropped_is_counted_by_its_reason() -> None:
    made = writer(ScriptedChat(say)).synthesize([*passages(6), Passage("s", "Too short.")], 9)
    assert len(made.questions) == 5
    assert made.dropped == Counter({"passage too short": 1, "low stand-alone": 1})
    assert made.summary()["kept"] == 5


def test_duplicates_and_replies_of_no_use_are_dropped() -> None:
    def same(asked: str) -> str:
        if "BEGIN PASSAGE" not in asked:
            return say(asked)
        return "no idea" if "Bridge 1 " in asked else '{"question": "When?", "answer": "opened"}'

    made = writer(ScriptedChat(same), attempts=1).synthesize(passages(4), 9)
    assert len(made.questions) == 1
    assert made.dropped == Counter({"duplicate": 2, "no question in the reply": 1})
    low = writer(ScriptedChat(lambda a: say(a) if "PASSAGE" in a else "?"), attempts=1)
    assert low.synthesize(passages(2), 9).dropped == Counter({"no grade in the reply": 2})


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("When did bridge 1 open?", "1901", ""),
        ("When did bridge 1 open?", "In 1901.", ""),
        ("", "1901", "nothing to ask"),
        ("When did bridge 1 open?", "", "nothing to ask"),
        ("When did bridge 1 open?", "1902", "the answer is not in the passage"),
        ("When did bridge 1 open?", "190", "the answer is not in the passage"),
        ("When did bridge 1 open?", "?!", "the answer is not in the passage"),
        ("What opened in 1901 in 1901?", "1901", "the answer is in the question"),
        ("What does this passage say of bridge 1?", "1901", "the question refers to the passage"),
        (
            "When did it open, as the article above says?",
            "1901",
            "the question refers to the passage",
        ),
        ("\u6a4b\u306f\u3044\u3064?", "1901", ""),
        ("According to the document, when was it?", "1901", "the question refers to the passage"),
        ("Who sells the text editor of bridge 1?", "1901", ""),
        ("Which documents are needed for a visa?", "1901", ""),
    ],
)
def test_what_needs_no_model_is_checked_without(question: str, answer: str, reason: str) -> None:
    assert objection(question, answer, passages(2)[1]) == reason


def test_passages_are_drawn_evenly_and_by_the_seed_alone() -> None:
    lopsided = [
        *passages(9, documents=1),
        Passage("z1", "a", source="x"),
        Passage("z2", "b", source="x"),
    ]
    drawn = draw(lopsided, 7)
    assert Counter(one.source for one in drawn[:4]) == {"d0": 2, "x": 2}
    assert draw(lopsided[::-1], 7) == drawn
    assert draw(lopsided, 8) != drawn
    assert len(drawn) == 11
    assert len(draw([*lopsided, Passage("again", "a")], 7)) == 11


def test_the_cost_is_bounded() -> None:
    chat = ScriptedChat(lambda _: '{"question": null, "answer": null}')
    made = writer(chat).synthesize(passages(50), 2)
    assert made.dropped == Counter({"nothing to ask": 8})
    assert len(chat.asked) == 8
    writer(chat).synthesize(passages(50), 2, max_passages=3)
    assert len(chat.asked) == 11


@pytest.mark.parametrize("stop", range(1, 12))
def test_interrupted_anywhere_it_goes_on_and_pays_nothing_twice(stop: int, tmp_path: Path) -> None:
    whole = ScriptedChat(say)
    expected = writer(whole).synthesize(passages(6), 3)
    rest = stop

    def until(asked: str) -> str | BaseException:
        nonlocal rest
        rest -= 1
        return say(asked) if rest >= 0 else KeyboardInterrupt()

    cache = tmp_path / "cache.jsonl"
    first = ScriptedChat(until)
    with pytest.raises(KeyboardInterrupt):
        writer(first, concurrency=1, cache=JsonCache(cache)).synthesize(passages(6), 3)
    second = ScriptedChat(say)
    made = writer(second, cache=JsonCache(cache)).synthesize(passages(6), 3)
    assert made.questions == expected.questions
    assert made.usage == expected.usage
    assert stop + len(second.asked) == len(whole.asked) == made.usage.requests
    assert made.paid.requests == len(second.asked)


async def test_event_loops_write_the_same() -> None:
    chat = AsyncChat(say, pause=0.005)
    made = await writer(chat, concurrency=2).asynthesize(passages(6), 4)
    assert made.questions == writer(ScriptedChat(say)).synthesize(passages(6), 4).questions
    assert chat.most == 2


def test_an_index_is_drawn_from() -> None:
    index = PassageIndex(memory(), LetterEncoder())
    assert not list(index.passages())
    texts = [one.text for one in passages(3)]
    index.add_documents(Document(t, t, t, (Section("Bridges", t),)) for t in texts)
    made = writer(ScriptedChat(say)).synthesize(index, 3)
    assert {one.passage.text for one in made.questions} == set(texts)
    index.close()


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold must be one of 1, 2, 3, 4, 5"):
        writer(ScriptedChat(say), threshold=6)
    with pytest.raises(ConfigError, match="count and max_passages must be >= 1, got 0 and 0"):
        writer(ScriptedChat(say)).synthesize([], 0)


def test_scripts_without_spaces_are_asked_about_too() -> None:
    """Forty characters, about twenty words, of which none stands alone."""
    text = (
        "\u30f4\u30a7\u30ed\u30e9\u6a4b\u306f1901\u5e74\u306b\u30a2\u30ca\u5e02\u9577\u304c\u958b\u901a\u3055\u305b\u305f\u3002"
        * 2
    )
    question, answer = (
        "\u6a4b\u3092\u958b\u901a\u3055\u305b\u305f\u306e\u306f\u8ab0?",
        "\u30a2\u30ca\u5e02\u9577",
    )
    chat = ScriptedChat(lambda _: json.dumps({"question": question, "answer": answer}))
    assert objection(question, answer, Passage("p", text)) == ""
    assert objection(answer + "?", answer, Passage("p", text)) == "the answer is in the question"
    made = writer(chat, critiques=()).synthesize([Passage("p", text)], 1)
    assert [one.answer for one in made.questions] == [answer]
