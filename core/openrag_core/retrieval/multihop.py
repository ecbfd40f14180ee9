"""Chains of passages for questions that no single passage answers: beam search, hop by hop.

The next passage is searched with the question and the names that stand in the chain so far: what
leads from one passage to the next is nearly always a name. A chain's score is

    1 / (2 + rank of the chain so far) + 1 / (2 + rank of the next passage) + 0.1 if it was named

with ranks from 1, where a passage is named if its title stands in the chain. With a reranker, which
reads the chain as one text, both orders are joined by the same reciprocal ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain as joined
from itertools import count, islice
from typing import Any, Self

import regex

from openrag_core.errors import ConfigError
from openrag_core.filters import Filter
from openrag_core.ports import Reranker, Retriever, SearchRetriever, narrowed, ranked_by
from openrag_core.records import Evidence, Passage
from openrag_core.search import SearchOptions
from openrag_core.steps import Call, Steps, arun, lists_of, run

_OFFSET = 2  # of ranks: the first ones shall differ
_NAMED = 0.1
_RERANKED = 40  # chains of a question that a reranker reads
_NAME = regex.compile(  # capitalised words, joined by small ones
    r"\b\p{Lu}[\w.'\u2019-]*(?:\s+(?:(?:of|the|de|van|von|and|la|al)\s+)*\p{Lu}[\w.'\u2019-]*)*"
)
_IN_BRACKETS = regex.compile(r"\s*\([^)]*\)")
_BEGINNING = 300  # characters searched with where nothing looks like a name
Chain = tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class _Scored:
    chain: Chain
    score: float

    def passages(self) -> Chain:
        """Each with the chain's score: they are ranked together."""
        return tuple(replace(passage, retrieval_score=self.score) for passage in self.chain)


class MultihopRetriever:
    """Lengthens chains of passages; satisfies the `ChainRetriever` port.

    The passages in a chain stand in the order in which they were found, and bear its score. Chains
    of the same passages count once.

    Args:
        retriever: Finds the passages of every hop.
        reranker: Reads whole chains, beside the retriever's order; None leaves that alone.
        beam_width: Chains of a question that are lengthened at each hop, >= 1.
        fetch_k: Passages that are tried at the end of each, >= 1.

    Raises:
        ConfigError: A number is below 1.
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        reranker: Reranker | None = None,
        beam_width: int = 8,
        fetch_k: int = 10,
    ) -> None:
        if beam_width < 1 or fetch_k < 1:
            raise ConfigError(
                f"beam_width and fetch_k must be at least 1, got {beam_width}, {fetch_k}"
            )
        self._retriever = retriever
        self._reranker = reranker
        self._beam_width = beam_width
        self._fetch_k = fetch_k

    @property
    def reranker(self) -> Reranker | None:
        """Whose scores the chains bear."""
        return self._reranker

    @property
    def options(self) -> SearchOptions:
        """Those of the retriever, where it has some."""
        return getattr(self._retriever, "options", None) or SearchOptions()

    @property
    def tenant(self) -> str | None:
        """The retriever's, where it has one."""
        return getattr(self._retriever, "tenant", None)

    @property
    def local(self) -> bool:
        """Whether the retriever is in this process."""
        return bool(getattr(self._retriever, "local", False))

    def narrowed(self, filter_: Filter | Mapping[str, Any]) -> Self:
        """As of a `PassageIndex`: in every hop.

        Raises:
            ConfigError: The retriever takes no filters.
        """
        view = copy(self)
        view._retriever = narrowed(self._retriever, filter_)
        return view

    def retrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """The passages of the first hop, best first.

        Raises:
            ConfigError: The retriever cannot be told options.
        """
        return run(self._retrieve(questions, top_k, options))

    async def aretrieve(
        self, questions: Sequence[str], top_k: int, options: SearchOptions | None = None
    ) -> list[list[Passage]]:
        """The same; the event loop goes on."""
        return await arun(self._retrieve(questions, top_k, options))

    def close(self) -> None:
        """Close the retriever, where it can be closed."""
        if close := getattr(self._retriever, "close", None):
            close()

    def extend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> list[list[Chain]]:
        """Chains that are one passage longer.

        Args:
            questions: Searched together.
            chains: Of each question, best first; the best `beam_width` are lengthened.
            top_k: Most chains of each question that come back.

        Returns:
            Of each question, best first. Where nothing can be added, the chains as they were.
        """
        return run(self._extend(questions, chains, top_k))

    async def aextend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> list[list[Chain]]:
        """The same; the event loop goes on."""
        return await arun(self._extend(questions, chains, top_k))

    def chains(self, questions: Sequence[str], top_k: int, *, hops: int = 2) -> list[list[Chain]]:
        """Chains of so many passages, from nothing but the questions.

        Args:
            questions: Searched together.
            top_k: Most chains of each question.
            hops: Passages in a chain, >= 1.

        Returns:
            Of each question its chains, best first, each a tuple of passages.

        Raises:
            ConfigError: A number is below 1.
        """
        if top_k < 1 or hops < 1:
            raise ConfigError(f"top_k and hops must be at least 1, got {top_k}, {hops}")
        found = self.retrieve(questions, max(top_k, self._beam_width))
        made: list[list[Chain]] = [[(passage,) for passage in own] for own in found]
        for hop in range(2, hops + 1):
            made = self.extend(questions, made, top_k if hop == hops else self._beam_width)
        return [own[:top_k] for own in made]

    def _retrieve(
        self,
        questions: Sequence[str],
        top_k: int,
        options: SearchOptions | None = None,
        owners: Sequence[int] | None = None,
    ) -> Steps[list[list[Passage]]]:
        arguments: tuple[object, ...] = (questions, top_k)
        if options is not None:
            if not isinstance(self._retriever, SearchRetriever):
                raise ConfigError(
                    f"{type(self._retriever).__name__} takes neither filters nor options: leave "
                    "them out"
                )
            arguments = (*arguments, options)
        given = yield Call(self._retriever, "retrieve", arguments, owners)
        return lists_of(self._retriever, "retrieve", given, len(questions))

    def _extend(
        self, questions: Sequence[str], chains: Sequence[Sequence[Evidence]], top_k: int
    ) -> Steps[list[list[Chain]]]:
        kept = [[tuple(chain) for chain in own[: self._beam_width]] for own in chains]
        asked = [
            lengthened_question(question, chain)
            for question, own in zip(questions, kept, strict=True)
            for chain in own
        ]
        if not asked:
            return kept
        longest = max(len(chain) for own in kept for chain in own)
        owners = [place for place, own in enumerate(kept) for _ in own]
        lengthening = self._retrieve(asked, self._fetch_k + longest, owners=owners)
        found = iter((yield from lengthening))
        longer = [_best([(c, next(found)) for c in own], self._fetch_k) for own in kept]
        if self._reranker is not None:
            longer = yield from self._reranked(self._reranker, questions, longer)
        return [
            [one.passages() for one in new[:top_k]] or old[:top_k]
            for new, old in zip(longer, kept, strict=True)
        ]

    @staticmethod
    def _reranked(
        reranker: Reranker, questions: Sequence[str], chains: Sequence[Sequence[_Scored]]
    ) -> Steps[list[list[_Scored]]]:
        """Joined with the reranker's order; its score stays on the passages."""
        texts = [
            [_as_passage(one.chain, number) for number, one in enumerate(own[:_RERANKED])]
            for own in chains
        ]
        given = yield Call(reranker, "rerank", (questions, texts, _RERANKED))
        ranked = ranked_by(reranker, given, len(questions), _RERANKED)
        both = []
        for own, read, order in zip(chains, texts, ranked, strict=True):
            numbers = {text.id: number for number, text in enumerate(read)}
            scored = []
            for rank, text in enumerate(order, start=1):
                if text.id not in numbers:
                    raise ConfigError(
                        f"{type(reranker).__name__} gave back the id {text.id!r}, which is none of "
                        "those that it was given: have it keep the ids of passages"
                    )
                number = numbers[text.id]
                chain = tuple(replace(p, rerank_score=text.rerank_score) for p in own[number].chain)
                score = 1 / (_OFFSET + rank) + 1 / (_OFFSET + number + 1)
                scored.append(_Scored(chain, score))
            both.append(sorted(scored, key=lambda one: -one.score))
        return both


