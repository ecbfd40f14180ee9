"""How passages are searched: which vectors, how they are fused, among which passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from openrag_core.checks import check_types
from openrag_core.errors import ConfigError
from openrag_core.filters import Filter, as_filter

SearchMode = Literal["hybrid", "dense", "sparse"]
Fusion = Literal["dbsf", "rrf"]
_LEAST = {"rrf_k": 1, "prefetch": 1, "neighbours": 0, "max_per_document": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What a search may be told beside the question; the defaults did best (docs/results.md).

    Raises:
        ConfigError: A value is of another type or outside its range.
    """

    mode: SearchMode = "hybrid"
    """By meaning ("dense"), by words ("sparse"), or by both."""
    fusion: Fusion = "dbsf"
    """How both are joined: "dbsf" adds scores, each kind scaled by its mean and deviation; "rrf"
    adds 1 / (rrf_k - 1 + rank / weight), ranks from 1."""
    rrf_k: int = 2
    """>= 1. A large one, such as the usual 60, tells the first ranks hardly apart."""
    rrf_weights: tuple[float, float] = (1.0, 1.0)
    """Of dense and sparse; > 0. A large one makes it count that a kind found a passage at all, and
    its order less: the engine divides the rank by it."""
    prefetch: int = 100
    """Passages of each kind that are joined; >= 1."""
    filter: Filter | None = None
    """Only passages of which it holds are looked at; a dictionary is read by `from_dict`."""
    min_score: float | None = None
    """Passages of a lower score are left out. Scores of "hybrid" depend on what else was found:
    set it with "dense" (a cosine) or "sparse" only."""
    diversity: float | None = None
    """From 0 to 1: how much the passages shall differ (maximal marginal relevance among the best
    `prefetch`). Both are then told by the dense vectors alone, whatever the mode, and scores are
    cosines; beyond .3 passages come up that have little to do with the question."""
    max_per_document: int | None = None
    """Most passages of one document; >= 1."""
    neighbours: int = 0
    """Small to large: how many pieces before and after a found one are read along with it."""

    def __post_init__(self) -> None:
        filter_ = None if self.filter is None else as_filter(self.filter)
        object.__setattr__(self, "filter", filter_)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise ConfigError(f"{name} must be a whole number, at least {least}, got {value!r}")
        check_types(self)
        if not 0 <= (self.diversity or 0) <= 1:
            raise ConfigError(f"diversity must be in [0, 1], got {self.diversity}")
        if min(self.rrf_weights) <= 0:
            raise ConfigError(f"rrf_weights must be two numbers > 0, got {self.rrf_weights}")
        if self.min_score is not None and self.mode == "hybrid":
            raise ConfigError(
                "min_score has no meaning for fused scores: set mode to dense or sparse with it"
            )

    def narrowed(self, filter_: Filter | Mapping[str, Any]) -> SearchOptions:
        """The same, of passages only of which the filter holds too."""
        further = as_filter(filter_)
        return replace(self, filter=further if self.filter is None else self.filter & further)
