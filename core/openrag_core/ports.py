"""What the pipeline asks of the parts that it is given; a part comes in by satisfying one.

Every call takes many questions at once, so that work can be batched. `passages[i]` always belongs
to `questions[i]`; a part that gives more or fewer results than it was asked for is refused.

A part that is at home in event loops adds an async twin of a method under the same name with an
`a` before it (`awrite`, `aretrieve`); without one, async callers use a thread. A retriever that
costs nothing to ask in vain says so by an attribute `local = True`: see `OpenRAG.speculative`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from openrag_core.conversation import Condenser
from openrag_core.errors import ConfigError
from openrag_core.filters import Filter
from openrag_core.records import Draft, Evidence, Passage, Token, Written
from openrag_core.search import SearchOptions
from openrag_core.steps import lists_of

Settled = Callable[[Sequence[float], int], bool]
"""Given the log-probabilities of a draft's text tokens so far, and the most tokens that it can
have: whether the rest can be spared; see `Gate.settled`."""


@runtime_checkable
class Generator(Protocol):
    """A language model that drafts and writes answers."""

    @property
    def reflection_trained(self) -> bool:
        """Whether the log-probabilities of its reflection tokens mean anything."""
        ...

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """Log-probabilities of the reflection tokens right after each question."""
        ...

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        """Answer each question without reading; a draft that is settled may stop."""
        ...

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """Answer each question once from each piece of its evidence, in their order."""
        ...


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Piece(Generic[_Result]):
    """A token, as soon as it is written."""

    place: int
    """Of the text that it belongs to, among those that are written at the same time."""
    token: Token
    text: str
    """What it adds to the text, which begins and ends without white space; may be empty."""
    result: _Result | None = None
    """Of the last token: the whole."""


class TextStream(Protocol[_Result]):
    """Texts that are being written."""

    def next(self) -> Piece[_Result] | None:
        """Wait for the next piece; None after the last one.

        Raises:
            GenerationError: The model could not write.
        """
        ...

    async def anext(self) -> Piece[_Result] | None:
        """The same; the event loop goes on."""
        ...

    def cancel(self) -> None:
        """Let the model stop, if it is not done."""
        ...


@runtime_checkable
class StreamingGenerator(Generator, Protocol):
    """One whose text can be read while it is written."""

    def begin_draft(self, question: str) -> TextStream[Draft]:
        """As `draft`, of one question, to its end."""
        ...

    def begin_write(self, question: str, evidence: Sequence[Evidence]) -> TextStream[Written]:
        """As `write`, of one question; places are those of the evidence."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Finds passages."""

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """The passages nearest to each question, best first, at most `top_k` each."""
        ...


@runtime_checkable
class SearchRetriever(Retriever, Protocol):
    """One whose every search may be told more: filters, which vectors, how they are fused."""

    @property
    def options(self) -> SearchOptions:
        """Of searches that are told nothing."""
        ...

    def retrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """The passages nearest to each question, best first, at most `top_k` each."""
        ...


@runtime_checkable
class NarrowableRetriever(Retriever, Protocol):
    """One of which there are views that find some of its passages only."""

    def narrowed(self, filter_: Filter | Mapping[str, Any]) -> Retriever:
        """A view in which only passages are found of which the filter holds too."""
        ...


def narrowed(retriever: Retriever, filter_: Filter | Mapping[str, Any]) -> Retriever:
    """The retriever's view through a filter.

    Raises:
        ConfigError: It has none.
    """
    if not isinstance(retriever, NarrowableRetriever):
        raise ConfigError(
            f"{type(retriever).__name__} takes no filter: give a PassageIndex or a "
            "QdrantCollection, or set the filter where the retriever was made"
        )
    return retriever.narrowed(filter_)


@runtime_checkable
class ChainRetriever(Retriever, Protocol):
    """Finds chains of passages too, hop by hop."""

    def extend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> Sequence[Sequence[Evidence]]:
        """Chains that are one passage longer, best first, at most `top_k` of each question."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Puts the best of a few passages first, more carefully than a retriever can."""

    @property
    def min_relevance(self) -> float:
        """The `rerank_score` from which this reranker calls a passage relevant."""
        ...

    def rerank(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
    ) -> list[list[Passage]]:
        """The `top_k` best passages of each question, best first, each with a `rerank_score`."""
        ...


def ranked_by(reranker: Reranker, given: object, count: int, top_k: int) -> list[list[Passage]]:
    """What a reranker gave, if it is a ranking for each question.

    Args:
        reranker: That was asked.
        given: What came back.
        count: Of how many questions it was asked.
        top_k: Most passages of each; the rest is cut off.

    Raises:
        ConfigError: It is something else, or a passage has no `rerank_score`: the retriever's would
            be held against the reranker's minimum.
    """
    ranked = [own[:top_k] for own in lists_of(reranker, "rerank", given, count)]
    if any(passage.rerank_score is None for own in ranked for passage in own):
        raise ConfigError(
            f"{type(reranker).__name__}.rerank gave passages without a rerank_score, by which "
            "they are believed: have it score each one that it gives"
        )
    return ranked


_PARTS: Mapping[str, tuple[Any, str]] = {
    "generator": (Generator, "ChatGenerator(LangChainChat(model))"),
    "retriever": (Retriever, "LangChainRetriever(retriever)"),
    "reranker": (Reranker, "LangChainReranker(compressor, min_relevance=...)"),
    "condenser": (Condenser, "ChatCondenser(LangChainChat(model))"),
}


def check_part(name: str, part: object) -> None:
    """Refuse what only works wrapped, before a question is asked.

    Args:
        name: "generator", "retriever", "reranker" or "condenser"; the last two may be None.
        part: What was given as such.

    Raises:
        ConfigError: It does not satisfy the port.
    """
    port, wrapped = _PARTS[name]
    absent = part is None and name in {"reranker", "condenser"}
    if not absent and not isinstance(part, port):
        raise ConfigError(
            f"a {type(part).__name__} is no {name}: if it is LangChain's, give {wrapped}; "
            "LlamaIndex's parts have such wrappers in llamaindex_openrag"
        )
