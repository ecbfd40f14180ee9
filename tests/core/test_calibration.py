"""core/openrag_core/calibration.py: probabilities by hand, and how much is read for a target."""

import json
from dataclasses import asdict, replace
from math import inf, log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import floats

from openrag_core import ConfigError, Decision, Draft, OpenRAG, Passage, ScoreWeights
from openrag_core.calibration import FILE, CalibratedGate, Calibration, read_gate
from openrag_core.events import AnswerEvent, CandidateEvent
from openrag_core.gate import f_ret
from openrag_core.reflection import TRAINED_WEIGHTS
from openrag_core.weights import BUNDLED_ADAPTER
from tests.fakes import FakeRetriever, FakeStreamingGenerator, reflected, tokens

CURVE = Calibration((0.2, 0.4, 0.8), (0.1, 0.1, 0.9))
# Answers from one passage are right with .5 at a total of 1, and .8 at 3; from three, .6 and .9.
READING = {1: Calibration((1.0, 3.0), (0.5, 0.8)), 3: Calibration((1.0, 3.0), (0.6, 0.9))}
FITTED: Any = {
    "signal": "f_minp",
    "memory": asdict(CURVE),
    "reading": {amount: asdict(one) for amount, one in READING.items()},
    "quantiles": [0.1, 0.3, 0.5, 0.7, 0.9],
    "fitted_on": {},
}
PASSAGES = [Passage(id=f"p{n}", text=f"answer {n}") for n in range(4)]


def gate(**target: Any) -> CalibratedGate:
    return CalibratedGate(
        signal="f_minp",
        memory=CURVE,
        reading=READING,
        quantiles=(0.1, 0.3, 0.5, 0.7, 0.9),
        **target,
    )


@pytest.mark.parametrize(
    ("confidence", "probability"),
    [(0.0, 0.1), (0.2, 0.1), (0.3, 0.1), (0.5, 0.3), (0.6, 0.5), (0.8, 0.9), (1.0, 0.9)],
)
def test_between_points_are_straight_lines(confidence: float, probability: float) -> None:
    assert CURVE(confidence) == pytest.approx(probability)


@pytest.mark.parametrize(
    ("probability", "least"), [(0.0, -inf), (0.1, -inf), (0.3, 0.5), (0.9, 0.8), (0.91, inf)]
)
def test_a_probability_needs_a_confidence(probability: float, least: float) -> None:
    assert CURVE.least(probability) == pytest.approx(least)


@given(floats(0.11, 0.9))
def test_the_least_confidence_has_the_probability(probability: float) -> None:
    assert CURVE(CURVE.least(probability)) == pytest.approx(probability)


@pytest.mark.parametrize(
    "points", [((), ()), ((0.2, 0.2), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.1)), ((0.1,), (0.1, 0.2))]
)
def test_points_out_of_order_are_refused(points: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="growing confidences"):
        Calibration(*points)
    with pytest.raises(ConfigError, match=r"in\s\[0, 1\]"):
        Calibration((0.0, 1.0), (0.5, 1.5))


def test_a_target_becomes_a_threshold() -> None:
    accurate = gate(min_accuracy=0.5)
    assert accurate.mode == "f_minp"
    assert accurate.gate.threshold == pytest.approx(0.6)
    assert (accurate.amounts, accurate.least_worth(1)) == ((1, 3), -inf)
    assert gate(min_accuracy=0.65).least_worth(1) == pytest.approx(2.0)
    assert gate(min_accuracy=0.05).mode == "never"  # every draft is that often right
    rarely = gate(max_retrieval_rate=0.5)
    assert (rarely.gate.threshold, rarely.amounts) == (0.5, (3,))  # the median
    assert gate(max_retrieval_rate=0.6).gate.threshold == 0.5  # at most that share
    assert [gate(max_retrieval_rate=rate).mode for rate in (0, 1)] == ["never", "always"]
    requests = replace(gate(min_accuracy=0.5), signal="f_ret")
    assert requests.gate.threshold == pytest.approx(0.4)  # certain is who does not ask


