"""What a server is asked, in the models of qdrant-client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from openrag_core.filters import Filter
from openrag_core.retrieval.store import Conditions, Query, SparseVector
from openrag_core.search import SearchOptions

CONDITIONS = Conditions(
    filter=models.Filter,
    match=lambda key, value: models.FieldCondition(key=key, match=models.MatchValue(value=value)),
    match_any=lambda key, values: models.FieldCondition(
        key=key, match=models.MatchAny(any=list(values))
    ),
    number=lambda key, **bounds: models.FieldCondition(key=key, range=models.Range(**bounds)),
    time=lambda key, **bounds: models.FieldCondition(key=key, range=models.DatetimeRange(**bounds)),
    empty=lambda key: models.IsEmptyCondition(is_empty=models.PayloadField(key=key)),
)


@dataclass(frozen=True, slots=True)
class VectorNames:
    """What the vectors of a collection are called."""

    dense: str | None
    """Empty for the vector without a name; None where there is none."""
    sparse: str | None
    """None where there is none."""


def search_request(
    query: Query, limit: int, options: SearchOptions, names: VectorNames
) -> models.QueryRequest:
    """What a search asks for, in one request.

    Args:
        query: Holds what the options' mode needs.
        limit: Hits wanted.
        options: Of them what an engine can do.
        names: Of the vectors in the collection.
    """
    among = None if options.filter is None else CONDITIONS.translate(options.filter)
    nearest: dict[str, Any] = {
        "dense": {"query": query.dense, "using": names.dense},
        "sparse": {"query": sparse_vector(query.sparse), "using": names.sparse},
    }
    wide = max(options.prefetch, limit)
    root: dict[str, Any]
    if options.mode == "hybrid":
        root = {
            "query": models.FusionQuery(fusion=models.Fusion.DBSF)
            if options.fusion == "dbsf"
            else models.RrfQuery(
                rrf=models.Rrf(k=options.rrf_k, weights=list(options.rrf_weights))
            ),
            "prefetch": [
                models.Prefetch(limit=wide, filter=among, **one) for one in nearest.values()
            ],
        }
    else:
        root = {**nearest[options.mode], "filter": among}
    if options.diversity is not None:
        mmr = models.Mmr(diversity=options.diversity, candidates_limit=wide)
        root = {
            "query": models.NearestQuery(nearest=query.dense, mmr=mmr),
            "using": names.dense,
            "prefetch": [models.Prefetch(limit=wide, score_threshold=options.min_score, **root)],
        }
        return models.QueryRequest(limit=limit, with_payload=True, **root)
    return models.QueryRequest(
        limit=limit, with_payload=True, score_threshold=options.min_score, **root
    )


def to_qdrant(filter_: Filter) -> models.Filter:
    """The filter as qdrant-client takes it, for calls of your own."""
    translated: models.Filter = CONDITIONS.translate(filter_)
    return translated


def sparse_vector(vector: SparseVector) -> models.SparseVector:
    """Ours as theirs."""
    return models.SparseVector(indices=vector.indices, values=vector.values)
