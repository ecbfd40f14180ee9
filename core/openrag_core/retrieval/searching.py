"""What every retriever over points does: questions -> queries -> hits, none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set

from openrag_core.errors import ConfigError, FilterError, QuestionError
from openrag_core.filters import All, AnyOf, Condition, Filter, Not, conditions
from openrag_core.retrieval.encoders import DenseEncoder, checked_vectors
from openrag_core.retrieval.payload import FIELDS
from openrag_core.retrieval.sparse import SparseEncoder
from openrag_core.retrieval.store import Hit, PointStore, Query, SparseVector
from openrag_core.search import SearchOptions
from openrag_core.steps import Call, Steps

_SPARE = 3  # times top_k that is searched, since some of what is found is left out
_WIDER = 4  # times that, where it was not enough
_MOST = 5_000  # then fewer passages will do: every one that is looked at costs its payload
_COMPARING = {"$eq", "$gt", "$gte", "$lt", "$lte", "$in"}
Contents = Callable[[Hit], tuple[str, str]]
"""The text of a point, and the document that it is of."""


def check_call(questions: Sequence[str], top_k: int) -> None:
    """Refuse what `retrieve` cannot take.

    Raises:
        QuestionError: The questions are one string instead of a list.
        ConfigError: `top_k` is below 1.
    """
    if isinstance(questions, str):
        raise QuestionError(f"{questions!r} is one question: give a list of them")
    if not isinstance(top_k, int) or top_k < 1:
        raise ConfigError(f"top_k must be a whole number, at least 1; got {top_k!r}")


def check_filter(filter_: Filter | None) -> None:
    """Refuse fields that no passage can have.

    Raises:
        FilterError: There is one.
    """
    for one in conditions(filter_) if filter_ is not None else ():
        if one.field not in FIELDS and not one.field.startswith("metadata."):
            raise FilterError(
                f"{one.field!r} is no field of a passage: filter by {', '.join(FIELDS)}, or "
                f"by what documents bring along (metadata.{one.field})"
            )


def check_found(
    store: PointStore, filter_: Filter | None, among: Callable[[Condition], Filter]
) -> None:
    """Say why nothing was found for a question, if it is a mistake.

    Args:
        store: Where it was searched.
        filter_: As the user gave it.
        among: A condition as the store is asked.

    Raises:
        FilterError: A field that the filter compares with is in no passage.
    """
    absent = {
        field
        for field in _compared(filter_)
        if not store.count(among(Condition(field, "$exists", value=True)))
    }
    if filter_ is not None and (missing := _to_blame(filter_, absent)):
        raise FilterError(f"no passage at {store.address} has a field {missing!r}")


def _compared(filter_: Filter | None) -> set[str]:
    """Fields without which a condition cannot hold."""
    named = conditions(filter_) if filter_ is not None else ()
    return {one.field for one in named if one.operator in _COMPARING}


def _to_blame(filter_: Filter, absent: Set[str]) -> str | None:
    """The field for lack of which the filter holds of nothing."""
    match filter_:
        case Condition(field, operator):
            return field if operator in _COMPARING and field in absent else None
        case All(parts):
            return next(filter(None, (_to_blame(part, absent) for part in parts)), None)
        case AnyOf(parts):
            blamed = [_to_blame(part, absent) for part in parts]
            return blamed[0] if blamed and all(blamed) else None
        case Not():
            return None


def encode(
    questions: Sequence[str],
    options: SearchOptions,
    dense: DenseEncoder | None,
    sparse: SparseEncoder | None,
) -> list[Query]:
    """The questions as the options' search needs them; the rest of a query stays empty."""
    nothing = SparseVector([], [])
    meanings: Iterable[list[float]] = ([] for _ in questions)
    words: Iterable[SparseVector] = (nothing for _ in questions)
    if dense is not None and (options.mode != "sparse" or options.diversity is not None):
        meanings = checked_vectors(dense, dense.encode_questions(questions))
    if sparse is not None and options.mode != "dense":
        words = sparse.encode_questions(questions)
    return [Query(*pair) for pair in zip(meanings, words, strict=True)]


def search_distinct(
    store: PointStore,
    queries: Sequence[Query],
    top_k: int,
    options: SearchOptions,
    contents: Contents,
) -> Steps[list[list[Hit]]]:
    """Search once; and again, for more, where too many of what was found is left out.

    Of hits with the same text the best one is kept. Where thousands of hits are left out, fewer
    than `top_k` may be given.
    """
    kept: list[list[Hit]] = [[] for _ in queries]
    rows, limit = list(range(len(queries))), _SPARE * top_k
    while rows:
        asked = [queries[row] for row in rows]
        found: list[list[Hit]] = yield Call(store, "search", (asked, limit, options))
        for row, hits in zip(rows, found, strict=True):
            kept[row] = _distinct(hits, options.max_per_document, contents)[:top_k]
        more = zip(rows, found, strict=True)
        rows = [row for row, hits in more if len(hits) == limit and len(kept[row]) < top_k]
        if limit >= _MOST:
            break
        limit = min(limit * _WIDER, _MOST)
    return kept


def _distinct(hits: Sequence[Hit], max_per_document: int | None, contents: Contents) -> list[Hit]:
    """Each text once, and of each document no more than wanted; the best ones."""
    texts: set[str] = set()
    documents: Counter[str] = Counter()
    kept = []
    for hit in hits:
        text, document = contents(hit)
        if text in texts or documents[document] == max_per_document:
            continue
        texts.add(text)
        documents[document] += 1
        kept.append(hit)
    return kept
