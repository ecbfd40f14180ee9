"""core/openrag_core/gate.py: the signals worked by hand, the tie, and the errors."""

from math import inf, log, nan
from typing import cast

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, one_of, sampled_from

from openrag_core import ConfigError, Decision, Draft, Gate, Token, f_meanp, f_minp, f_ret
from openrag_core.records import GateMode
from tests.fakes import tokens

ASKED = {"[Retrieval]": log(0.2), "[No Retrieval]": log(0.6)}
DRAFT = Draft("Canberra", tokens(0.9, 0.5, 0.8))


def test_f_minp_is_the_least_certain_token() -> None:
    assert f_minp(DRAFT) == pytest.approx(0.5)


def test_f_meanp_is_the_geometric_mean() -> None:
    assert f_meanp(DRAFT) == pytest.approx((0.9 * 0.5 * 0.8) ** (1 / 3))


def test_f_ret_is_renormalised_over_its_two_tokens() -> None:
    assert f_ret(ASKED) == pytest.approx(0.2 / (0.2 + 0.6))


def test_special_tokens_are_no_part_of_the_confidence() -> None:
    end = Token("</s>", log(0.01), special=True)
    assert f_minp(Draft("Canberra", (*DRAFT.tokens, end))) == f_minp(DRAFT)
    assert f_meanp(Draft("Canberra", (*DRAFT.tokens, end))) == f_meanp(DRAFT)


@pytest.mark.parametrize("written", [(), (Token("</s>", 0.0, special=True),)])
def test_a_draft_without_text_has_no_confidence(written: tuple[Token, ...]) -> None:
    assert f_minp(Draft("", written)) == f_meanp(Draft("", written)) == 0.0


@pytest.mark.parametrize("mode", ["f_minp", "f_meanp"])
@pytest.mark.parametrize("logprobs", [(-0.1, nan), (nan, -0.1)])
def test_a_probability_that_is_no_number_is_no_certainty(
    logprobs: tuple[float, float], mode: GateMode
) -> None:
    draft = Draft("Canberra", tuple(Token("x", one) for one in logprobs))
    assert Gate(mode, 0.5).by_confidence(draft) == Decision(True, mode, 0.0, 0.5)


@pytest.mark.parametrize(
    ("mode", "threshold", "retrieve"),
    [
        ("f_minp", 0.6, True),  # 0.5 < 0.6: one token is too uncertain
        ("f_minp", 0.4, False),
        ("f_meanp", 0.8, True),
        ("f_meanp", 0.6, False),  # 0.71 > 0.6: certain enough on the whole
    ],
)
def test_low_confidence_opens_the_gate(mode: GateMode, threshold: float, retrieve: bool) -> None:
    decision = Gate(mode, threshold).by_confidence(DRAFT)
    assert decision.retrieve is retrieve
    assert (decision.mode, decision.threshold) == (mode, threshold)


@pytest.mark.parametrize(("threshold", "retrieve"), [(0.2, True), (0.3, False)])
def test_a_high_request_opens_the_gate(threshold: float, retrieve: bool) -> None:
    assert Gate("f_ret", threshold).by_request(ASKED).retrieve is retrieve


def test_a_tie_does_not_retrieve() -> None:
    even = {"[Retrieval]": log(0.5), "[No Retrieval]": log(0.5)}
    assert Gate("f_ret", 0.5).by_request(even) == Decision(False, "f_ret", 0.5, 0.5)
    half = Draft("Canberra", tokens(0.5))
    assert Gate("f_minp", 0.5).by_confidence(half) == Decision(False, "f_minp", 0.5, 0.5)


def test_the_default_is_to_look_everything_up() -> None:
    assert Gate().mode == "always"


@pytest.mark.parametrize("threshold", [-0.1, 1.1, nan, inf, "0.5", None])
def test_a_threshold_outside_the_unit_interval_is_refused(threshold: object) -> None:
    with pytest.raises(ConfigError, match=f"threshold must be in .*, got {threshold!r}"):
        Gate("f_minp", cast("float", threshold))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"always, never.*'sometimes'"):
        Gate(cast("GateMode", "sometimes"))


@given(
    mode=sampled_from(["f_minp", "f_meanp"]),
    threshold=one_of(floats(0, 1), sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])),
    probabilities=lists(
        one_of(floats(0, 1, exclude_min=True), sampled_from([0.2, 0.5, 0.8, 1.0])),
        min_size=1,
        max_size=8,
    ),
    spare=integers(0, 4),
)
def test_a_draft_that_stops_early_is_decided_as_the_whole_one(
    mode: GateMode, threshold: float, probabilities: list[float], spare: int
) -> None:
    gate = Gate(mode, threshold)
    logprobs = [log(p) for p in probabilities]
    most = len(logprobs) + spare
    whole = gate.by_confidence(Draft("", tokens(*probabilities)))
    for n in range(1, len(logprobs) + 1):
        if gate.settled(logprobs[:n], most):
            stopped = gate.by_confidence(Draft("", tokens(*probabilities[:n]), complete=False))
            assert stopped.retrieve
            assert whole.retrieve


@pytest.mark.parametrize(
    ("mode", "probabilities", "settled"),
    [
        ("f_minp", [0.9, 0.4], True),
        ("f_minp", [0.4, 0.9], True),
        ("f_minp", [0.9, 0.6], False),
        ("f_meanp", [0.9, 0.05], True),  # (0.9 x 0.05) ** (1/4) = 0.46: even with certainty after
        ("f_meanp", [0.9, 0.1], False),  # 0.55
        ("always", [0.1], False),
        ("never", [0.1], False),
        ("f_ret", [0.1], False),
    ],
)
def test_a_draft_is_settled_once_nothing_can_shut_the_gate(
    mode: GateMode, probabilities: list[float], settled: bool
) -> None:
    assert Gate(mode, 0.5).settled([log(p) for p in probabilities], 4) is settled
