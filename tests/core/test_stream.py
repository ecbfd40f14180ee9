"""core/openrag_core/pipeline.py, stages.py: what is told while questions are answered."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace
from itertools import count
from math import log

import pytest

from openrag_core import (
    Answer,
    ConfigError,
    Decision,
    Draft,
    Gate,
    OpenRAG,
    OpenRAGError,
    Passage,
    QuestionError,
    Token,
)
from openrag_core.events import (
    AnswerEvent,
    CandidateEvent,
    ContextEvent,
    DraftEvent,
    Event,
    GateEvent,
    StageEnded,
    StageStarted,
    TokenEvent,
    rest_of,
)
from openrag_core.ports import StreamingGenerator
from tests.core.test_pipeline import BRIDGE, FERRY, SURE, TOWER, UNSURE, Meeting
from tests.core.test_pipeline_hops import FakeChains, partly
from tests.fakes import (
    FakeGenerator,
    FakeReranker,
    FakeRetriever,
    FakeStreamingGenerator,
    reflected,
)

Door = Callable[[OpenRAG, str], list[Event]]
WORDS = (Token("18", log(0.9)), Token("93", log(0.8)))


async def gathered(events: AsyncGenerator[Event]) -> list[Event]:
    return [event async for event in events]


@pytest.fixture(params=["thread", "event loop"])
def stream(request: pytest.FixtureRequest) -> Door:
    """Everything that is told of one question."""
    if request.param == "thread":
        return lambda pipeline, question: list(pipeline.stream(question))
    return lambda pipeline, question: asyncio.run(gathered(pipeline.astream(question)))


def rag(
    generator: FakeGenerator, found: Sequence[Passage] = (BRIDGE,), **settings: object
) -> OpenRAG:
    return OpenRAG(generator, FakeRetriever(found), **settings)  # type: ignore[arg-type]


def writing(**answers: tuple[Token, ...]) -> FakeStreamingGenerator:
    return FakeStreamingGenerator(answers={"bridge": WORDS} | answers)


def trained(rel: float, sup: float) -> FakeStreamingGenerator:
    return FakeStreamingGenerator(
        answers={"bridge": reflected("1893", rel=rel, sup=sup)}, reflection_trained=True
    )


def outline(events: Sequence[Event]) -> list[str]:
    """Kinds of events in their order, with the names of stages and the text of tokens."""
    names = []
    for event in events:
        match event:
            case StageStarted(stage):
                names.append(f"{stage}(")
            case StageEnded(stage):
                names.append(f"){stage}")
            case TokenEvent(text=text):
                names.append(text)
            case _:
                names.append(type(event).__name__.removesuffix("Event"))
    return names


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TokenEvent))


def conclusion(events: Sequence[Event]) -> Answer:
    last = events[-1]
    assert isinstance(last, AnswerEvent)
    assert sum(isinstance(event, AnswerEvent) for event in events) == 1
    return last.answer


def same(answer: Answer, other: Answer) -> bool:
    """But for the time that it took."""
    return replace(answer, seconds={}) == replace(other, seconds={})


def test_the_fake_satisfies_the_port() -> None:
    assert isinstance(writing(), StreamingGenerator)
    assert not isinstance(FakeGenerator(), StreamingGenerator)


def test_everything_is_told_in_the_order_in_which_it_happens(stream: Door) -> None:
    pipeline = rag(writing(), reranker=FakeReranker({"bridge": 0.9}))
    events = stream(pipeline, "When?")
    assert outline(events) == [
        "Gate",
        *("retrieve(", ")retrieve", "rerank(", ")rerank"),
        "Context",
        *("write(", "18", "93", "Candidate", ")write"),
        "Answer",
    ]
    assert same(conclusion(events), pipeline.answer("When?"))
    assert conclusion(events).text == text(events) == "1893"
    (context,) = (event for event in events if isinstance(event, ContextEvent))
    assert [(p.id, p.rerank_score) for p in context.passages] == [("bridge", 0.9)]


def test_nothing_happens_before_it_is_asked_for() -> None:
    pipeline = rag(generator := writing())
    events = pipeline.stream("When?")
    next(events)
    assert pipeline.retriever.calls == []  # type: ignore[attr-defined]
    while not isinstance(next(events), ContextEvent):
        pass
    assert len(pipeline.retriever.calls) == 1  # type: ignore[attr-defined]
    assert generator.calls == []
    events.close()
    assert generator.calls == []


def test_of_several_passages_no_text_is_shown_for_the_best_is_not_known(stream: Door) -> None:
    pipeline = rag(writing(), [BRIDGE, FERRY, TOWER], top_k=2)
    events = stream(pipeline, "When?")
    assert text(events) == ""
    candidates = [event.candidate for event in events if isinstance(event, CandidateEvent)]
    assert [candidate.text for candidate in candidates] == ["1912", "1893"]  # as they are done
    assert [candidate.score.reciprocal_rank for candidate in candidates] == [1 / 2, 1]
    assert [candidate.text for candidate in conclusion(events).candidates] == ["1893", "1912"]
    (written,) = (e.results for e in events if isinstance(e, StageEnded) and e.stage == "write")
    assert [one.text for one in written[0]] == ["1893", "1912"]  # type: ignore[attr-defined]
    assert same(conclusion(events), pipeline.answer("When?"))


def test_passages_that_are_read_together_are_one_text(stream: Door) -> None:
    events = stream(rag(writing(), [BRIDGE, FERRY], evidence="joint"), "When?")
    assert text(events) == conclusion(events).text == "1893"


@pytest.mark.parametrize(("rel", "shown"), [(0.6, "1893"), (0.4, "")])
def test_a_trained_model_calls_the_passage_relevant_before_it_is_shown(
    stream: Door, rel: float, shown: str
) -> None:
    events = stream(rag(trained(rel, sup=0.9)), "When?")
    assert text(events) == shown
    assert conclusion(events).abstained == (shown == "")


@pytest.mark.parametrize(("score", "shown"), [(0.5, "1893"), (0.49, "")])
def test_otherwise_the_rerankers_score_is_known_before(
    stream: Door, score: float, shown: str
) -> None:
    events = stream(rag(writing(), reranker=FakeReranker({"bridge": score})), "When?")
    assert text(events) == shown
    assert conclusion(events).abstained == (shown == "")


def test_what_turns_out_to_be_unsupported_is_taken_back(stream: Door) -> None:
    events = stream(rag(trained(rel=0.9, sup=0.1)), "When?")
    answer = conclusion(events)
    assert (text(events), answer.abstained) == ("1893", True)
    assert rest_of(answer.text, text(events)) == f"\n\n{answer.text}"


@pytest.mark.parametrize(
    ("answer", "streamed", "rest"),
    [("1893", "", "1893"), ("1893", "18", "93"), ("1893", "1893", ""), ("No.", "18", "\n\nNo.")],
)
def test_the_rest_of_an_answer(answer: str, streamed: str, rest: str) -> None:
    assert rest_of(answer, streamed) == rest


def test_a_draft_that_is_the_answer_is_shown(stream: Door) -> None:
    generator = FakeStreamingGenerator(drafts={"When?": Draft("1893", WORDS)})
    pipeline = rag(generator, gate=Gate("never"))
    events = stream(pipeline, "When?")
    assert outline(events) == ["Gate", "draft(", "18", "93", ")draft", "Draft", "Answer"]
    assert text(events) == conclusion(events).text
    assert same(conclusion(events), pipeline.answer("When?"))
    assert [method for method, _ in generator.calls] == ["begin_draft", "draft"]


@pytest.mark.parametrize(("asks", "shown"), [(0.8, "read"), (0.2, "known")])
def test_f_ret_is_asked_before_anything_is_shown(stream: Door, asks: float, shown: str) -> None:
    request = {"[Retrieval]": log(asks), "[No Retrieval]": log(1 - asks)}
    generator = FakeStreamingGenerator(
        requests={"When?": request},
        drafts={"When?": Draft("known", (Token("known", 0.0),))},
        answers={"bridge": reflected("read", rel=0.9, sup=0.9)},
        reflection_trained=True,
    )
    events = stream(rag(generator, gate=Gate("f_ret")), "When?")
    assert text(events) == conclusion(events).text == shown
    (gate,) = (event for event in events if isinstance(event, GateEvent))
    assert gate.decision.value == pytest.approx(asks)
    assert any(isinstance(event, DraftEvent) for event in events) == (shown == "known")


@pytest.mark.parametrize(("draft", "shown"), [(SURE, ""), (UNSURE, "1893")])
def test_a_draft_that_may_be_thrown_away_is_not_shown(
    stream: Door, draft: Draft, shown: str
) -> None:
    generator = writing()
    generator.drafts = {"When?": draft}
    events = stream(rag(generator, gate=Gate("f_minp", 0.5)), "When?")
    assert text(events) == shown
    assert conclusion(events).text == (shown or "sure")
    assert [event.draft for event in events if isinstance(event, DraftEvent)] == [draft]


def test_a_chain_is_one_text(stream: Door) -> None:
    pipeline = OpenRAG(writing(), FakeChains([BRIDGE, TOWER]), hops=2, top_k=1)
    events = stream(pipeline, "When?")
    assert text(events) == conclusion(events).text == "1893"
    assert [p.id for p in conclusion(events).sources] == ["bridge", "tower"]
    assert outline(events).count("hops(") == 1


def test_where_another_hop_may_follow_nothing_is_shown(stream: Door) -> None:
    generator = FakeStreamingGenerator(
        answers={"bridge": partly("1893", 0.9)}, reflection_trained=True
    )
    pipeline = OpenRAG(generator, FakeChains([BRIDGE]), hops="auto")
    events = stream(pipeline, "When?")
    assert text(events) == ""
    assert outline(events)[4:] == [
        *("write(", "Candidate", ")write", "hops(", ")hops", "Context"),
        *("write(", "Candidate", ")write", "Answer"),
    ]
    assert same(conclusion(events), pipeline.answer("When?"))


def test_where_nothing_is_found_nothing_is_shown(stream: Door) -> None:
    for evidence in ("each", "joint"):
        events = stream(rag(writing(), [], evidence=evidence), "When?")
        assert (text(events), conclusion(events).abstained) == ("", True)


def test_a_generator_that_does_not_stream_gives_the_same_answer(stream: Door) -> None:
    generator = FakeGenerator(answers={"bridge": WORDS})
    events = stream(rag(generator), "When?")
    assert (text(events), conclusion(events).text) == ("", "1893")
    assert outline(events)[-4:] == ["write(", ")write", "Candidate", "Answer"]


def test_questions_are_named_by_their_places() -> None:
    generator = FakeStreamingGenerator(drafts={"a": SURE, "b": UNSURE, "c": SURE, "d": UNSURE})
    pipeline = rag(generator, [BRIDGE, FERRY], gate=Gate("f_minp", 0.5))
    events = list(pipeline.stream_many(["a", "b", "c", "d"]))
    stages = [(e.stage, e.questions) for e in events if isinstance(e, StageStarted)]
    assert stages == [("draft", (0, 1, 2, 3)), ("retrieve", (1, 3)), ("write", (1, 3))]
    assert stages == [(e.stage, e.questions) for e in events if isinstance(e, StageEnded)]
    told = {
        kind: [e.question for e in events if isinstance(e, kind)]
        for kind in (DraftEvent, GateEvent, ContextEvent, CandidateEvent, AnswerEvent)
    }
    assert told == {
        DraftEvent: [0, 1, 2, 3],
        GateEvent: [0, 1, 2, 3],
        ContextEvent: [1, 3],
        CandidateEvent: [1, 1, 3, 3],
        AnswerEvent: [0, 1, 2, 3],
    }
    answers = [event.answer for event in events if isinstance(event, AnswerEvent)]
    alone = pipeline.answer_many(["a", "b", "c", "d"])
    assert all(same(*pair) for pair in zip(answers, alone, strict=True))
    again = asyncio.run(gathered(pipeline.astream_many(["a", "b", "c", "d"])))
    assert outline(again) == outline(events)


def test_only_one_question_is_shown_live() -> None:
    pipeline = rag(generator := writing())
    with pytest.raises(ConfigError, match="one question can be shown live, not 2"):
        list(pipeline.stream_many(["a", "b"], live=True))
    assert text(list(pipeline.stream_many(["a"]))) == ""
    assert text(list(pipeline.stream_many(["a"], live=True))) == "1893"
    assert [method for method, _ in generator.calls] == ["write", "begin_write"]
    with pytest.raises(QuestionError, match="give a list"):
        list(pipeline.stream_many("When?", live=True))


def test_a_stage_tells_how_long_it_took_and_what_came_of_it(
    stream: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=2)
    monkeypatch.setattr("openrag_core.stages.perf_counter", lambda: float(next(clock)))
    pipeline = rag(writing(), reranker=FakeReranker({"bridge": 0.9}))
    events = stream(pipeline, "When?")
    ends = {event.stage: event for event in events if isinstance(event, StageEnded)}
    assert {stage: end.seconds for stage, end in ends.items()} == {
        "retrieve": 2.0,
        "rerank": 2.0,
        "write": 2.0,
    }
    assert conclusion(events).seconds == {stage: end.seconds for stage, end in ends.items()}
    assert ends["retrieve"].results == ([BRIDGE],)
    assert ends["rerank"].results == ([replace(BRIDGE, rerank_score=0.9)],)
    assert [one.text for one in ends["write"].results[0]] == ["1893"]  # type: ignore[attr-defined]


def test_a_search_that_was_made_ahead_is_told_after_the_gate() -> None:
    both = Meeting(local=True)
    pipeline = OpenRAG(both, both, gate=Gate("f_minp", 0.5))
    events = list(pipeline.stream("b"))
    assert outline(events)[:6] == ["draft(", ")draft", "Draft", "Gate", "retrieve(", ")retrieve"]
    end = events[5]
    assert isinstance(end, StageEnded)
    assert end.results == ([TOWER],)
    assert end.seconds == conclusion(events).seconds["retrieve"] > 0
    assert "retrieve(" not in outline(list(pipeline.stream("a")))  # in vain


def test_given_passages_are_read_without_gate_and_search() -> None:
    pipeline = rag(writing(), [FERRY], reranker=FakeReranker({"bridge": 0.9, "tower": 0.1}))
    decision = Decision(retrieve=True, mode="f_minp", value=0.2, threshold=0.5)
    events = list(pipeline.stream_from("When?", [TOWER, BRIDGE], decision))
    assert outline(events) == [
        *("rerank(", ")rerank", "Gate", "Context"),
        *("write(", "Candidate", "Candidate", ")write"),
        "Answer",
    ]
    answer = pipeline.answer_from("When?", [TOWER, BRIDGE], decision)
    assert same(conclusion(events), answer)
    assert answer.decision == decision
    assert pipeline.retriever.calls == []  # type: ignore[attr-defined]
    one = asyncio.run(gathered(pipeline.astream_from("When?", [BRIDGE])))
    assert text(one) == conclusion(one).text == "1893"
    assert conclusion(list(pipeline.stream_from("When?", []))).abstained


def test_a_stage_that_fails_has_no_end(stream: Door) -> None:
    class Broken(FakeStreamingGenerator):
        def begin_write(self, *_: object) -> object:  # type: ignore[override]
            raise OpenRAGError("no memory")

    told: list[Event] = []

    def listen(events: Generator[Event]) -> None:
        told.extend(events)

    pipeline = rag(Broken())
    with pytest.raises(OpenRAGError, match="no memory"):
        stream(pipeline, "When?")
    with pytest.raises(OpenRAGError, match="no memory"):
        listen(pipeline.stream("When?"))
    assert outline(told)[-2:] == ["Context", "write("]