def test_what_drafts_cannot_reach_is_always_read() -> None:
    hopeless = replace(gate(min_accuracy=0.85), memory=Calibration((0.5,), (0.2,)))
    assert hopeless.mode == "always"


def test_a_target_out_of_reach_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"0\.95 is out of reach.* 0\.900 .* 0\.050 short"):
        gate(min_accuracy=0.95)
    nearly = {1: Calibration((1.0, 3.0), (0.5, 0.6996))}
    with pytest.raises(ConfigError, match=r"probability of 0\.699 .* 0\.001 short"):
        replace(gate(min_accuracy=0.5), memory=nearly[1], reading=nearly, min_accuracy=0.7)
    with pytest.raises(ConfigError, match="either min_accuracy or max_retrieval_rate"):
        gate()
    with pytest.raises(ConfigError, match="either min_accuracy or max_retrieval_rate"):
        gate(min_accuracy=0.5, max_retrieval_rate=0.5)
    with pytest.raises(ConfigError, match="max_retrieval_rate must be in"):
        gate(max_retrieval_rate=50)


def rag(gate_: CalibratedGate, **settings: Any) -> OpenRAG:
    """Passage 0 makes an answer of total 2.5, passage 2 one of 3.5, the others bad ones."""
    answers = {
        "p0": reflected("zero", rel=0.6, sup=0.65, use=0.75),  # 1 + .6 + .65 + .25
        "p1": reflected("one", rel=0.55, sup=0.3, use=0.1),
        "p2": (*reflected("two", rel=0.999, sup=0.999, use=0.999),),
    }
    drafts = {"known": Draft("memory", tokens(0.7)), "unknown": Draft("guess", tokens(0.3))}
    generator = FakeStreamingGenerator(drafts=drafts, answers=answers, reflection_trained=True)
    settings.setdefault("weights", ScoreWeights())
    return OpenRAG(generator, FakeRetriever(PASSAGES[:3]), gate=gate_, top_k=3, **settings)


def asked(pipeline: OpenRAG, question: str) -> tuple[str, float | None, int]:
    """The answer, its probability, and how many passages were read for it."""
    answer = pipeline.answer(question)
    return answer.text.splitlines()[0], answer.probability, len(answer.candidates)


def test_nothing_is_read_where_the_draft_is_good_enough() -> None:
    text, probability, read = asked(rag(gate(min_accuracy=0.6)), "known")
    assert (text, read) == ("memory", 0)
    assert probability == pytest.approx(0.7)  # CURVE at .7


def test_one_passage_is_read_where_it_is_enough() -> None:
    text, probability, read = asked(rag(gate(min_accuracy=0.7)), "unknown")
    assert (text, read) == ("zero", 1)
    assert probability == pytest.approx(0.725)  # READING[1] at 2.5


def test_more_is_read_where_it_is_not() -> None:
    pipeline = rag(gate(min_accuracy=0.8))
    text, probability, read = asked(pipeline, "unknown")
    assert (text, read) == ("two", 3)
    assert probability == pytest.approx(0.9, abs=0.01)
    writes = [call for call in pipeline.generator.calls if call[0] == "write"]  # type: ignore[attr-defined]
    assert len(writes) == 2


def test_passages_that_are_read_later_keep_their_places() -> None:
    answer = rag(gate(min_accuracy=0.8)).answer("unknown")
    places = {one.evidence[0].id: one.score.reciprocal_rank for one in answer.candidates}
    assert places == pytest.approx({"p0": 1.0, "p1": 1 / 2, "p2": 1 / 3})


def test_candidates_are_shown_live_as_they_will_be_in_the_answer() -> None:
    fitted = gate(min_accuracy=0.8, weights=TRAINED_WEIGHTS)
    *events, last = rag(fitted, weights=None).stream("unknown")
    assert isinstance(last, AnswerEvent)
    shown = [event.candidate for event in events if isinstance(event, CandidateEvent)]
    assert [one.evidence[0].id for one in shown] == ["p0", "p2", "p1"]  # as they are done
    assert sorted(shown, key=lambda one: -one.total) == list(last.answer.candidates)


