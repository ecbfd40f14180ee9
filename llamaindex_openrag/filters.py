"""Filters: LlamaIndex's in ours, and back."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from openrag_core import Filter, FilterError
from openrag_core.filters import All, AnyOf, Condition, Not, condition
from openrag_core.retrieval.payload import FIELDS

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.ANY: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$eq",  # of a list: one of its values
}
_BACK = {ours: theirs for theirs, ours in reversed(_OPERATORS.items())}
_BELOW = "metadata."


def from_metadata_filters(filters: MetadataFilters) -> Filter:
    """LlamaIndex's filters as ours.

    Args:
        filters: Their keys are fields of our index ("source", "page") or of documents' metadata;
            what is compared by order is a number, or a time in ISO format.

    Raises:
        FilterError: There is none, or an operator that we lack (of text, "all").
    """
    parts = tuple(_read(one) for one in filters.filters)
    if not parts:
        raise FilterError("MetadataFilters without a filter: leave them out")
    match filters.condition:
        case FilterCondition.OR:
            return AnyOf(parts)
        case FilterCondition.NOT:
            return Not(AnyOf(parts))
        case _:
            return parts[0] if len(parts) == 1 else All(parts)


def to_metadata_filters(filter_: Filter) -> MetadataFilters:
    """Ours as LlamaIndex's.

    Raises:
        FilterError: It compares with a time or a truth value, which LlamaIndex's filters cannot.
    """
    match filter_:
        case All(parts):
            return _joined(parts, FilterCondition.AND)
        case AnyOf(parts):
            return _joined(parts, FilterCondition.OR)
        case Not(part):
            return _joined((part,), FilterCondition.NOT)
        case Condition():
            return _joined((filter_,), FilterCondition.AND)


def _read(one: MetadataFilter | MetadataFilters) -> Filter:
    if isinstance(one, MetadataFilters):
        return from_metadata_filters(one)
    field = one.key if one.key in FIELDS or one.key.startswith(_BELOW) else _BELOW + one.key
    if one.operator == FilterOperator.IS_EMPTY:
        return Condition(field, "$exists", value=False)
    if one.operator not in _OPERATORS:
        known = ", ".join(operator.value for operator in (*_OPERATORS, FilterOperator.IS_EMPTY))
        raise FilterError(f"{one.operator.value!r} is no operator of our filters: use {known}")
    return condition(field, _OPERATORS[one.operator], one.value)


def _joined(parts: tuple[Filter, ...], condition: FilterCondition) -> MetadataFilters:
    made = [
        _write(part) if isinstance(part, Condition) else to_metadata_filters(part) for part in parts
    ]
    return MetadataFilters(filters=made, condition=condition)


def _write(condition: Condition) -> MetadataFilter | MetadataFilters:
    key = condition.field.removeprefix(_BELOW)
    if key in FIELDS:  # a key of that name that documents brought along
        key = condition.field
    if condition.operator == "$exists":
        empty = MetadataFilter(key=key, value=None, operator=FilterOperator.IS_EMPTY)
        if condition.value:
            return MetadataFilters(filters=[empty], condition=FilterCondition.NOT)
        return empty
    value: Any = condition.value
    if isinstance(value, bool) or not isinstance(value, str | int | float | tuple | list):
        raise FilterError(f"LlamaIndex's filters know no times and no truth values: {condition}")
    listed = list(value) if isinstance(value, tuple) else value
    return MetadataFilter(key=key, value=listed, operator=_BACK[condition.operator])
