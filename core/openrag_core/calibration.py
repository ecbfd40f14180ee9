"""From confidence to the probability of being right, and from a target to how much is read.

A `Gate` compares a confidence with a threshold that means nothing by itself. A `CalibratedGate`
knows, from questions with known answers, how often drafts and answers of each confidence were
right, and takes a target in its place: how often answers shall be right, or how often to retrieve.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import floor, inf
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from openrag_core.errors import ConfigError
from openrag_core.gate import Gate, f_meanp, f_minp
from openrag_core.records import Candidate, Decision, Draft, GateMode, Signal
from openrag_core.reflection import ScoreWeights

FILE = "gate.json"
"""What a fitted gate is called in the folder of its checkpoint."""
_ONE_TARGET = "give either min_accuracy or max_retrieval_rate"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence -> probability: straight lines between points, constant beyond the ends.

    Raises:
        ConfigError: The points are none, or not in order.
    """

    confidence: tuple[float, ...]
    """Strictly increasing."""
    probability: tuple[float, ...]
    """Never decreasing, in [0, 1]; of the same length."""

    def __post_init__(self) -> None:
        for name in ("confidence", "probability"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        ordered = (
            all(a < b for a, b in pairwise(self.confidence))
            and all(a <= b for a, b in pairwise(self.probability))
            and all(0.0 <= p <= 1.0 for p in self.probability)
        )
        if not ordered or not len(self.confidence) == len(self.probability) > 0:
            raise ConfigError(
                "a calibration is a list of growing confidences, and as many probabilities in "
                f"[0, 1] that never fall; got {self.confidence} and {self.probability}"
            )

    def __call__(self, confidence: float) -> float:
        """The probability of being right."""
        place = bisect_left(self.confidence, confidence)
        if place == 0:
            return self.probability[0]
        if place == len(self.confidence):
            return self.probability[-1]
        (x0, x1), (y0, y1) = (
            points[place - 1 : place + 1] for points in (self.confidence, self.probability)
        )
        return y0 + (y1 - y0) * (confidence - x0) / (x1 - x0)

    def least(self, probability: float) -> float:
        """The least confidence that reaches a probability: -inf if all do, inf if none does."""
        place = bisect_left(self.probability, probability)
        if place == 0:
            return -inf
        if place == len(self.probability):
            return inf
        (x0, x1), (y0, y1) = (
            points[place - 1 : place + 1] for points in (self.confidence, self.probability)
        )
        return x0 + (x1 - x0) * (probability - y0) / (y1 - y0)


@dataclass(frozen=True, kw_only=True)
class CalibratedGate:
    """Decides how much to read: nothing, one passage, several, or so much that it abstains.

    With `min_accuracy` the draft is the answer where it is right with that probability. Otherwise
    one passage is read, then more, until the best answer reaches it; where it does not, the
    pipeline abstains. With `max_retrieval_rate` the least certain of the drafts are looked up, as
    many as that allows, and answers are believed as with any gate.

    The probabilities are those of the questions and passages that it was fitted on: fit it on
    your own (`openrag calibrate`).

    Raises:
        ConfigError: Not exactly one target is given, one is outside [0, 1], or it is out of
            reach; the message says by how much.
    """

    signal: Signal
    """What of a draft is its confidence; of "f_ret", one minus it."""
    memory: Calibration
    """Confidence of a draft -> probability that it is right."""
    reading: Mapping[int, Calibration]
    """By the number of passages read, `worth` of the best answer -> probability of being right."""
    quantiles: tuple[float, ...]
    """Of the drafts' confidence: 0 %, ..., 100 %, evenly spaced; at least 2."""
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    """Questions, model and errors of the fit, for the reader."""
    weights: ScoreWeights = field(default_factory=ScoreWeights)
    """Of the scores that it was fitted to."""
    min_accuracy: float | None = None
    """Least probability of being right, in [0, 1]."""
    max_retrieval_rate: float | None = None
    """Largest share of questions that are looked up, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.signal not in get_args(Signal):
            raise ConfigError(
                f"signal must be one of {', '.join(get_args(Signal))}; got {self.signal!r}"
            )
        if not self.reading or min(self.reading) < 1 or len(self.quantiles) < 2:
            raise ConfigError("a calibrated gate needs reading for >= 1 passages, and quantiles")
        if self.min_accuracy is self.max_retrieval_rate is None:
            raise ConfigError(_ONE_TARGET)
        check_target(self.min_accuracy, self.max_retrieval_rate)
        most = max(one.probability[-1] for one in (self.memory, *self.reading.values()))
        if self.min_accuracy is not None and self.min_accuracy > most:
            most = floor(most * 1000) / 1000  # as it is shown, it can be asked for
            raise ConfigError(
                f"min_accuracy={self.min_accuracy:g} is out of reach: the most certain answers "
                f"were right with a probability of {most:.3f} when this gate was fitted, "
                f"{self.min_accuracy - most:.3f} short. Ask for at most that, or fit the gate of "
                "a better model"
            )

    def check_fit(self, top_k: int, weights: ScoreWeights) -> None:
        """Refuse a pipeline that the gate was not fitted to.

        Args:
            top_k: Passages that it reads.
            weights: Of its candidates' scores.

        Raises:
            ConfigError: They are others than those of the fit.
        """
        if top_k != (fitted := max(self.reading)):
            raise ConfigError(
                f"the gate was fitted for {fitted} passages, and top_k={top_k}: set it to that, or "
                "fit the gate again"
            )
        if weights != self.weights:
            raise ConfigError(
                f"the gate was fitted to scores of {self.weights}, and these are of {weights}: set "
                "`weights` to those, or fit the gate again"
            )

    @cached_property
    def gate(self) -> Gate:
        """The plain gate that this comes to."""
        least = self._least
        if least == inf:
            return Gate("always")
        if least == -inf:
            return Gate("never")
        least = min(1.0, max(0.0, least))
        return Gate(self.signal, 1.0 - least if self.signal == "f_ret" else least)

    @property
    def mode(self) -> GateMode:
        """Of the plain gate."""
        return self.gate.mode

    @property
    def amounts(self) -> tuple[int, ...]:
        """How many passages are read, one number after the other, until it is enough."""
        numbers = sorted(self.reading)
        return tuple(numbers if self.min_accuracy is not None else numbers[-1:])

    def worth(self, candidate: Candidate) -> float:
        """The total without the passage's rank.

        That chooses among answers; how sure the best one is, is a matter of what it says.
        """
        rank = candidate.score.reciprocal_rank or 0.0
        return candidate.total - self.weights.reciprocal_rank * rank

    def least_worth(self, amount: int) -> float:
        """What `worth` must reach after so many passages; -inf for any."""
        if self.min_accuracy is None:
            return -inf
        return self.reading[amount].least(self.min_accuracy)

    def believes(self, amount: int, candidate: Candidate) -> bool:
        """Whether an answer reaches the target after so many passages."""
        return self.worth(candidate) >= self.least_worth(amount)

    def settled(self, logprobs: Sequence[float], max_tokens: int) -> bool:
        """Whether an unfinished draft is sure to be followed by retrieval; see `Gate.settled`."""
        return self.gate.settled(logprobs, max_tokens)

    def opens(self, confidence: float) -> bool:
        """Whether passages are looked up for a draft of this confidence; a tie does not.

        It is compared as it was fitted: of "f_ret", 1 - (1 - x) need not be x.
        """
        return confidence < self._least

    def by_request(self, logprobs: Mapping[str, float]) -> Decision:
        """As `Gate.by_request`, with the probability that the draft will be right."""
        decision = self._known(self.gate.by_request(logprobs))
        return replace(decision, retrieve=self.opens(1.0 - (decision.value or 0.0)))

    def by_confidence(self, draft: Draft) -> Decision:
        """As `Gate.by_confidence`, with the probability that the draft is right.

        Of a draft that was left unfinished, an upper bound.
        """
        return self._known(self.gate.by_confidence(draft))

    def right(self, draft: Draft) -> float | None:
        """Probability that a whole draft is right; None for "f_ret", which no draft tells."""
        if self.signal == "f_ret":
            return None
        return self.memory((f_minp if self.signal == "f_minp" else f_meanp)(draft))

    @property
    def _least(self) -> float:
        """The least confidence of a draft that is the answer."""
        if self.min_accuracy is not None:
            return self.memory.least(self.min_accuracy)
        share = self.max_retrieval_rate or 0.0
        if share in {0.0, 1.0}:
            return inf if share else -inf
        last = len(self.quantiles) - 1
        return self.quantiles[int(share * last)]  # rounded down: no more than that share

    def _known(self, decision: Decision) -> Decision:
        value = decision.value or 0.0
        confidence = 1.0 - value if self.signal == "f_ret" else value
        return replace(decision, probability=self.memory(confidence))


def check_target(min_accuracy: float | None, max_retrieval_rate: float | None) -> None:
    """Refuse what no gate could aim at.

    Args:
        min_accuracy: See `CalibratedGate`.
        max_retrieval_rate: See `CalibratedGate`.

    Raises:
        ConfigError: Both are given, or one is outside [0, 1].
    """
    if min_accuracy is not None and max_retrieval_rate is not None:
        raise ConfigError(_ONE_TARGET)
    targets = {"min_accuracy": min_accuracy, "max_retrieval_rate": max_retrieval_rate}
    for name, value in targets.items():
        if value is not None and not (isinstance(value, Real) and 0.0 <= value <= 1.0):
            raise ConfigError(f"{name} must be in [0, 1], got {value!r}")


def read_gate(
    file: str | PathLike[str],
    *,
    min_accuracy: float | None = None,
    max_retrieval_rate: float | None = None,
) -> CalibratedGate:
    """A gate that was fitted, with a target.

    Args:
        file: As `openrag calibrate` writes it.
        min_accuracy: See `CalibratedGate`.
        max_retrieval_rate: See `CalibratedGate`.

    Raises:
        ConfigError: There is none, it is damaged, or the target is out of reach.
    """
    try:
        stored = json.loads(Path(file).read_text(encoding="utf-8"))
        reading = {int(k): Calibration(**one) for k, one in stored["reading"].items()}
        fitted = {
            "signal": stored["signal"],
            "memory": Calibration(**stored["memory"]),
            "quantiles": tuple(map(float, stored["quantiles"])),
            "fitted_on": stored["fitted_on"],
            "weights": ScoreWeights(**stored.get("weights", {})),
        }
    except FileNotFoundError as error:
        raise ConfigError(
            f"no gate was fitted for this model ({file} is not there): openrag calibrate makes one "
            "from questions with known answers; or give a gate and a threshold"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no fitted gate, as openrag calibrate writes it ({error!r})"
        ) from error
    return CalibratedGate(
        reading=reading,
        min_accuracy=min_accuracy,
        max_retrieval_rate=max_retrieval_rate,
        **fitted,
    )