def test_other_weights_than_those_of_the_fit_are_refused() -> None:
    fitted = gate(min_accuracy=0.7, weights=TRAINED_WEIGHTS)
    assert rag(fitted, weights=None).answer("unknown").text == "zero"
    with pytest.raises(ConfigError, match="fitted to scores of ScoreWeights"):
        rag(fitted)
    with pytest.raises(ConfigError, match="fit the gate again"):
        rag(gate(min_accuracy=0.7), weights=None)


def test_how_sure_an_answer_is_does_not_depend_on_the_place_of_its_passage() -> None:
    fitted = gate(min_accuracy=0.8, weights=TRAINED_WEIGHTS)
    text, probability, read = asked(rag(fitted, weights=None), "unknown")
    assert (text, read) == ("two", 3)  # of the last passage
    assert probability == pytest.approx(0.9, abs=0.01)


def test_it_abstains_where_nothing_is_enough() -> None:
    worse = replace(
        gate(min_accuracy=0.8), reading={n: Calibration((4.0, 5.0), (0.1, 0.9)) for n in (1, 3)}
    )
    text, probability, read = asked(rag(worse), "unknown")
    assert text.startswith("The documents do not tell.")
    assert read == 3
    assert probability == pytest.approx(0.1)  # what the best answer comes to
    assert asked(replace(rag(worse), min_relevance=2.0), "unknown")[1] is None  # another reason


def test_the_target_is_for_the_best_answer_and_no_worse_one_takes_its_place() -> None:
    """The first passage's answer is the best by its rank, the second one's says more of itself."""
    weights = ScoreWeights(reciprocal_rank=2.0)
    fitted = gate(min_accuracy=0.85, weights=weights)
    pipeline = rag(fitted, weights=weights)
    answer = pipeline.answer("unknown")
    first, second, _ = answer.candidates
    assert (first.text, second.text) == ("zero", "two")
    assert fitted.worth(first) < fitted.least_worth(3) < fitted.worth(second)
    assert answer.abstained
    assert answer.probability == pytest.approx(READING[3](fitted.worth(first)))


@pytest.mark.parametrize("target", [{"min_accuracy": 0.8}, {"max_retrieval_rate": 1.0}])
def test_where_there_is_no_more_to_read_an_answer_is_as_sure_as_what_was_read(
    target: dict[str, float],
) -> None:
    """Of one passage it was believed as the best of all of them, and asked for again in vain."""
    pipeline = replace(rag(gate(**target)), retriever=FakeRetriever(PASSAGES[:1]))
    answer = pipeline.answer("unknown")
    assert answer.probability == pytest.approx(0.725)  # READING[1] at 2.5
    assert answer.abstained == ("min_accuracy" in target)
    writes = [call for call in pipeline.generator.calls if call[0] == "write"]  # type: ignore[attr-defined]
    assert len(writes) == 1


def test_questions_that_are_asked_together_read_as_much_as_each_needs() -> None:
    pipeline = rag(gate(min_accuracy=0.7))
    answers = pipeline.answer_many(["known", "unknown", "unknown"])
    assert [len(answer.candidates) for answer in answers] == [0, 1, 1]


def test_a_rate_of_retrieval_believes_what_any_gate_believes() -> None:
    pipeline = rag(gate(max_retrieval_rate=0.5))
    assert asked(pipeline, "known")[0] == "memory"
    text, probability, read = asked(pipeline, "unknown")
    assert (text, read) == ("two", 3)
    assert probability is not None


def test_what_it_was_not_fitted_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="fitted for 3 passages, and top_k=5"):
        replace(rag(gate(min_accuracy=0.5)), top_k=5)
    with pytest.raises(ConfigError, match="single passages"):
        rag(gate(min_accuracy=0.5), evidence="joint")