def lengthened_question(question: str, chain: Evidence) -> str:
    """What the next passage of a chain is searched with: the question and the names in the chain.

    Args:
        question: As it was asked.
        chain: Where no name is in it, as in scripts without capitals, its beginning is taken.
    """
    known = f"{question} {' '.join(passage.title for passage in chain)}".lower()
    found = joined.from_iterable(_NAME.findall(passage.text) for passage in chain)
    whole = dict.fromkeys(name.rstrip(".'-") for name in found)
    names = [name for name in whole if name.lower() not in known]
    return f"{question} {' '.join(names) or chain[-1].text[:_BEGINNING]}"


def _best(lengthened: Sequence[tuple[Chain, Sequence[Passage]]], fetch_k: int) -> list[_Scored]:
    """Every chain with every passage that was found for it, best first, each set once."""
    best: dict[frozenset[tuple[str, str]], _Scored] = {}
    for place, (chain, passages) in enumerate(lengthened, start=1):
        for rank, passage in islice(_new(chain, passages), fetch_k):
            score = 1 / (_OFFSET + place) + 1 / (_OFFSET + rank) + _NAMED * _named(passage, chain)
            key = frozenset(p.key for p in (*chain, passage))
            if key not in best or best[key].score < score:
                best[key] = _Scored((*chain, passage), score)
    return sorted(best.values(), key=lambda one: -one.score)


def _new(chain: Chain, passages: Sequence[Passage]) -> Iterator[tuple[int, Passage]]:
    """Passages that say something and are not in the chain yet, with their ranks among those."""
    there = {passage.text for passage in chain}
    new = (p for p in passages if p.text.strip() and p.text not in there)
    return zip(count(1), new, strict=False)


def _named(passage: Passage, chain: Chain) -> bool:
    title = _IN_BRACKETS.sub("", passage.title).lower()
    return bool(title) and any(title in other.text.lower() for other in chain)


def _as_passage(chain: Chain, number: int) -> Passage:
    text = "\n".join(passage.titled_text for passage in chain)
    return Passage(id=str(number), text=text)
