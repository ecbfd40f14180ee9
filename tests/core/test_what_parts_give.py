"""core/openrag_core/steps.py, stages.py: parts that give something else than they are to."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from openrag_core import (
    ChatCondenser,
    ChatGenerator,
    ConfigError,
    Conversation,
    Draft,
    Gate,
    Message,
    OpenRAG,
    Passage,
    Reply,
)
from openrag_core.reranking.mixture import MixtureReranker
from openrag_core.retrieval import MultihopRetriever
from tests.core.test_pipeline import BRIDGE, FERRY, TOWER, UNSURE
from tests.fakes import (
    FakeChat,
    FakeGenerator,
    FakeReranker,
    FakeRetriever,
    FakeStreamingGenerator,
    FakeTexts,
    tokens,
)

Ask = Callable[[OpenRAG, Sequence[Any]], list[str]]
FOLLOW_UP = Conversation("And when?", (Message("user", "Who?"), Message("assistant", "Ana")))
QUESTIONS = ("one?", "two?", "three?")


@pytest.fixture(params=["thread", "event loop"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """The texts of the answers."""
    if request.param == "thread":
        return lambda rag, questions: [one.text for one in rag.answer_many(questions)]

    async def answers(rag: OpenRAG, questions: Sequence[Any]) -> list[str]:
        return [one.text for one in await asyncio.wait_for(rag.aanswer_many(questions), 10)]

    return lambda rag, questions: asyncio.run(answers(rag, questions))


class Gives:
    """Whatever it is asked, it gives the same; asked for as any part."""

    local = True
    reflection_trained = False
    min_relevance = 0.5

    def __init__(self, given: object) -> None:
        self.given = given

    def __call__(self, *_: object) -> Any:  # noqa: ANN401  (of any part)
        return self.given

    retrieve = rerank = extend = condense = reply = write = draft = request = __call__


class Losing(FakeChat):
    """Passes over what begins with "one"."""

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        return super().reply([own for own in conversations if "one" not in own[-1].text])


@pytest.mark.parametrize("gate", ["never", "f_minp"])
def test_a_chat_model_that_passes_over_a_conversation_answers_no_other_question(
    gate: Any,  # noqa: ANN401  (a mode)
    ask: Ask,
) -> None:
    rag = OpenRAG(ChatGenerator(Losing(str.upper)), FakeRetriever([BRIDGE]), gate=Gate(gate))
    message = r"Losing\.reply must give a list of 3, one for each .*; it gave a list of 2"
    with pytest.raises(ConfigError, match=message):
        ask(rag, QUESTIONS)


@pytest.mark.parametrize("count", [1, 3])
def test_a_chat_model_gives_a_reply_for_each_passage(count: int, ask: Ask) -> None:
    chat = Gives([Reply("1893")] * count)
    rag = OpenRAG(ChatGenerator(chat), FakeRetriever([BRIDGE, FERRY]))
    with pytest.raises(ConfigError, match=rf"Gives\.reply .* list of 2, .* a list of {count}"):
        ask(rag, ["When?"])


@pytest.mark.parametrize("given", [[[BRIDGE]], [[BRIDGE]] * 3, [[BRIDGE], None], None, "ab"])
@pytest.mark.parametrize("gate", [Gate(), Gate("f_minp")])
def test_a_retriever_gives_a_list_for_each_question(given: object, gate: Gate, ask: Ask) -> None:
    """One list more, searched while the gate decided, moved every question's to the next one."""
    generator = FakeGenerator(drafts={"a": UNSURE, "b": UNSURE})
    with pytest.raises(ConfigError, match=r"Gives\.retrieve must give a list "):
        ask(OpenRAG(generator, Gives(given), gate=gate), ["a", "b"])


def test_results_may_come_one_by_one_or_as_arrays(ask: Ask) -> None:
    def reranked(number: int) -> Gives:
        return Gives([(replace(one, rerank_score=0.9) for one in (BRIDGE, FERRY)[:number])])

    found = np.array([BRIDGE, FERRY], dtype=object)
    mixed = MixtureReranker([(reranked(2), 1.0)])
    rag = OpenRAG(FakeGenerator(), Gives(iter([found[[1, 0]]])), mixed, top_k=1)
    assert ask(rag, ["When?"]) == [FERRY.text]
    multihop = MultihopRetriever(FakeRetriever([BRIDGE, FERRY]), reranker=reranked(2))
    with pytest.raises(ConfigError, match="keep the ids"):  # they were read, not passed over
        multihop.chains(["When?"], 2)