def test_it_is_kept_as_json(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(FITTED))
    assert read_gate(file, min_accuracy=0.5) == gate(min_accuracy=0.5)
    assert read_gate(str(file), min_accuracy=0.5) == gate(min_accuracy=0.5)
    with pytest.raises(ConfigError, match="out of reach"):
        read_gate(file, min_accuracy=0.99)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is no fitted gate"):
        read_gate(file, min_accuracy=0.5)
    with pytest.raises(ConfigError, match="openrag calibrate makes one"):
        read_gate(tmp_path / "absent.json", min_accuracy=0.5)


def test_a_request_is_calibrated_too() -> None:
    requests = replace(gate(min_accuracy=0.5), signal="f_ret")
    decision = requests.by_request({"[Retrieval]": log(0.3), "[No Retrieval]": log(0.7)})
    assert not decision.retrieve  # 1 - .3 is a confidence of .7
    assert decision.probability == pytest.approx(0.7)


@given(floats(0.001, 0.999))
def test_requests_that_are_all_alike_are_a_tie(request_: float) -> None:
    logprobs = {"[Retrieval]": log(request_), "[No Retrieval]": log(1 - request_)}
    alike = (1 - f_ret(logprobs),) * 3
    requests = replace(gate(max_retrieval_rate=0.5), signal="f_ret", quantiles=alike)
    assert not requests.by_request(logprobs).retrieve
    assert not requests.opens(alike[0])
    assert requests.opens(alike[0] - 0.001)


def test_passages_that_are_given_are_read_as_far_as_it_takes() -> None:
    one = rag(gate(min_accuracy=0.7)).answer_from("unknown", PASSAGES[:3])
    assert (one.text, len(one.candidates)) == ("zero", 1)
    worse = replace(
        gate(min_accuracy=0.8), reading={n: Calibration((4.0, 5.0), (0.1, 0.9)) for n in (1, 3)}
    )
    assert rag(worse).answer_from("unknown", PASSAGES[:3]).abstained


def test_the_probability_of_what_was_read_is_not_that_of_a_draft() -> None:
    pipeline = rag(gate(max_retrieval_rate=0.5))
    decision, draft = pipeline.decide("known")
    assert draft is not None
    read = pipeline.answer_from("known", PASSAGES[:1], decision)
    assert read.text == "zero"
    assert read.decision.probability is None
    assert read.probability == pytest.approx(0.725)  # READING[1] at 2.5


def test_the_bundled_model_has_a_gate() -> None:
    fitted = read_gate(BUNDLED_ADAPTER / FILE, min_accuracy=0.7)
    assert fitted.amounts == (1, 5)
    assert fitted.fitted_on["questions"] == 300
    assert fitted.weights == TRAINED_WEIGHTS
    assert fitted.memory(0.9) < 0.7 < fitted.reading[5](3.45)  # it reads, and may then be sure
    assert read_gate(BUNDLED_ADAPTER / FILE, max_retrieval_rate=0.5).mode == "f_minp"
    with pytest.raises(ConfigError, match="out of reach"):
        read_gate(BUNDLED_ADAPTER / FILE, min_accuracy=1.0)


def test_a_gate_that_never_retrieves_tells_the_probability_of_the_draft() -> None:
    answer = rag(gate(max_retrieval_rate=0)).answer("known")
    assert answer.decision.mode == "never"
    assert answer.probability == pytest.approx(0.7)  # CURVE at .7
    unknown = rag(replace(gate(max_retrieval_rate=0), signal="f_ret")).answer("known")
    assert unknown.probability is None


def test_a_probability_of_zero_is_a_probability() -> None:
    requests = rag(replace(gate(max_retrieval_rate=0.5), signal="f_ret"))
    decision = Decision(retrieve=False, mode="f_ret", value=0.1, threshold=0.5, probability=0.0)
    assert requests.from_memory("known", decision, Draft("x", ())).probability == 0.0
