"""The reflection tokens, what each reply is worth, and the score they add up to.

An Open-RAG model writes special tokens among the words of its answer. Some ask for passages or
mark where one stands; the others reply to a question about the text, an `Aspect`. Every critique
is one operation, the mean worth of the possible replies, read with a different table.

Source: Asai et al., Self-RAG (arXiv:2310.11511), section 3.3; the values of the utility replies
and the weights are those of the released Open-RAG code (arXiv:2410.01782).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, inf, isfinite
from numbers import Real

from openrag_core.errors import ConfigError, ReflectionError

NO_RETRIEVAL = "[No Retrieval]"
RETRIEVAL = "[Retrieval]"
PARAGRAPH, END_PARAGRAPH = "<paragraph>", "</paragraph>"


@dataclass(frozen=True, slots=True)
class Aspect:
    """One question that the model answers about its own text."""

    symbol: str
    worth: Mapping[str, float]
    """Value of each reply, keyed by token; dimensionless."""

    def mean_worth(self, logprobs: Mapping[str, float]) -> float:
        """Mean worth of the replies, weighted by their probability among this aspect's tokens.

        Args:
            logprobs: Natural log-probability, in [-inf, 0], of each token at the one position
                where the model replies. Tokens of other aspects are ignored.

        Raises:
            ReflectionError: A token is absent, is no log-probability, or all are -inf.
        """
        if absent := self.worth.keys() - logprobs.keys():
            raise ReflectionError(f"{self.symbol}: no log-probability for {sorted(absent)}")
        replies = {token: logprobs[token] for token in self.worth}
        if not all(logprob <= 0.0 for logprob in replies.values()):  # a NaN fails this too
            raise ReflectionError(f"{self.symbol}: not log-probabilities: {replies}")
        if (top := max(replies.values())) == -inf:
            raise ReflectionError(f"{self.symbol}: every reply has probability zero")
        mass = {token: exp(lp - top) for token, lp in replies.items()}  # largest 1: no underflow
        return sum(self.worth[token] * mass[token] for token in mass) / sum(mass.values())


RETRIEVE = Aspect("f_ret", {NO_RETRIEVAL: 0.0, RETRIEVAL: 1.0})
RELEVANCE = Aspect("rel", {"[Irrelevant]": 0.0, "[Relevant]": 1.0})
SUPPORT = Aspect(
    "sup",
    {"[No support / Contradictory]": 0.0, "[Partially supported]": 0.5, "[Fully supported]": 1.0},
)
UTILITY = Aspect("use", {f"[Utility:{stars}]": (stars - 3) / 2 for stars in range(1, 6)})

TOKENS: tuple[str, ...] = (
    *(token for aspect in (RETRIEVE, RELEVANCE, SUPPORT, UTILITY) for token in aspect.worth),
    "[Continue to Use Evidence]",
    PARAGRAPH,
    END_PARAGRAPH,
)
"""All fifteen; each is a single id in the vocabulary."""


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """Weight of each part of a passage's score; the defaults are those of the released code.

    Raises:
        ConfigError: One is no finite number.
    """

    rel: float = 1.0
    """Of relevance: the model's own judgement, or `rank` while it has none."""
    sup: float = 1.0
    use: float = 0.5
    seq: float = 1.0
    """Of the sequence probability; 0 leaves it out."""
    reciprocal_rank: float = 0.0
    """Of 1 / place in the order of retriever and reranker; the released code has no such part."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, Real) or not isfinite(value):
                raise ConfigError(f"the weight {name} must be a finite number, got {value!r}")


def check_weights(weights: ScoreWeights | None) -> None:
    """Refuse what is no weights.

    Raises:
        ConfigError: They are something else.
    """
    if weights is not None and not isinstance(weights, ScoreWeights):
        raise ConfigError(f"weights must be ScoreWeights(...), got {weights!r}")


TRAINED_WEIGHTS = ScoreWeights(reciprocal_rank=0.5)
"""Those of the released code, and half of 1 / place, so that the order in which passages were found
counts too (measured in docs/results.md)."""
UNTRAINED_WEIGHTS = ScoreWeights(seq=0.0)
"""While reflection tokens are untrained, passages alone rank: a small model is as sure of what it
makes up as of what it reads (measured in docs/log.md)."""


@dataclass(frozen=True, slots=True)
class PassageScore:
    """How good the answer written from one passage is; every field is dimensionless.

    `rel`, `sup` and `use` are the model's critique of itself. A model whose reflection tokens are
    not trained gives none; `rank` then stands in place of `rel`.
    """

    seq: float
    """exp(mean token log-probability) of the answer, in [0, 1]; 0 of an empty one."""
    rel: float | None = None
    """Is the passage relevant to the question? In [0, 1]."""
    sup: float | None = None
    """Does the passage support the answer? In [0, 1]."""
    use: float | None = None
    """Is the answer useful? In [-1, 1]."""
    rank: float | None = None
    """Score of the reranker, or of the retriever where there is none."""
    reciprocal_rank: float | None = None
    """1 / place of the passage among those that were read, as retriever and reranker order them;
    in (0, 1]."""

    @property
    def relevance(self) -> float:
        """`rel` where the model gives it, otherwise `rank`, otherwise 0."""
        return next((value for value in (self.rel, self.rank) if value is not None), 0.0)

    def total(self, weights: ScoreWeights) -> float:
        """The number by which answers are ranked: the weighted sum of the parts that are there."""
        parts = (
            (weights.seq, self.seq),
            (weights.rel, self.relevance),
            (weights.sup, self.sup),
            (weights.use, self.use),
            (weights.reciprocal_rank, self.reciprocal_rank),
        )
        return sum(weight * value for weight, value in parts if value is not None)
