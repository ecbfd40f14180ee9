"""langchain_openrag: what a stream gives and when, what tracers see, what can be configured."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from langchain_openrag import OpenRAGRunnable
from openrag_core import (
    ChatCondenser,
    ConfigError,
    Draft,
    Gate,
    Message,
    OpenRAG,
    Passage,
    Reply,
    ScoreWeights,
    Token,
)
from tests.fakes import (
    FakeGenerator,
    FakeReranker,
    FakeRetriever,
    FakeStreamingGenerator,
    reflected,
    tokens,
)

BRIDGE = Passage(id="b1", text="1893", title="Bridge", source="b.md", retrieval_score=0.5)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


class Scripted:
    """A chat model that says what stands behind the name of a bridge."""

    def reply(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        return [Reply("When was the bridge opened?") for _ in conversations]


def rag(**settings: Any) -> OpenRAG:
    generator = FakeGenerator(
        drafts={"sure": Draft("memory", tokens(0.9)), "unsure": Draft("maybe", tokens(0.2))}
    )
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2})
    return OpenRAG(generator, FakeRetriever([FERRY, BRIDGE]), reranker, **settings)


class Recorder(BaseTracer):
    """Keeps the root runs; their children hang on them."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)


def test_a_stream_gives_what_there_is_as_soon_as_it_is_there() -> None:
    runnable = OpenRAGRunnable(rag=rag(gate=Gate("f_minp", 0.5)))
    pieces: list[Any] = list(runnable.stream("unsure"))
    assert [list(piece) for piece in pieces] == [
        ["draft"],
        ["gate"],
        ["context"],
        ["candidates"],
        ["candidates"],
        ["question", "answer", "confidence", "probability", "grounded", "abstained", "truncated"],
    ]
    whole, at_once = reduce(add, pieces), runnable.invoke("unsure")
    assert whole == {
        **at_once,
        "context": whole["context"],  # scored before the answers were written
    }
    assert [one.id for one in whole["context"]] == [one.id for one in at_once["context"]]
    assert "".join(runnable.pick("answer").stream("unsure")) == "1893"


def test_a_stream_of_memory_adds_up_to_an_output() -> None:
    runnable = OpenRAGRunnable(rag=rag(gate=Gate("f_minp", 0.5)))
    pieces: list[Any] = list(runnable.stream("sure"))
    assert reduce(add, pieces) == runnable.invoke("sure")


def test_a_second_hop_adds_its_passages_to_the_context() -> None:
    class Chains(FakeRetriever):
        def extend(self, questions: Any, chains: Any, top_k: int) -> Any:  # noqa: ANN401, ARG002
            return [[(*chain, FERRY) for chain in own] for own in chains]

    partly = {"[Partially supported]": 0.0, "[Fully supported]": -9.0}
    said = {"[No support / Contradictory]": -9.0, **partly}
    answer = (
        *reflected("1893", rel=0.9),
        Token("[Partially supported]", 0.0, special=True, reflections=said),
    )
    generator = FakeGenerator(answers={"b1": answer}, reflection_trained=True)
    pipeline = OpenRAG(generator, Chains([BRIDGE]), hops="auto", top_k=1)
    whole: Any = reduce(add, list(OpenRAGRunnable(rag=pipeline).stream("When?")))
    assert [document.id for document in whole["context"]] == ["b1", "f1"]
    context = OpenRAGRunnable(rag=pipeline).invoke("When?")["context"]
    assert sorted(document.id or "" for document in context) == ["b1", "f1"]


def test_a_conversation_without_a_condenser_spoils_no_other() -> None:
    asked: Any = {"question": "When?", "chat_history": [("human", "Who?")]}
    first, second = OpenRAGRunnable(rag=rag()).batch([asked, "When?"], return_exceptions=True)
    assert isinstance(first, ConfigError)
    assert second["answer"] == "1893"


def test_a_stream_begins_before_anything_is_written() -> None:
    pipeline = rag()
    stream = OpenRAGRunnable(rag=pipeline).stream("When?")
    assert "gate" in next(stream)
    assert [one.id for one in next(stream)["context"]] == ["b1", "f1"]
    assert pipeline.generator.calls == []  # type: ignore[attr-defined]


def test_tokens_are_streamed_where_one_text_is_certain(bundled_rag: OpenRAG) -> None:
    runnable = OpenRAGRunnable(rag=bundled_rag, top_k=1)
    question = "Who opened the Velora Bridge?"
    texts = [piece["answer"] for piece in runnable.stream(question) if "answer" in piece]
    assert len([text for text in texts if text]) > 2
    assert "".join(texts) == runnable.invoke(question)["answer"] == "Mayor Ana Tolvik"


