"""The nouns of the pipeline, in the order in which they come to be.

question -> Draft -> Decision -> Passage -> Written -> Candidate -> Answer

A stage makes a new record and never edits the last one. Log-probabilities are natural.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import exp, inf, isnan
from statistics import fmean
from typing import Any, Literal, get_args

from openrag_core import html
from openrag_core.errors import ConfigError
from openrag_core.reflection import PassageScore

Signal = Literal["f_ret", "f_minp", "f_meanp"]
GateMode = Literal["always", "never", "f_ret", "f_minp", "f_meanp"]
EvidenceMode = Literal["each", "joint"]
Hops = int | Literal["auto"]


def check_hops(hops: Hops) -> None:
    """Refuse what is no number of hops.

    Raises:
        ConfigError: It is neither "auto" nor a whole number >= 1.
    """
    if hops != "auto" and not (isinstance(hops, int) and hops >= 1):
        raise ConfigError(f'hops must be a whole number >= 1, or "auto"; got {hops!r}')


def check_evidence(evidence: EvidenceMode) -> None:
    """Refuse what is no way to read passages.

    Raises:
        ConfigError: It is none.
    """
    if evidence not in get_args(EvidenceMode):
        raise ConfigError(
            f"evidence must be one of {', '.join(get_args(EvidenceMode))}; got {evidence!r}"
        )


@dataclass(frozen=True, slots=True)
class Token:
    """One token that the model wrote."""

    text: str
    """As decoded alone; half of a multi-byte character shows as U+FFFD."""
    logprob: float
    """log p(token | everything before it), in [-inf, 0]."""
    special: bool = False
    """Whether it is a reflection, end or other special token, hence no part of the text."""
    reflections: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Log-probability of every reflection token at this position; empty while untrained."""


def text_logprobs(tokens: tuple[Token, ...]) -> tuple[float, ...]:
    """Log-probabilities of the tokens that make up the text; special tokens are left out.

    One that is no number is -inf: nothing is known of that token, and nothing is sure.
    """
    known = (token.logprob for token in tokens if not token.special)
    return tuple(-inf if isnan(logprob) else logprob for logprob in known)


def mean_probability(tokens: tuple[Token, ...]) -> float:
    """Geometric mean of the probabilities of the text tokens, in [0, 1]; 0 without any."""
    logprobs = text_logprobs(tokens)
    return exp(fmean(logprobs)) if logprobs else 0.0


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer that the model wrote before it read any passage."""

    text: str
    tokens: tuple[Token, ...]
    """Conditioned on [No Retrieval]; with the end token, where the model reached it."""
    complete: bool = True
    """False where it was left at that, since the gate's decision could not change any more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decided, and the value that it compared with its threshold."""

    retrieve: bool
    mode: GateMode
    value: float | None = None
    """None where the mode is "always" or "never": nothing is compared."""
    threshold: float | None = None
    probability: float | None = None
    """That the answer without reading is right; told by a calibrated gate."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the corpus."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    """Where it comes from, as the reader would look it up: a path or an address."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    retrieval_score: float | None = None
    """Given by the retriever; higher is better, comparable within one result list only."""
    rerank_score: float | None = None
    """Given by the reranker; higher is better, comparable between questions."""
    origin: object | None = field(default=None, compare=False, repr=False)
    """What a framework knows it by, to be handed back as it came; `to_dict` leaves it out."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others: retrievers of others may give several texts the same id."""
        return self.id, self.text

    @property
    def titled_text(self) -> str:
        """The text below its title, which says what it is about."""
        return f"{self.title}\n{self.text}".strip()

    @property
    def rank_score(self) -> float | None:
        """Score of the last stage that ranked this passage."""
        return self.retrieval_score if self.rerank_score is None else self.rerank_score

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain values, but for the origin; metadata stays as it came."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "origin"}


def check_passages(passages: Iterable[Passage]) -> list[Passage]:
    """The passages as a list.

    Raises:
        ConfigError: One is none, or they are no list.
    """
    if not isinstance(passages, Iterable):
        raise ConfigError(f"passages must be a list of Passage(...), got {passages!r}")
    listed = list(passages)
    for one in listed:
        if not isinstance(one, Passage):
            raise ConfigError(f"a passage is a Passage(...); got {one!r}")
    return listed


Evidence = Sequence[Passage]
"""One passage, or several that one answer is written from."""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer that the model wrote, with what it said about itself."""

    evidence: tuple[Passage, ...]
    """What it was written from: one passage, or several together."""
    text: str
    tokens: tuple[Token, ...]
    truncated: bool = False
    """Whether the evidence was too long for the model and was cut at its end."""

    @property
    def rank_score(self) -> float | None:
        """The best score that a stage which ranked the passages gave one of them."""
        scores = [p.rank_score for p in self.evidence if p.rank_score is not None]
        return max(scores, default=None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A written answer with its score."""

    written: Written
    score: PassageScore
    total: float
    """What candidates are ranked by; see `PassageScore.total`."""

    @property
    def text(self) -> str:
        """The answer, without surrounding white space."""
        return self.written.text.strip()

    @property
    def evidence(self) -> tuple[Passage, ...]:
        """What the answer was written from."""
        return self.written.evidence


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user reads, with the evidence for it."""

    question: str
    text: str
    decision: Decision
    confidence: float
    """Geometric mean probability of the answer's text tokens, in [0, 1]; not calibrated.
    0 for an abstention, and where a chat model does not tell the probabilities of its tokens."""
    grounded: bool
    """Whether the text was written from a passage that reached the pipeline's minima. Never where
    there is no minimum of relevance."""
    abstained: bool = False
    """Whether the text says that the documents do not tell."""
    truncated: bool = False
    """Whether what the text was written from was too long for the model and was cut at its end."""
    probability: float | None = None
    """That the text is right, as a calibrated gate knows it; None for other gates. Of an
    abstention: that of the best answer, where it falls short of nothing but the target."""
    sources: tuple[Passage, ...] = ()
    """What the text rests on; after an abstention, the nearest passages."""
    candidates: tuple[Candidate, ...] = ()
    """Best first; empty when the gate stayed shut."""
    draft: Draft | None = None
    """What the model would say without reading; None where the gate did not ask for it."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage; questions answered together share it."""

    def __str__(self) -> str:
        return self.text

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Every passage that an answer was written from, best answer first."""
        return tuple(passage for candidate in self.candidates for passage in candidate.evidence)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single tokens, as plain values; metadata stays as it came."""
        return {
            "question": self.question,
            "answer": self.text,
            "confidence": self.confidence,
            "grounded": self.grounded,
            "abstained": self.abstained,
            "truncated": self.truncated,
            "probability": self.probability,
            "gate": asdict(self.decision),
            "draft": self.draft and {"text": self.draft.text, "complete": self.draft.complete},
            "sources": [passage.to_dict() for passage in self.sources],
            "candidates": [
                {
                    "text": candidate.text,
                    "total": candidate.total,
                    "score": asdict(candidate.score),
                    "passages": [passage.to_dict() for passage in candidate.evidence],
                    "truncated": candidate.written.truncated,
                }
                for candidate in self.candidates
            ],
            "seconds": dict(self.seconds),
        }

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return html.answer(self.to_dict())
