"""core/openrag_core/evaluation/{run,results,summary}.py: one pass, interrupted anywhere."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from filelock import FileLock

from openrag_core import (
    ConfigError,
    Draft,
    EvaluationError,
    OpenRAG,
    Passage,
    QuestionError,
    Token,
)
from openrag_core.evaluation import evaluate, mean_with_interval, read_results, summarise
from openrag_core.ports import Settled
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, reflected, tokens

COUNT = 7
PASSAGES = [{"id": "b", "title": "B", "text": "right"}, {"id": "a", "title": "A", "text": "wrong"}]
ASKED = [f"question {n}" for n in range(COUNT)]


def draft(question: str) -> Draft:
    """A wrong one, less certain from question to question."""
    return Draft("guess", tokens(0.9 - ASKED.index(question) / 10, 0.5))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"id": f"q{n}", "question": text, "answers": ["right"], "ctxs": PASSAGES, "s_pop": n}
        for n, text in enumerate(ASKED)
    ]
    rows[0]["type"] = "first"
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def rag() -> OpenRAG:
    generator = FakeGenerator(drafts={text: draft(text) for text in ASKED})
    return OpenRAG(generator, FakeRetriever([]), reranker=FakeReranker({"a": 0.1, "b": 0.9}))


class ChainedRetriever(FakeRetriever):
    """One that finds chains, in principle."""

    def extend(self, questions: Any, chains: Any, top_k: int) -> Any:  # noqa: ANN401
        raise NotImplementedError


def results(folder: Path) -> list[dict[str, Any]]:
    """Without the times, which differ."""
    _, records = read_results(folder)
    for record in records:
        record["memory"].pop("seconds")
        record["reading"].pop("seconds")
    return records


def test_each_question_is_answered_both_ways(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    done = evaluate(rag, "popqa", data, tmp_path / "out", settings={"model": "fake"})
    config, records = read_results(tmp_path / "out")
    assert config["task"] == "popqa"
    assert config["data"]["file"] == "data.jsonl"
    assert (config["passages"], config["settings"]) == ("given", {"model": "fake"})
    assert [record["id"] for record in records] == [f"q{n}" for n in range(COUNT)]
    first = records[0]
    assert first["memory"]["text"] == "guess"
    assert first["memory"]["confidence"] == pytest.approx((0.9 * 0.5) ** 0.5)
    assert first["memory"]["tokens"] == 2
    assert first["signals"] == pytest.approx(
        {"f_minp": 0.5, "f_meanp": (0.9 * 0.5) ** 0.5, "f_ret": None}
    )
    assert first["reading"]["answer"] == "right"
    assert first["reading"]["confidence"] == pytest.approx(0.9)
    assert first["reading"]["tokens"] == 2  # of both candidates
    assert [source["id"] for source in first["reading"]["sources"]] == ["b"]
    assert (first["scores"]["memory"]["match"], first["scores"]["reading"]["match"]) == (0.0, 1.0)
    assert (first["task"], first["kind"], first["metric"]) == ("popqa", "first", "match")
    assert (first["answers"], first["answerable"]) == (["right"], True)
    assert first["extra"] == {"s_pop": 0, "said": {"memory": "guess", "reading": "right"}}
    assert done.asked == COUNT
    assert done.summary == json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert done.summary["reading"]["match"] == {"mean": 1.0, "n": COUNT, "low": 1.0, "high": 1.0}
    assert done.summary["kinds"] == {"first": {"memory": 0.0, "reading": 1.0, "n": 1}}
    assert done.summary["tokens"] == {"memory": 2.0, "reading": 2.0}


def test_the_adaptive_curve_is_kept_in_numbers_and_as_a_picture(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    evaluate(rag, "popqa", data, folder, limit=2)
    assert json.loads((folder / "adaptive.json").read_text("utf-8"))["n"] == 2
    evaluate(rag, "popqa", data, folder)
    kept = json.loads((folder / "adaptive.json").read_text("utf-8"))
    assert (kept["metric"], kept["n"]) == ("match", COUNT)
    curve = {one["order"]: one for one in kept["curves"]}["f_meanp"]
    always = {"threshold": None, "share": 1.0, "accuracy": 1.0, "tokens": 4.0}
    assert curve["points"][-1].items() >= always.items()
    assert curve["points"][0]["accuracy"] == 0.0
    assert curve["best"] == curve["lossless"] == curve["points"][-1]
    assert curve["area"] == pytest.approx(0.5)
    assert (folder / "adaptive.png").read_bytes().startswith(b"\x89PNG")


def test_without_passages_there_is_no_curve(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", passages="none")
    assert not list((tmp_path / "out").glob("adaptive*"))


def test_a_trained_model_is_asked_whether_it_would_retrieve(data: Path, tmp_path: Path) -> None:
    request = {"[Retrieval]": log(0.3), "[No Retrieval]": log(0.1)}
    generator = FakeGenerator(
        drafts={text: draft(text) for text in ASKED},
        answers={"a": reflected("wrong", rel=0.6, sup=0.6), "b": reflected("right", rel=0.9)},
        requests=dict.fromkeys(ASKED, request),
        reflection_trained=True,
    )
    evaluate(OpenRAG(generator, FakeRetriever([])), "popqa", data, tmp_path / "out")
    _, records = read_results(tmp_path / "out")
    assert records[0]["signals"]["f_ret"] == pytest.approx(0.75)
    scores = [candidate["score"]["rel"] for candidate in records[0]["reading"]["candidates"]]
    assert scores == pytest.approx([0.6, 0.9])  # the supported one first


def test_the_index_is_asked_by_the_question_and_the_model_by_the_prompt(tmp_path: Path) -> None:
    row = {"id": "1", "question": "Which?", "choices": {"A": "x", "B": "y"}, "answer_key": "B"}
    path = tmp_path / "arc.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    prompt = (
        "Given four answer candidates, A, B, C and D, choose the best answer choice.\n\n"
        "### Input:\nWhich?\nA: x\nB: y"
    )
    generator = FakeGenerator(drafts={prompt: Draft("B", (Token("B", log(0.5)),))})
    retriever = FakeRetriever([Passage("p", "A")])
    done = evaluate(OpenRAG(generator, retriever), "arc_challenge", path, tmp_path / "out")
    assert retriever.calls == [(("Which?",), 5)]
    assert generator.calls == [("draft", (prompt,)), ("write", (prompt,))]
    _, (record,) = read_results(tmp_path / "out")
    assert record["question"] == "Which?"
    assert record["scores"] == {"memory": {"accuracy": 1.0}, "reading": {"accuracy": 0.0}}
    assert done.summary["reading"]["accuracy"]["low"] is None  # one value has no interval


def test_nothing_is_read_where_nothing_is_to_be(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    done = evaluate(rag, "popqa", data, tmp_path / "out", passages="none")
    _, records = read_results(tmp_path / "out")
    assert all(record["reading"] is None for record in records)
    assert records[0]["scores"]["memory"]["match"] == 0.0
    assert records[0]["scores"]["reading"] == {}
    assert done.summary["reading"] == {}
    assert done.summary["seconds"]["reading"] is None


def test_a_question_of_two_rows_reads_the_passages_of_each(rag: OpenRAG, tmp_path: Path) -> None:
    rows = [
        {"id": name, "question": ASKED[0], "answers": ["x"], "ctxs": [passage]}
        for name, passage in zip("ab", PASSAGES, strict=True)
    ]
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluate(replace(rag, min_relevance=0.0), "popqa", path, tmp_path / "out")
    _, records = read_results(tmp_path / "out")
    assert [record["reading"]["answer"] for record in records] == ["right", "wrong"]


def test_the_reranker_sees_all_that_is_given(rag: OpenRAG, tmp_path: Path) -> None:
    many = [{"id": f"{n}", "title": "", "text": f"wrong {n}"} for n in range(30)]
    row = {"question": ASKED[0], "answers": ["right"], "ctxs": [*many, PASSAGES[0]]}
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    scores = dict.fromkeys(map(str, range(30)), 0.6) | {"b": 0.9}
    evaluate(replace(rag, reranker=FakeReranker(scores)), "popqa", path, tmp_path / "out")
    _, (record,) = read_results(tmp_path / "out")
    assert record["reading"]["answer"] == "right"
    assert len(record["reading"]["candidates"]) == rag.top_k


def test_seconds_are_shares_of_a_batch(data: Path, tmp_path: Path) -> None:
    class Slow(FakeGenerator):
        def write(self, questions: Sequence[str], evidence: Any) -> Any:  # noqa: ANN401
            sleep(0.21)
            return super().write(questions, evidence)

    slow = Slow(drafts={text: draft(text) for text in ASKED})
    evaluate(OpenRAG(slow, FakeRetriever([])), "popqa", data, tmp_path / "out")
    _, records = read_results(tmp_path / "out")
    assert 0.21 / COUNT <= records[0]["reading"]["seconds"]["write"] < 0.21


def test_a_line_that_is_still_being_written_is_not_read(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out", limit=2)
    with (tmp_path / "out" / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "q2", "quest')
    assert [record["id"] for record in results(tmp_path / "out")] == ["q0", "q1"]


def test_interrupted_at_any_byte_it_goes_on(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    """A run that is stopped leaves any beginning of the file."""
    whole = tmp_path / "whole"
    evaluate(rag, "popqa", data, whole, batch_size=3)
    expected = results(whole)
    content = (whole / "results.jsonl").read_bytes()
    ends = [n for n, byte in enumerate(content) if byte == ord("\n")]
    around = {n + step for n in ends for step in (-1, 0, 1, 2)}
    for size in sorted({0, 1, len(content) // 2, *around} & set(range(len(content) + 1))):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
        (folder / "results.jsonl").write_bytes(content[:size])
        done = evaluate(rag, "popqa", data, folder, batch_size=3)
        assert results(folder) == expected, size
        assert done.asked == COUNT - content[:size].count(b"\n")
        assert done.summary["memory"]["match"]["n"] == COUNT


def test_a_run_that_fails_keeps_what_is_done(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    class Stopped(FakeGenerator):
        def write(self, questions: Sequence[str], evidence: Any) -> Any:  # noqa: ANN401
            if ASKED[4] in questions:
                raise KeyboardInterrupt
            return super().write(questions, evidence)

    generator = rag.generator
    assert isinstance(generator, FakeGenerator)
    stopped = replace(rag, generator=Stopped(drafts=generator.drafts))
    folder, told = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopped, "popqa", data, folder, batch_size=2)
    assert [record["id"] for record in results(folder)] == ["q0", "q1", "q2", "q3"]
    assert not (folder / "summary.json").exists()
    assert not list(folder.glob("adaptive*"))
    with pytest.raises(EvaluationError, match=r"pipeline\.generator: 'Stopped' there, 'FakeGen"):
        evaluate(rag, "popqa", data, folder)
    again = replace(rag, generator=type("Stopped", (FakeGenerator,), {})(drafts=generator.drafts))
    done = evaluate(again, "popqa", data, folder, progress=lambda n, of: told.append((n, of)))
    assert done.asked == 3
    assert told == [(4, COUNT), (3, COUNT)]
    assert len(results(folder)) == COUNT


def test_a_question_that_is_too_long_is_wrong_and_the_others_are_asked(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    class Short(FakeGenerator):
        def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
            if ASKED[3] in questions:
                raise QuestionError("the prompt has 9 tokens")
            return super().draft(questions, settled)

    generator = rag.generator
    assert isinstance(generator, FakeGenerator)
    short = replace(rag, generator=Short(drafts=generator.drafts))
    done = evaluate(short, "popqa", data, tmp_path / "out", batch_size=2)
    records = results(tmp_path / "out")
    assert [record["id"] for record in records] == [f"q{n}" for n in range(COUNT)]
    reasons = [record["extra"].get("refused") for record in records]
    assert reasons == [None, None, None, "the prompt has 9 tokens", None, None, None]
    assert {score for own in records[3]["scores"].values() for score in own.values()} == {0.0}
    assert records[3]["scores"]["reading"].keys() == records[2]["scores"]["reading"].keys()
    assert records[3]["signals"] == {"f_minp": 0.0, "f_meanp": 0.0, "f_ret": None}
    assert (done.summary["refused"], done.summary["reading"]["match"]["mean"]) == (1, 6 / 7)
    assert evaluate(short, "popqa", data, tmp_path / "out").asked == 0
    evaluate(short, "popqa", data, tmp_path / "none", passages="none")
    assert [record["reading"] for record in read_results(tmp_path / "none")[1]] == [None] * COUNT


def test_the_limit_may_grow(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    assert evaluate(rag, "popqa", data, tmp_path / "out", limit=2).summary["n"] == 2
    grown = evaluate(rag, "popqa", data, tmp_path / "out", limit=5)
    assert (grown.asked, grown.summary["n"]) == (3, 5)
    smaller = evaluate(rag, "popqa", data, tmp_path / "out", limit=1)
    assert (smaller.asked, smaller.summary["n"]) == (0, 5)


def test_other_data_and_another_pipeline_are_refused(
    rag: OpenRAG, data: Path, tmp_path: Path
) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"pipeline\.top_k: 5 there, 1 now"):
        evaluate(replace(rag, top_k=1), "popqa", data, tmp_path / "out")
    data.write_text(data.read_text("utf-8").replace("wrong", "other"), encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"data\.sha256"):
        evaluate(rag, "popqa", data, tmp_path / "out")


def break_line(text: str) -> str:
    return text.replace('"id"', '"name"', 1)


def repeat_line(text: str) -> str:
    return text + text.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_line, r"results\.jsonl, line 1: no result \('id'\): take the line out"),
        (lambda text: "{\n" + text, r"line 1: no result"),
        (repeat_line, r"line 8: 'q0' is there twice"),
    ],
)
def test_broken_results_are_refused(
    rag: OpenRAG, data: Path, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    evaluate(rag, "popqa", data, tmp_path / "out")
    file = tmp_path / "out" / "results.jsonl"
    file.write_text(change(file.read_text("utf-8")), encoding="utf-8")
    for attempt in (
        lambda: evaluate(rag, "popqa", data, tmp_path / "out"),
        lambda: read_results(tmp_path / "out"),
    ):
        with pytest.raises(EvaluationError, match=message):
            attempt()


def test_a_folder_of_something_else_is_left_alone(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "results.jsonl").write_text("mine\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"holds something else \(results\.jsonl\)"):
        evaluate(rag, "popqa", data, folder)
    assert (folder / "results.jsonl").read_text("utf-8") == "mine\n"
    with pytest.raises(EvaluationError, match="holds no evaluation"):
        read_results(folder)
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"config\.json: expected an object"):
        read_results(folder)
    with pytest.raises(EvaluationError, match=r"data\.jsonl: cannot be used"):
        evaluate(rag, "popqa", data, data)


def test_two_runs_do_not_share_a_folder(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(EvaluationError, match="another process is writing to it"),
    ):
        evaluate(rag, "popqa", data, tmp_path / "out")


def test_settings_that_cannot_be_are_refused(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1; got batch_size=0"):
        evaluate(rag, "popqa", data, tmp_path / "out", batch_size=0)
    chained = replace(rag, retriever=ChainedRetriever([]), reranker=None, hops=2)
    with pytest.raises(ConfigError, match="hops=2 looks for passages in an index"):
        evaluate(chained, "popqa", data, tmp_path / "out")
    with pytest.raises(ConfigError, match="one of given, index, none; got 'all'"):
        evaluate(rag, "popqa", data, tmp_path / "out", passages="all")  # type: ignore[arg-type]
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "Who?", "answers": ["x"]}', encoding="utf-8")
    with pytest.raises(EvaluationError, match="no row brings passages of its own"):
        evaluate(rag, "popqa", bare, tmp_path / "out", passages="given")
    assert not (tmp_path / "out").exists()


def test_the_interval_is_the_bootstraps() -> None:
    found = mean_with_interval([0.0, 1.0] * 200)
    assert (found["mean"], found["n"]) == (0.5, 400)
    # standard error sqrt(0.25 / 400) = 0.025: +- 1.96 of it
    assert found["low"] == pytest.approx(0.451, abs=0.008)
    assert found["high"] == pytest.approx(0.549, abs=0.008)
    uneven = [n**0.5 for n in range(100)]
    assert mean_with_interval(uneven) == mean_with_interval(uneven)


def test_nothing_cannot_be_summed_up() -> None:
    with pytest.raises(EvaluationError, match="no result to sum up"):
        summarise([])


def test_confidence_zero_where_the_draft_is_empty(rag: OpenRAG, data: Path, tmp_path: Path) -> None:
    generator = FakeGenerator(drafts=dict.fromkeys(ASKED, Draft("", ())))
    evaluate(replace(rag, generator=generator), "popqa", data, tmp_path / "out", limit=1)
    _, (record,) = read_results(tmp_path / "out")
    assert record["memory"]["text"] == record["extra"]["said"]["memory"] == ""
    assert record["signals"]["f_meanp"] == exp(float("-inf"))
