"""core/openrag_core/pipeline.py: which stage runs for which question, and in what order."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from threading import Barrier, Event
from typing import Any

import pytest

from openrag_core import (
    ConfigError,
    Decision,
    Draft,
    Gate,
    Generator,
    IndexNotFoundError,
    OpenRAG,
    Passage,
    QuestionError,
    Reranker,
    Retriever,
    ScoreWeights,
    Written,
)
from openrag_core.ports import Settled
from openrag_core.records import Evidence
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, reflected, tokens

BRIDGE = Passage(id="bridge", text="1893", title="Bridge", retrieval_score=0.9)
FERRY = Passage(id="ferry", text="1912", title="Ferry", retrieval_score=0.8)
TOWER = Passage(id="tower", text="1953", title="Tower", retrieval_score=0.7)
SURE, UNSURE = Draft("sure", tokens(0.9, 0.9)), Draft("unsure", tokens(0.9, 0.2))


def rag(generator: FakeGenerator | None = None, **settings: object) -> OpenRAG:
    found = FakeRetriever([BRIDGE, FERRY, TOWER])
    return OpenRAG(generator or FakeGenerator(), found, **settings)  # type: ignore[arg-type]


def test_the_fakes_satisfy_the_ports() -> None:
    assert isinstance(FakeGenerator(), Generator)
    assert isinstance(FakeRetriever([]), Retriever)
    assert isinstance(FakeReranker({}), Reranker)


def test_always_reads_without_a_draft() -> None:
    generator = FakeGenerator()
    answer = rag(generator).answer("When?")
    assert answer.text == "1893"
    assert [stage for stage, _ in generator.calls] == ["write"]
    assert (answer.decision.mode, answer.decision.value) == ("always", None)
    assert list(answer.seconds) == ["retrieve", "write"]


def test_never_reads_nothing() -> None:
    generator = FakeGenerator(drafts={"When?": UNSURE})
    pipeline = rag(generator, gate=Gate("never"))
    answer = pipeline.answer("When?")
    assert (answer.text, answer.grounded, answer.candidates) == ("unsure", False, ())
    assert pipeline.retriever.calls == []  # type: ignore[attr-defined]


def test_only_uncertain_questions_are_looked_up_and_all_together() -> None:
    generator = FakeGenerator(drafts={"a": SURE, "b": UNSURE, "c": SURE, "d": UNSURE})
    pipeline = rag(generator, gate=Gate("f_minp", 0.5))
    answers = pipeline.answer_many(["a", "b", "c", "d"])
    assert [answer.text for answer in answers] == ["sure", "1893", "sure", "1893"]
    assert [answer.question for answer in answers] == ["a", "b", "c", "d"]
    assert generator.calls == [("draft", ("a", "b", "c", "d")), ("write", ("b", "d"))]
    assert pipeline.retriever.calls == [(("b", "d"), 5)]  # type: ignore[attr-defined]
    assert answers[1].draft == UNSURE


def test_f_ret_drafts_only_what_it_does_not_look_up() -> None:
    asks = {"[Retrieval]": log(0.8), "[No Retrieval]": log(0.2)}
    knows = {"[Retrieval]": log(0.1), "[No Retrieval]": log(0.9)}
    generator = FakeGenerator(
        requests={"a": asks, "b": knows},
        drafts={"b": SURE},
        answers={p.id: reflected(p.text, rel=0.9, sup=0.9) for p in (BRIDGE, FERRY, TOWER)},
        reflection_trained=True,
    )
    answers = rag(generator, gate=Gate("f_ret", 0.5)).answer_many(["a", "b"])
    assert [answer.text for answer in answers] == ["1893", "sure"]
    assert answers[0].decision.value == pytest.approx(0.8)
    assert generator.calls == [("request", ("a", "b")), ("draft", ("b",)), ("write", ("a",))]


def test_f_ret_without_trained_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="f_minp"):
        rag(gate=Gate("f_ret"))


def test_the_reranker_chooses_among_more_passages() -> None:
    reranker = FakeReranker({"bridge": 0.2, "ferry": 0.6, "tower": 0.9})
    pipeline = rag(reranker=reranker, top_k=2, fetch_k=3)
    answer = pipeline.answer("When?")
    assert [p.id for p in answer.passages] == ["tower", "ferry"]
    assert answer.sources[0].retrieval_score == 0.7
    assert answer.candidates[0].score.rank == 0.9
    assert pipeline.retriever.calls == [(("When?",), 3)]  # type: ignore[attr-defined]


def test_below_the_rerankers_minimum_the_documents_do_not_tell() -> None:
    reranker = FakeReranker({"bridge": 0.2, "ferry": 0.3, "tower": 0.1})
    answer = rag(reranker=reranker).answer("When?")
    assert answer.abstained
    assert [source.id for source in answer.sources] == ["ferry", "bridge", "tower"]
    assert rag(reranker=reranker, min_relevance=0.25).answer("When?").text == "1912"


def test_a_bare_retrievers_scores_are_no_minimum() -> None:
    answer = rag().answer("When?")
    assert (answer.text, answer.grounded, answer.abstained) == ("1893", False, False)
    assert rag(min_relevance=0.5).answer("When?").grounded
    assert rag(min_relevance=0.95).answer("When?").abstained


def test_a_trained_model_judges_for_itself() -> None:
    generator = FakeGenerator(
        answers={
            "bridge": reflected("1893", rel=0.9, sup=0.1),
            "ferry": reflected("1912", rel=0.3, sup=0.9),
            "tower": reflected("1953", rel=0.8, sup=0.8),
        },
        reflection_trained=True,
    )
    answer = rag(generator, reranker=FakeReranker(dict.fromkeys(("bridge", "ferry", "tower"), 1)))
    got = answer.answer("When?")
    assert got.text == "1953"
    assert got.candidates[0].score.rel == pytest.approx(0.8)
    assert got.candidates[0].score.rank is None


def test_between_like_answers_the_order_of_the_passages_decides() -> None:
    answers = {
        "bridge": reflected("1893", rel=0.9, sup=0.9),
        "ferry": reflected("1912", rel=0.95, sup=0.9),
        "tower": reflected("1953", rel=0.1, sup=0.1),
    }
    generator = FakeGenerator(answers=answers, reflection_trained=True)
    reranker = FakeReranker({"tower": 0.9, "bridge": 0.8, "ferry": 0.7})
    assert rag(generator, reranker=reranker).answer("When?").text == "1893"
    released = rag(generator, reranker=reranker, weights=ScoreWeights())
    assert released.answer("When?").text == "1912"


def test_weights_can_be_set() -> None:
    generator = FakeGenerator(answers={"tower": tokens(0.99), "bridge": tokens(0.1)})
    assert rag(generator).answer("When?").passages[0].id == "bridge"
    by_seq = rag(generator, weights=ScoreWeights(rel=0, seq=1))
    assert by_seq.answer("When?").passages[0].id == "tower"


def test_nothing_found_is_an_answer_too() -> None:
    answer = OpenRAG(FakeGenerator(), FakeRetriever([])).answer("When?")
    assert answer.text == "The documents do not tell."


def test_passages_that_are_already_found_are_read() -> None:
    answer = rag(top_k=1).answer_from("When?", [TOWER, FERRY])
    assert (answer.text, len(answer.candidates)) == ("1912", 2)
    shut = Decision(retrieve=False, mode="f_minp", value=0.9, threshold=0.5)
    refused = rag().answer_from("When?", [], shut)  # no gate has asked for what is read
    assert (refused.abstained, refused.decision) == (True, Decision(True, "always"))


def test_foreign_passages_are_scored_anew() -> None:
    reranker = FakeReranker({"ferry": 0.6, "tower": 0.2})
    foreign = [replace(TOWER, retrieval_score=99.0), FERRY]
    answer = rag(reranker=reranker, top_k=1).answer_from("When?", foreign)
    assert (answer.text, answer.candidates[1].score.rank) == ("1912", 0.2)


def test_retrieve_gives_what_would_be_read() -> None:
    reranker = FakeReranker({"bridge": 0.2, "ferry": 0.6, "tower": 0.9})
    found = rag(reranker=reranker, top_k=1, fetch_k=3).retrieve("When?")
    assert [passage.id for passage in found] == ["tower"]


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_a_blank_question_is_refused_before_any_work(question: str) -> None:
    generator = FakeGenerator()
    with pytest.raises(QuestionError, match="empty"):
        rag(generator).answer_many(["When?", question])
    assert generator.calls == []


def test_what_is_no_unicode_is_refused() -> None:
    with pytest.raises(QuestionError, match="no Unicode character"):
        rag().answer("caf\udce9?")


def test_no_question_gives_no_answer() -> None:
    assert rag().answer_many([]) == []


@pytest.mark.parametrize(("top_k", "fetch_k"), [(0, 5), (6, 5), ("3", 5), (2.5, 5), (3, None)])
def test_numbers_that_contradict_each_other_are_refused(top_k: object, fetch_k: object) -> None:
    with pytest.raises(ConfigError, match=f"top_k={top_k!r}, fetch_k={fetch_k!r}"):
        rag(top_k=top_k, fetch_k=fetch_k)


def test_a_draft_may_stop_where_the_gate_says() -> None:
    gate = Gate("f_minp", 0.5)
    generator = FakeGenerator(drafts={"a": UNSURE})
    rag(generator, gate=gate).answer("a")
    assert generator.settled == [gate.settled]
    generator = FakeGenerator(drafts={"a": UNSURE})
    rag(generator, gate=Gate("never")).answer("a")
    assert generator.settled == [None]  # that draft is the answer


def test_joint_evidence_is_read_in_one_go() -> None:
    generator = FakeGenerator()
    answer = rag(generator, evidence="joint", top_k=2).answer("When?")
    assert len(answer.candidates) == 1
    assert answer.sources == answer.passages == (BRIDGE, FERRY)
    assert answer.candidates[0].score.rank == 0.9  # the better one's
    none = OpenRAG(FakeGenerator(), FakeRetriever([]), evidence="joint").answer("When?")
    assert none.text == "The documents do not tell."
    record = answer.to_dict()
    assert [p["id"] for p in record["candidates"][0]["passages"]] == ["bridge", "ferry"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": "f_minp"}, r"gate must be Gate\(\.\.\.\).* got 'f_minp'"),
        ({"weights": {"rel": 1.0}}, r"weights must be ScoreWeights\(\.\.\.\), got \{'rel': 1\.0\}"),
        ({"speculative": "no"}, "speculative must be True or False; got 'no'"),
    ],
)
def test_what_stands_for_a_part_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rag(**settings)


def test_an_unknown_form_of_evidence_is_refused() -> None:
    with pytest.raises(ConfigError, match="each, joint; got 'both'"):
        rag(evidence="both")


def test_the_answer_says_that_its_passage_was_cut() -> None:
    class Cutting(FakeGenerator):
        def _write(self, evidence: Evidence) -> Written:
            return replace(super()._write(evidence), truncated=evidence[0].id == "bridge")

    assert rag(Cutting()).answer("When?").truncated
    reranker = FakeReranker({"bridge": 0.6, "ferry": 0.9, "tower": 0.5})
    answer = rag(Cutting(), reranker=reranker).answer("When?")
    assert (answer.text, answer.truncated) == ("1912", False)
    assert [one["truncated"] for one in answer.to_dict()["candidates"]] == [False, True, False]


class Meeting:
    """A draft and a retrieval that wait for each other: they end only if they overlap."""

    def __init__(self, *, local: bool) -> None:
        self.local = local
        self.retriever = FakeRetriever({"a": [BRIDGE], "b": [TOWER]})
        self.generator = FakeGenerator(drafts={"a": SURE, "b": UNSURE})
        self.both = Barrier(2, timeout=10)

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        self.both.wait()
        return self.retriever.retrieve(questions, top_k)

    @property
    def reflection_trained(self) -> bool:
        return False

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        return self.generator.request(questions)

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        self.both.wait()
        return self.generator.draft(questions, settled)

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        return self.generator.write(questions, evidence)


@pytest.mark.parametrize(("local", "speculative"), [(True, None), (False, True)])
def test_retrieval_runs_while_the_draft_is_written(local: bool, speculative: bool | None) -> None:
    both = Meeting(local=local)
    pipeline = OpenRAG(both, both, gate=Gate("f_minp", 0.5), speculative=speculative)
    answers = pipeline.answer_many(["a", "b"])
    assert [answer.text for answer in answers] == ["sure", "1953"]
    assert both.retriever.calls == [(("a", "b"), 5)]
    again = asyncio.run(pipeline.aanswer_many(["a", "b"]))
    assert [answer.text for answer in again] == ["sure", "1953"]
    assert set(again[1].seconds) == {"draft", "retrieve", "write"}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"speculative": False}, [("b",)]),
        ({"gate": Gate("never"), "speculative": True}, []),
        ({"gate": Gate("always"), "speculative": True}, [("a", "b")]),
    ],
)
def test_nothing_is_retrieved_ahead_where_that_makes_no_sense(
    settings: dict[str, object], asked: list[tuple[str, ...]]
) -> None:
    generator = FakeGenerator(drafts={"a": SURE, "b": UNSURE})
    settings = {"gate": Gate("f_minp", 0.5)} | settings
    pipeline = rag(generator, **settings)
    pipeline.retriever.local = True  # type: ignore[attr-defined]
    pipeline.answer_many(["a", "b"])
    assert [q for q, _ in pipeline.retriever.calls] == asked  # type: ignore[attr-defined]


def test_a_retrieval_in_vain_may_fail() -> None:
    class Broken(FakeRetriever):
        local = True

        def retrieve(self, *_: object) -> list[list[Passage]]:
            raise IndexNotFoundError("nothing there")

    generator = FakeGenerator(drafts={"a": SURE, "b": UNSURE})
    pipeline = OpenRAG(generator, Broken([]), gate=Gate("f_minp", 0.5))
    assert pipeline.answer("a").text == "sure"
    assert asyncio.run(pipeline.aanswer("a")).text == "sure"
    with pytest.raises(IndexNotFoundError):
        pipeline.answer("b")


async def test_event_loops_get_the_same_from_every_door() -> None:
    pipeline = rag(top_k=2)
    assert [p.id for p in await pipeline.aretrieve("When?")] == ["bridge", "ferry"]
    assert (await pipeline.aanswer_from("When?", [TOWER])).text == "1953"
    with pytest.raises(QuestionError):
        await pipeline.aanswer_many([" "])


async def test_the_event_loop_goes_on_meanwhile() -> None:
    """The search waits for the loop, which would wait for the search if that blocked it."""
    going_on = Event()

    class Waiting(FakeRetriever):
        def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
            assert going_on.wait(10)
            return super().retrieve(questions, top_k)

    pipeline = OpenRAG(FakeGenerator(), Waiting([BRIDGE]))
    asyncio.get_running_loop().call_later(0.01, going_on.set)
    answers = await asyncio.gather(*(pipeline.aanswer("When?") for _ in range(3)))
    assert [answer.text for answer in answers] == ["1893"] * 3


def test_one_question_is_no_list_of_letters() -> None:
    with pytest.raises(QuestionError, match=r"'When\?' is one question: give a list"):
        rag().answer_many("When?")


def test_an_answer_can_be_written_as_json() -> None:
    reranker = FakeReranker({"bridge": 0.9, "ferry": 0.6, "tower": 0.1})
    record = json.loads(json.dumps(rag(reranker=reranker).answer("When?").to_dict()))
    assert record["answer"] == "1893"
    assert record["candidates"][0]["score"] == {
        "seq": pytest.approx(0.9),
        "rel": None,
        "sup": None,
        "use": None,
        "rank": 0.9,
        "reciprocal_rank": 1.0,
    }
    assert record["sources"][0]["title"] == "Bridge"
    assert record["gate"] == {
        "retrieve": True,
        "mode": "always",
        "value": None,
        "threshold": None,
        "probability": None,
    }


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        ("generator", "ChatGenerator"),
        ("retriever", "LangChainRetriever"),
        ("reranker", "LangChainReranker"),
        ("condenser", "ChatCondenser"),
    ],
)
def test_a_part_that_must_be_wrapped_is_refused_with_its_wrapper(name: str, wrapper: str) -> None:
    parts: dict[str, Any] = {"generator": FakeGenerator(), "retriever": FakeRetriever([])}
    with pytest.raises(ConfigError, match=rf"a object is no {name}: .* give {wrapper}"):
        OpenRAG(**{**parts, name: object()})
