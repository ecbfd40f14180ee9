"""The adaptive retrieval gate: can the model answer without reading a passage?

The model first drafts an answer conditioned on [No Retrieval]. The gate reads one number: a low
confidence in the draft (f_minp, f_meanp), or the model's own request (f_ret), opens it.

Sources: f_minp and f_meanp, Islam et al., Open-RAG (arXiv:2410.01782), "Hybrid Adaptive
Retrieval"; f_ret, Asai et al., Self-RAG (arXiv:2310.11511), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum
from numbers import Real
from typing import get_args

from openrag_core.errors import ConfigError
from openrag_core.records import Decision, Draft, GateMode, mean_probability, text_logprobs
from openrag_core.reflection import RETRIEVE

ROUNDING = 1e-9  # relative; a draft is not stopped for what the last digits might still turn


def f_minp(draft: Draft) -> float:
    """Probability of the draft's least certain text token, in [0, 1].

    The end token and reflection tokens are left out; a draft without text has confidence 0.
    """
    return exp(min(text_logprobs(draft.tokens), default=float("-inf")))


def f_meanp(draft: Draft) -> float:
    """Geometric mean of the draft's text token probabilities, in [0, 1]; never below f_minp.

    The end token and reflection tokens are left out; a draft without text has confidence 0.
    """
    return mean_probability(draft.tokens)


def f_ret(logprobs: Mapping[str, float]) -> float:
    """p([Retrieval]) / (p([Retrieval]) + p([No Retrieval])), in [0, 1].

    Args:
        logprobs: Log-probability of both tokens at the position right after the prompt.

    Raises:
        ReflectionError: One of the two tokens has no usable probability.
    """
    return RETRIEVE.mean_worth(logprobs)


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides whether to retrieve.

    Raises:
        ConfigError: The mode is unknown, or the threshold is outside [0, 1].
    """

    mode: GateMode = "always"
    threshold: float = 0.5
    """What the signal is compared with, in [0, 1]; gamma in the Open-RAG paper. Without meaning
    for "always" and "never"."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(GateMode):
            raise ConfigError(
                f"gate must be one of {', '.join(get_args(GateMode))}; got {self.mode!r}"
            )
        if not isinstance(self.threshold, Real) or not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold must be in [0, 1], got {self.threshold!r}")

    @classmethod
    def of(cls, mode: GateMode, threshold: float | None = None) -> Gate:
        """A gate as somebody asked for it; without a threshold, its own.

        Raises:
            ConfigError: A threshold is given, and the mode compares nothing with it.
        """
        gate = cls(mode) if threshold is None else cls(mode, threshold)
        if threshold is not None and mode in {"always", "never"}:
            raise ConfigError(
                f"threshold={threshold} does nothing with gate={mode!r}, which compares nothing: "
                'name a gate that does ("f_minp", "f_meanp" or "f_ret"), or leave it out'
            )
        return gate

    def by_request(self, logprobs: Mapping[str, float]) -> Decision:
        """Retrieve if f_ret is above the threshold; a tie does not."""
        value = f_ret(logprobs)
        return Decision(value > self.threshold, self.mode, value, self.threshold)

    def settled(self, logprobs: Sequence[float], max_tokens: int) -> bool:
        """Whether an unfinished draft is sure to be followed by retrieval, so that it can stop.

        f_minp: once one token is less likely than the threshold, so is the least likely one.

        f_meanp: let S <= 0 be the sum of the log-probabilities so far, and N the most tokens of
        text that there can be. The finished draft has n <= N of them, and its sum S' is at most S,
        since no log-probability is positive. Hence S'/n <= S/n <= S/N, and f_meanp = exp(S'/n) is
        at most exp(S/N): if that is below the threshold, f_meanp will be.

        Args:
            logprobs: Of the tokens of text so far, at least one; each in [-inf, 0].
            max_tokens: N.
        """
        if self.mode == "f_minp":
            return exp(min(logprobs)) < self.threshold
        bound = exp(fsum(logprobs) / max_tokens)
        return self.mode == "f_meanp" and bound < self.threshold * (1 - ROUNDING)

    def by_confidence(self, draft: Draft) -> Decision:
        """Retrieve if the draft's confidence is below the threshold; a tie does not."""
        value = f_minp(draft) if self.mode == "f_minp" else f_meanp(draft)
        return Decision(value < self.threshold, self.mode, value, self.threshold)