def test_a_coroutine_is_no_list(ask: Ask) -> None:
    async def search() -> list[list[Passage]]:
        return [[BRIDGE]]

    found = search()
    with pytest.raises(ConfigError, match=r"Gives\.retrieve must .* it gave a coroutine"):
        ask(OpenRAG(FakeGenerator(), Gives(found)), ["When?"])
    found.close()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"reranker": Gives([])}, r"rerank .* list of 1,.* a list of 0"),
        ({"reranker": Gives([None])}, r"rerank .* list for each question,.* a NoneType"),
        ({"generator": Gives([[], []])}, r"write .* list of 1,.* a list of 2"),
        ({"generator": Gives([[]])}, r"write .* list of 2,.* a list of 0"),
        ({"condenser": Gives([])}, r"condense .* list of 1,.* a list of 0"),
        ({"condenser": ChatCondenser(Gives([]))}, r"reply .* list of 1,.* a list of 0"),
        ({"reranker": MixtureReranker([(Gives([]), 1)])}, r"rerank .* list of 1,.* of 0"),
    ],
)
def test_every_part_gives_as_many_as_it_is_asked_for(
    parts: dict[str, Any], message: str, ask: Ask
) -> None:
    usual: dict[str, Any] = {
        "generator": FakeGenerator(),
        "retriever": FakeRetriever([BRIDGE, FERRY]),
        "condenser": ChatCondenser(FakeChat(str.upper)),
    }
    with pytest.raises(ConfigError, match=rf"Gives\.{message}"):
        ask(OpenRAG(**{**usual, **parts}), [FOLLOW_UP])


@pytest.mark.parametrize("count", [1, 3])
def test_chains_get_what_was_found_for_them(count: int, ask: Ask) -> None:
    """A list too few ended the generator, one too many lengthened another chain."""

    class Second(FakeRetriever):
        def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
            found = super().retrieve(questions, top_k)
            return found if len(questions) == 1 else found[:1] * count

    rag = OpenRAG(FakeGenerator(), MultihopRetriever(Second([BRIDGE, FERRY])), hops=2)
    with pytest.raises(ConfigError, match=rf"Second\.retrieve .* list of 2, .* list of {count}"):
        ask(rag, ["When?"])


@pytest.mark.parametrize("gate", ["always", "never"])
def test_a_stream_that_ends_without_its_result_is_told_of(gate: Any) -> None:  # noqa: ANN401
    class Ending(FakeStreamingGenerator):
        def _stream(self, wholes: Sequence[Any]) -> FakeTexts[Any]:
            texts = super()._stream(wholes)
            texts.pieces = texts.pieces[:-1]
            return texts

    generator = Ending(drafts={"When?": Draft("x", tokens(0.9, 0.9))})
    rag = OpenRAG(generator, FakeRetriever([BRIDGE]), gate=Gate(gate))
    with pytest.raises(ConfigError, match=r"Ending\.begin_\w+ ended with 0 of 1 results"):
        list(rag.stream("When?"))


class Exhausted:
    """Asks for the next of nothing."""

    def __call__(self, *_: object) -> Any:  # noqa: ANN401  (of any part)
        return next(iter(()))

    retrieve = reply = __call__


def test_next_over_nothing_is_an_error_that_names_the_part(ask: Ask) -> None:
    """No future can hold it, so that event loops waited for ever."""
    with pytest.raises(ConfigError, match=r"Exhausted\.retrieve raised StopIteration"):
        ask(OpenRAG(FakeGenerator(), Exhausted()), ["When?"])
    chat = OpenRAG(ChatGenerator(Exhausted()), FakeRetriever([BRIDGE]))
    with pytest.raises(ConfigError, match=r"Exhausted\.reply raised StopIteration"):
        ask(chat, ["When?"])


UNSCORED = Gives([[replace(BRIDGE, retrieval_score=14.2)]])
CHAINS = MultihopRetriever(FakeRetriever([BRIDGE, FERRY]), reranker=UNSCORED)


@pytest.mark.parametrize(
    "parts",
    [
        {"reranker": UNSCORED},
        {"reranker": MixtureReranker([(UNSCORED, 1.0)])},
        {"retriever": CHAINS, "hops": 2},
    ],
)
def test_a_reranker_that_scores_nothing_is_refused(parts: dict[str, Any], ask: Ask) -> None:
    """The retriever's scores, which have no scale, were held against its minimum."""
    usual = {"generator": FakeGenerator(), "retriever": FakeRetriever([BRIDGE])}
    with pytest.raises(ConfigError, match=r"Gives\.rerank gave passages without a rerank_score"):
        ask(OpenRAG(**{**usual, **parts}), ["When?"])


def test_no_more_is_read_than_was_asked_for_whatever_a_reranker_gives() -> None:
    class Generous(FakeReranker):
        def rerank(
            self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
        ) -> list[list[Passage]]:
            return super().rerank(questions, passages, top_k + 2)

    reranker = Generous({"bridge": 0.7, "ferry": 0.9, "tower": 0.8})
    rag = OpenRAG(FakeGenerator(), FakeRetriever([BRIDGE, FERRY, TOWER]), reranker, top_k=2)
    assert [passage.id for passage in rag.answer("When?").passages] == ["ferry", "tower"]


@pytest.mark.parametrize("given", ["", " \n", None, "When was \ud83d it?"])
def test_a_condenser_gives_questions(given: str | None, ask: Ask) -> None:
    retriever = FakeRetriever([BRIDGE])
    rag = OpenRAG(FakeGenerator(), retriever, condenser=Gives([given]))
    with pytest.raises(ConfigError, match=r"Gives\.condense must give questions .* it gave "):
        ask(rag, [FOLLOW_UP])
    assert retriever.calls == []