async def test_tokens_are_streamed_to_an_event_loop(bundled_rag: OpenRAG) -> None:
    runnable = OpenRAGRunnable(rag=bundled_rag, top_k=1)
    question = "Who opened the Velora Bridge?"
    texts = [one async for one in runnable.pick("answer").astream(question)]
    assert len([text for text in texts if text]) > 2
    assert "".join(texts) == "Mayor Ana Tolvik"


async def test_a_stream_that_is_left_stops_the_model(
    bundled_rag: OpenRAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    generator: Any = bundled_rag.generator
    submit = generator.submit

    def noted(prompts: Any) -> Any:  # noqa: ANN401
        begun.append(submit(prompts))
        return begun[-1]

    monkeypatch.setattr(generator, "submit", noted)
    runnable = OpenRAGRunnable(rag=replace(bundled_rag, gate=Gate("never")))
    stream = runnable.stream("Tell me all that you know about bridges.")
    assert next(piece["answer"] for piece in stream if "answer" in piece)
    stream.close()  # type: ignore[attr-defined]
    assert [one.cancelled() for one in begun] == [True]
    task = asyncio.ensure_future(runnable.ainvoke("Tell me all that you know about towers."))
    while len(begun) < 2:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun[1].cancelled()
    assert runnable.invoke("Hello?")["answer"]


async def test_events_of_astream_events_nest_the_stages() -> None:
    runnable = OpenRAGRunnable(rag=rag(gate=Gate("f_minp", 0.5)))
    events = [event async for event in runnable.astream_events("unsure", version="v2")]
    root = events[0]["run_id"]
    seen = [
        (event["event"], event["name"])
        for event in events
        if event["event"].endswith(("_start", "_end"))
    ]
    assert seen == [
        ("on_chain_start", "OpenRAGRunnable"),
        ("on_llm_start", "draft"),
        ("on_llm_end", "draft"),
        ("on_retriever_start", "retrieve"),
        ("on_retriever_end", "retrieve"),
        ("on_retriever_start", "rerank"),
        ("on_retriever_end", "rerank"),
        ("on_llm_start", "write"),
        ("on_llm_end", "write"),
        ("on_chain_end", "OpenRAGRunnable"),
    ]
    assert all(event["parent_ids"] == [root] for event in events if event["run_id"] != root)


async def test_events_of_astream_events_tell_the_text_as_it_is_written() -> None:
    answers = {"b1": tuple(Token(text, -0.1) for text in ("opened ", "in ", "1893"))}
    generator = FakeStreamingGenerator(answers=answers)
    runnable = OpenRAGRunnable(rag=OpenRAG(generator, FakeRetriever([BRIDGE])))
    written = [
        (event["name"], event["data"]["chunk"].text)
        async for event in runnable.astream_events("When?", version="v2")
        if event["event"] == "on_llm_stream"
    ]
    assert written == [("write", "opened "), ("write", "in "), ("write", "1893")]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_tracers_see_the_stages_of_each_question_with_what_they_came_to(
    asynchronous: bool,
) -> None:
    runnable = OpenRAGRunnable(rag=rag(gate=Gate("f_minp", 0.5)))
    recorders = [Recorder(), Recorder()]
    configs: Any = [{"callbacks": [recorder]} for recorder in recorders]
    if asynchronous:
        await runnable.abatch(["sure", "unsure"], configs)
    else:
        runnable.batch(["sure", "unsure"], configs)
    (sure,), (unsure,) = (recorder.roots for recorder in recorders)
    assert [child.name for child in sure.child_runs] == ["draft"]
    draft, retrieve, rerank, write = unsure.child_runs
    assert draft.outputs is not None
    assert draft.outputs["generations"][0][0]["text"] == "maybe"
    assert [d.page_content for d in (retrieve.outputs or {})["documents"]] == ["1912", "1893"]
    assert [d.metadata["relevance_score"] for d in (rerank.outputs or {})["documents"]] == [
        0.9,
        0.2,
    ]
    assert [g["text"] for g in (write.outputs or {})["generations"][0]] == ["1893", "1912"]
    assert all(
        run.end_time is not None and run.start_time <= run.end_time for run in unsure.child_runs
    )
    assert all(run.parent_run_id == unsure.id for run in unsure.child_runs)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stage_that_fails_ends_as_failed(asynchronous: bool) -> None:
    class Broken(FakeGenerator):
        def write(self, questions: Sequence[str], evidence: Any) -> Any:  # noqa: ANN401, ARG002
            raise RuntimeError("out of order")

    recorder = Recorder()
    runnable = OpenRAGRunnable(rag=OpenRAG(Broken(), FakeRetriever([BRIDGE])))
    config: Any = {"callbacks": [recorder]}
    if asynchronous:
        with pytest.raises(RuntimeError, match="out of order"):
            await runnable.ainvoke("When?", config)
    else:
        with pytest.raises(RuntimeError, match="out of order"):
            runnable.invoke("When?", config)
    (root,) = recorder.roots
    assert [bool(run.error) for run in root.child_runs] == [False, True]
    assert "out of order" in (root.error or "")


@pytest.mark.parametrize(
    ("configurable", "expected"),
    [
        ({}, {"mode": "always", "candidates": 2}),
        ({"gate": "never"}, {"mode": "never", "candidates": 0}),
        ({"gate": "f_minp", "threshold": 0.1}, {"mode": "f_minp", "candidates": 0}),
        ({"gate": "f_minp", "threshold": 0.9}, {"mode": "f_minp", "candidates": 2}),
        ({"top_k": 1}, {"mode": "always", "candidates": 1}),
        ({"top_k": 50}, {"mode": "always", "candidates": 2}),
    ],
)
def test_gate_threshold_and_top_k_can_be_configured(
    configurable: dict[str, Any], expected: Mapping[str, Any]
) -> None:
    runnable = OpenRAGRunnable(rag=rag()).configurable_fields(
        gate=ConfigurableField(id="gate"),
        threshold=ConfigurableField(id="threshold"),
        top_k=ConfigurableField(id="top_k"),
        weights=ConfigurableField(id="weights"),
    )
    output = runnable.invoke("unsure", {"configurable": configurable})
    assert (output["gate"]["mode"], len(output["candidates"])) == tuple(expected.values())
    batch = runnable.batch(["unsure", "unsure"], [{"configurable": configurable}, {}])
    assert [len(one["candidates"]) for one in batch] == [expected["candidates"], 2]


def test_weights_can_be_configured() -> None:
    answers = {"b1": reflected("1893", rel=0.9, use=0.1), "f1": reflected("1912", rel=0.6, use=0.9)}
    generator = FakeGenerator(answers=answers, reflection_trained=True)
    pipeline = OpenRAG(generator, FakeRetriever([BRIDGE, FERRY]), min_support=0.0)
    by_relevance = ScoreWeights(rel=1.0, sup=0.0, use=0.0, seq=0.0)
    by_utility = ScoreWeights(rel=0.0, sup=0.0, use=1.0, seq=0.0)
    chosen = [
        OpenRAGRunnable(rag=pipeline, weights=weights).invoke("When?")["answer"]
        for weights in (by_relevance, by_utility)
    ]
    assert chosen == ["1893", "1912"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold must be in"):
        OpenRAGRunnable(rag=rag(), gate="f_minp", threshold=7).invoke("When?")
    with pytest.raises(ConfigError, match="top_k"):
        OpenRAGRunnable(rag=rag(), top_k=0).invoke("When?")
    with pytest.raises(ValueError, match="topk"):
        OpenRAGRunnable(rag=rag(), topk=3)  # type: ignore[call-arg]


def test_a_conversation_is_condensed_into_the_question() -> None:
    runnable = OpenRAGRunnable(rag=rag(condenser=ChatCondenser(Scripted())))
    asked = {"question": "When?", "chat_history": [("human", "Who opened it?"), ("ai", "Ana")]}
    recorder = Recorder()
    assert runnable.invoke(asked, {"callbacks": [recorder]})["question"] == (
        "When was the bridge opened?"
    )
    assert recorder.roots[0].child_runs[0].name == "condense"
    first: Any = next(iter(runnable.stream(asked)))
    assert first == {"question": "When was the bridge opened?"}
    with pytest.raises(ConfigError, match="needs a condenser"):
        OpenRAGRunnable(rag=rag()).invoke(asked)


def test_it_falls_back_and_tries_again() -> None:
    calls: list[str] = []

    class Moody(FakeGenerator):
        def write(self, questions: Sequence[str], evidence: Any) -> Any:  # noqa: ANN401
            calls.append("write")
            if len(calls) % 2:
                raise RuntimeError("not now")
            return super().write(questions, evidence)

    moody = OpenRAGRunnable(rag=OpenRAG(Moody(), FakeRetriever([BRIDGE])))
    patient = moody.with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
    assert patient.invoke("When?")["answer"] == "1893"
    calls.clear()
    other = OpenRAGRunnable(rag=rag())
    assert moody.with_fallbacks([other]).invoke("When?")["grounded"]
