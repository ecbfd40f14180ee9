"""Results -> trials, a fitted gate, what targets come to, and a page; all from made-up records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openrag_core import Draft, EvaluationError, OpenRAG, Passage, ScoreWeights, Token, f_meanp
from openrag_core.calibration import CalibratedGate, Calibration, read_gate
from openrag_core.evaluation.adaptive import curves, trials
from openrag_core.evaluation.calibrate import fit_gate, simulate
from openrag_core.evaluation.report import page
from tests.core.test_cli import Run, openrag  # noqa: F401
from tests.fakes import FakeGenerator, FakeRetriever, reflected, tokens

Record = dict[str, Any]
Answers = dict[str, tuple[Token, ...]]


def passage(number: int) -> Record:
    return {
        "id": f"p{number}",
        "text": f"text {number}",
        "title": "Title",
        "source": "s.md",
        "metadata": {},
        "retrieval_score": None,
        "rerank_score": 1.0 - number / 10,
    }


def candidate(number: int, text: str, total: float) -> Record:
    parts = {"seq": 0.5, "rel": 0.5, "sup": 0.5, "use": 0.0, "rank": None}
    return {
        "text": text,
        "total": total,
        "score": parts,
        "passages": [passage(number)],
        "truncated": False,
    }


def record(
    number: int,
    *,
    known: bool,
    confidence: float,
    first: tuple[bool, float],
    best: tuple[bool, float],
) -> Record:
    """A question whose draft is right if it is known; the first passage and another answer it.

    Args:
        number: Of the question.
        known: Whether the draft is right.
        confidence: Of the draft.
        first: Whether the answer from the passage that ranks first is right, and its total.
        best: The same of another passage.
    """
    said = {True: "right", False: "wrong"}
    candidates = [candidate(1, said[best[0]], best[1]), candidate(0, said[first[0]], first[1])]
    candidates.sort(key=lambda one: -one["total"])
    answer = candidates[0]["text"]
    return {
        "id": str(number),
        "question": f"Question {number}?",
        "answers": ["right"],
        "answerable": True,
        "task": "nq",
        "kind": "",
        "memory": {"text": said[known], "confidence": confidence, "seconds": 0.1, "tokens": 3},
        "reading": {
            "question": f"Question {number}?",
            "answer": answer,
            "confidence": 0.9,
            "grounded": True,
            "abstained": False,
            "truncated": False,
            "probability": None,
            "gate": {"retrieve": True, "mode": "always", "value": None, "threshold": None},
            "draft": None,
            "sources": candidates[0]["passages"],
            "candidates": candidates,
            "seconds": {"retrieve": 0.1, "write": 0.4},
            "tokens": 12,
        },
        "signals": {"f_minp": confidence / 2, "f_meanp": confidence, "f_ret": 1 - confidence},
        "scores": {
            "memory": {"exact_match": float(known)},
            "reading": {"exact_match": float(answer == "right")},
        },
        "metric": "exact_match",
        "extra": {},
    }


def records(count: int = 400) -> list[Record]:
    """Drafts as often right as they are confident; answers as often as their total says, of 4."""
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        confidence, one, other = random.uniform(0, 1), random.uniform(0, 4), random.uniform(0, 4)
        right = random.uniform(0, 1, 3) < (confidence, one / 4, other / 4)
        known, first, best = map(bool, right)
        made.append(
            record(
                number,
                known=known,
                confidence=float(confidence),
                first=(first, one),
                best=(best, other),
            )
        )
    return made


RECORDS = records()
CONFIG: dict[str, Any] = {
    "task": "nq",
    "data": {"file": "nq.jsonl", "sha256": "0"},
    "passages": "index",
    "pipeline": {"top_k": 2, "weights": {"rel": 2.0}},
    "settings": {"model": "bundled"},
    "versions": {},
}


def test_records_become_trials() -> None:
    one = record(0, known=True, confidence=0.8, first=(False, 1.0), best=(True, 2.0))
    unread = {**one, "reading": None}
    unscored = {**one, "scores": one["scores"] | {"reading": {}}}
    (trial,) = trials([one, unread, unscored])
    assert (trial.memory, trial.reading) == (1.0, 1.0)
    assert trial.signals == {"f_minp": 0.4, "f_meanp": 0.8, "f_ret": pytest.approx(0.2)}
    assert (trial.memory_seconds, trial.reading_seconds) == (0.1, 0.5)
    assert (trial.memory_tokens, trial.reading_tokens) == (3, 12)


def test_a_signal_that_knows_beats_chance() -> None:
    found = {curve.order: curve for curve in curves(trials(RECORDS))}
    assert found["f_meanp"].area > found["random"].area + 0.05
    assert found["oracle"].area > found["f_meanp"].area


def written(folder: Path) -> Path:
    file = folder / "gate.json"
    file.write_text(json.dumps(fit_gate(RECORDS, signal="f_meanp").gate))
    return file


def test_the_gate_knows_what_was_put_into_the_records(tmp_path: Path) -> None:
    fitted = fit_gate(RECORDS)
    assert fitted.ranking["f_meanp"] == pytest.approx(0.83, abs=0.05)  # of p(right) = confidence
    assert fitted.memory.calibration(0.5) == pytest.approx(0.5, abs=0.1)
    assert fitted.reading[1].calibration(2.0) == pytest.approx(0.5, abs=0.12)
    gate = read_gate(written(tmp_path), min_accuracy=0.75)
    assert gate.gate.threshold == pytest.approx(0.75, abs=0.1)
    assert gate.amounts == (1, 2)


@pytest.mark.parametrize("least", [0.5, 0.7])
def test_a_target_of_accuracy_is_held(tmp_path: Path, least: float) -> None:
    file = written(tmp_path)
    outcome = simulate(read_gate(file, min_accuracy=least), records(2000))
    assert outcome.accuracy > least
    stricter = simulate(read_gate(file, min_accuracy=least + 0.15), records(2000))
    assert stricter.accuracy > outcome.accuracy
    assert stricter.answered < outcome.answered
    assert stricter.passages > outcome.passages


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_target_of_retrieval_is_held(tmp_path: Path, rate: float) -> None:
    outcome = simulate(read_gate(written(tmp_path), max_retrieval_rate=rate), RECORDS)
    assert outcome.retrieved <= rate
    assert outcome.retrieved == pytest.approx(rate, abs=0.011)
    assert outcome.answered == 1.0


def asked(number: int, random: np.random.Generator) -> tuple[Draft, list[Passage], Answers]:
    """A draft, up to three passages, and what is written from each; some say nothing."""
    passages = [Passage(id=f"{number}-{n}", text="?") for n in range(random.integers(0, 4))]
    said = random.choice(["right", "wrong", ""], len(passages), p=[0.45, 0.45, 0.1])
    rel, sup, use = random.uniform(0.55, 1, (3, len(passages)))
    answers = {
        passage.id: reflected(str(said[n]), rel=rel[n], sup=sup[n], use=use[n])
        for n, passage in enumerate(passages)
    }
    return Draft("wrong", tokens(random.uniform(0.1, 0.9))), passages, answers


@pytest.mark.parametrize("method", ["min_accuracy", "max_retrieval_rate"])
@pytest.mark.parametrize("target", [0.5, 0.7, 0.8, 0.9])
def test_what_a_target_comes_to_is_what_the_pipeline_does(method: str, target: float) -> None:
    random = np.random.default_rng(2)
    known = [asked(number, random) for number in range(60)]
    drafts = {str(number): draft for number, (draft, _, _) in enumerate(known)}
    answers = {key: value for _, _, own in known for key, value in own.items()}
    found = {str(number): passages for number, (_, passages, _) in enumerate(known)}
    generator = FakeGenerator(drafts, answers, reflection_trained=True)
    plain = OpenRAG(generator, FakeRetriever(found), top_k=3)
    curve = Calibration((0.0, 1.0), (0.0, 1.0))
    gate = CalibratedGate(
        signal="f_meanp",
        memory=curve,
        reading={n: Calibration((1.0, 3.0), (0.3, 1.0)) for n in (1, 3)},
        quantiles=(0.1, 0.5, 0.9),
        weights=plain.score_weights,
        **{method: target},  # type: ignore[arg-type]
    )
    made = []
    for name, draft in drafts.items():
        one = record(0, known=False, confidence=f_meanp(draft), first=(False, 0), best=(False, 0))
        made.append({**one, "reading": plain.answer(name).to_dict()})
    outcome = simulate(gate, made)
    got = replace(plain, gate=gate).answer_many(list(drafts))
    told = [answer for answer in got if not answer.abstained]
    assert outcome.answered == len(told) / len(got)
    assert outcome.accuracy == np.mean([answer.text == "right" for answer in told])
    assert outcome.retrieved == np.mean([answer.decision.retrieve for answer in got])
    assert outcome.passages == np.mean([len(answer.candidates) for answer in got])


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(EvaluationError, match="3 questions are too few"):
        fit_gate(RECORDS[:3])
    with pytest.raises(EvaluationError, match="no questions to fit"):
        fit_gate([])
    joint = json.loads(json.dumps(RECORDS[:60]))
    joint[7]["reading"]["candidates"][0]["passages"] *= 2
    with pytest.raises(EvaluationError, match="--evidence each"):
        fit_gate(joint)


class _Counter(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.append(tag)


def test_the_report_is_one_page_with_everything_in_it() -> None:
    hostile = json.loads(json.dumps(RECORDS))
    for one in hostile:
        one["question"] = f"<script>alert({one['id']})</script>"
    text = page({"nq": (CONFIG, RECORDS), "<b>": (CONFIG, hostile)})
    counter = _Counter()
    counter.feed(text)
    assert "script" not in counter.tags
    assert "link" not in counter.tags
    assert counter.tags.count("img") == 2
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', text)
    assert counter.tags.count("style") == 2  # of the page and of the answers, once
    assert text.count('class="case"') == 40
    assert "Question" in text
    assert "&lt;script&gt;alert" in text


def test_the_worst_cases_are_the_confident_wrong_ones() -> None:
    wrong = record(1, known=True, confidence=0.5, first=(False, 1.0), best=(False, 2.0))
    shy = json.loads(json.dumps(wrong))
    shy["question"], shy["reading"]["confidence"] = "Shy?", 0.1
    right = record(2, known=True, confidence=0.5, first=(True, 1.0), best=(True, 2.0))
    text = page({"nq": (CONFIG, [right, shy, wrong])})
    cases = re.findall(r'class="case"><summary[^>]*>([^<]*)', text)
    assert [case.split(" → ")[0] for case in cases] == ["0.00 · Question 1?", "0.00 · Shy?"]


def test_there_must_be_something_to_report() -> None:
    with pytest.raises(EvaluationError, match="no results to report"):
        page({})
    with pytest.raises(EvaluationError, match="no question is answered yet"):
        page({"nq": (CONFIG, [])})


@pytest.mark.parametrize("name", ["claims", "arc_challenge", "asqa"])
def test_a_gate_is_fitted_to_short_answers(name: str) -> None:
    with pytest.raises(EvaluationError, match=f"fitted to short answers, and {name} has others"):
        fit_gate([{**one, "task": name} for one in RECORDS])


def test_where_no_draft_is_right_nothing_is_compared(openrag: Run, tmp_path: Path) -> None:  # noqa: F811
    results = folder(tmp_path / "nq")
    lines = [{**one, "memory": {**one["memory"], "text": "?"}} for one in RECORDS]
    (results / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    done = openrag("calibrate", str(results))
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "all drafts are wrong: signals could not be compared; f_meanp is taken" in text
    assert "ROC" not in text


def folder(path: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(one) + "\n" for one in RECORDS)
    (path / "results.jsonl").write_text(lines)
    return path


def test_the_commands_write_what_they_say(openrag: Run, tmp_path: Path) -> None:  # noqa: F811
    results = folder(tmp_path / "nq")
    done = openrag("calibrate", str(results), "--out", "made/gate.json")
    assert done.code == 0, done.err
    assert "min_accuracy 0.7" in done.out
    made = tmp_path / "made"
    fitted = read_gate(made / "gate.json", min_accuracy=0.5)
    assert (fitted.fitted_on["model"], fitted.weights) == ("bundled", ScoreWeights(rel=2.0))
    assert (made / "gate.png").read_bytes().startswith(b"\x89PNG")
    assert openrag("report", str(results), "--out", "report.html").code == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_commands_refuse_what_they_cannot_use(openrag: Run, tmp_path: Path) -> None:  # noqa: F811
    first = folder(tmp_path / "one")
    other = folder(tmp_path / "two", {**CONFIG, "pipeline": {"top_k": 5}})
    refused = openrag("calibrate", str(first), str(other))
    assert (refused.code, refused.out) == (1, "")
    assert "different models or pipelines" in " ".join(refused.err.split())
    mine = folder(tmp_path / "three", {**CONFIG, "settings": {"model": "mine"}})
    refused = openrag("calibrate", str(first), str(mine))
    assert "different models or pipelines" in " ".join(refused.err.split())
    asked = {**CONFIG["settings"], "instruction": "In one word."}
    brief = folder(tmp_path / "four", {**CONFIG, "settings": asked})
    refused = openrag("calibrate", str(first), str(brief))
    assert "asked with other settings" in " ".join(refused.err.split())
    moved = {**CONFIG["settings"], "index": "elsewhere", "index_sha256": "1"}
    other = folder(tmp_path / "five", {**CONFIG, "settings": moved})
    assert openrag("calibrate", str(first), str(other)).code == 0
    refused = openrag("calibrate", str(first), str(first))
    assert "a folder is named twice" in refused.err
    for command in ("calibrate", "report"):
        refused = openrag(command, str(first), "--out", str(tmp_path))
        assert f"--out {tmp_path} is a folder: name a file" in refused.err.replace("\n", "")
        assert refused.code == 1
        refused = openrag(command, str(first), "--out", str(first / "results.jsonl"))
        assert "is read by this command" in " ".join(refused.err.split())
        assert refused.code == 1
    (first / "adaptive.png").touch()
    refused = openrag("calibrate", str(first), "--out", str(first / "adaptive.yaml"))
    assert "adaptive.png is read by this command" in refused.err.replace("\n", "")
    refused = openrag("calibrate", str(first), "--out", "gate.png")
    assert "is where the diagram goes: name a .json file" in " ".join(refused.err.split())
    refused = openrag("report", str(tmp_path))
    assert refused.code == 1
    assert "holds no evaluation" in refused.err


def test_the_rank_of_a_passage_chooses_and_makes_nothing_surer() -> None:
    ranked = deepcopy(RECORDS)
    for one in ranked:
        for own in one["reading"]["candidates"]:
            place = int(own["passages"][0]["id"][1:]) + 1
            own["score"]["reciprocal_rank"] = 1 / place
            own["total"] += 0.5 / place
    plain = fit_gate(RECORDS).reading[1].calibration.confidence
    weighted = fit_gate(ranked, weights=ScoreWeights(reciprocal_rank=0.5))
    assert weighted.reading[1].calibration.confidence == pytest.approx(plain)
    assert weighted.gate["weights"]["reciprocal_rank"] == 0.5
    assert fit_gate(ranked).reading[1].calibration.confidence != pytest.approx(plain)


def test_an_answer_without_text_does_not_count() -> None:
    """The pipeline reads on there, whatever its total is."""
    some = records(100)
    blank = record(100, known=False, confidence=0.5, first=(False, 1.0), best=(True, 2.0))
    first = min(blank["reading"]["candidates"], key=lambda one: one["total"])
    first["text"] = ""
    assert fit_gate([*some, blank]).reading[1].questions == 100
    assert fit_gate([*some, blank]).reading[2].questions == 101
