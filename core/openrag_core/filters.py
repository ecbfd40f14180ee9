"""Conditions on what is stored with a passage: `(Field("page") >= 3) & ~Field("tenant").exists`.

A filter is plain data. Stores translate it into their engine's language, `matches` says in Python
what it means, and `to_dict` and `from_dict` give it the form that most vector stores of LangChain
take: `{"source": "a.md", "page": {"$gte": 3}}`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

from openrag_core.errors import FilterError

Scalar: TypeAlias = str | int | float | bool | datetime
Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"]

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class _Combinable:
    """Filters join by `&` and `|`, with dictionaries too, and turn around by `~`."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError(
            "a filter is neither true nor false: write &, | and ~ instead of and, or and not"
        )

    def __and__(self, other: Filter | Mapping[str, Any]) -> All:
        return All((*_parts(self, All), *_parts(other, All)))

    def __or__(self, other: Filter | Mapping[str, Any]) -> AnyOf:
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))

    def __invert__(self) -> Not:
        return Not(self)  # type: ignore[arg-type]  # every subclass is a Filter


@dataclass(frozen=True, slots=True)
class Condition(_Combinable):
    """One field compared with a value.

    A field that holds a list matches if one of its values does; a list of objects is not looked
    into. Times without a zone are UTC.

    Raises:
        FilterError: The operator is unknown, or the value is none that it can compare with.
    """

    field: str
    """Dots lead into nested metadata: "metadata.author"."""
    operator: Operator
    value: Scalar | Sequence[str] | Sequence[int]
    """A list for "$in" and "$nin", a truth value for "$exists"."""

    def __post_init__(self) -> None:
        named = isinstance(self.field, str) and all(self.field.split("."))
        if not named or '"' in self.field:
            raise FilterError(
                f"{self.field!r} names no field: give a string; dots stand between names, quotes "
                "nowhere"
            )
        if self.operator not in get_args(Operator):
            raise FilterError(
                f"{self.operator!r} is no operator of a filter: "
                f"use one of {', '.join(get_args(Operator))}, $and, $or, $not"
            )
        if not _fits(self.operator, self.value):
            raise FilterError(
                f"{self.field} {self.operator} {self.value!r}: {_WANTED[self.operator]}"
            )

    def matches(self, payload: Mapping[str, Any]) -> bool:
        """Whether the condition holds of what is stored with a passage."""
        values = _values(payload, self.field.split("."))
        match self.operator:
            case "$exists":
                return (len(values) > 0) == self.value
            case "$eq":
                return any(_same(value, self.value) for value in values)
            case "$ne":
                return not any(_same(value, self.value) for value in values)
            case "$in" | "$nin":
                wanted: Any = self.value
                found = any(_same(value, one) for value in values for one in wanted)
                return found == (self.operator == "$in")
            case order:
                return any(_ordered(order, value, self.value) for value in values)


@dataclass(frozen=True, slots=True)
class All(_Combinable):
    """Every part holds."""

    parts: tuple[Filter, ...]

    def matches(self, payload: Mapping[str, Any]) -> bool:
        """Whether every part holds of what is stored with a passage."""
        return all(part.matches(payload) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf(_Combinable):
    """At least one part holds."""

    parts: tuple[Filter, ...]

    def matches(self, payload: Mapping[str, Any]) -> bool:
        """Whether a part holds of what is stored with a passage."""
        return any(part.matches(payload) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(_Combinable):
    """The part does not hold."""

    part: Filter

    def matches(self, payload: Mapping[str, Any]) -> bool:
        """Whether the part does not hold of what is stored with a passage."""
        return not self.part.matches(payload)


Filter: TypeAlias = Condition | All | AnyOf | Not


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of what is stored with a passage; comparing it makes a condition.

    Args:
        name: One of the index's own ("source", "title", "page", "chunk", "doc_id", "created_at"),
            or "metadata." and a key of the document's metadata.
    """

    name: str

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # as in SQLAlchemy
        return Condition(self.name, "$eq", value)  # type: ignore[arg-type]  # it is checked there

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return Condition(self.name, "$ne", value)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(self.name)

    def __gt__(self, value: float | datetime) -> Condition:
        return Condition(self.name, "$gt", value)

    def __ge__(self, value: float | datetime) -> Condition:
        return Condition(self.name, "$gte", value)

    def __lt__(self, value: float | datetime) -> Condition:
        return Condition(self.name, "$lt", value)

    def __le__(self, value: float | datetime) -> Condition:
        return Condition(self.name, "$lte", value)

    def is_in(self, values: Sequence[str] | Sequence[int]) -> Condition:
        """It is one of these."""
        return condition(self.name, "$in", values)

    def not_in(self, values: Sequence[str] | Sequence[int]) -> Condition:
        """It is none of these."""
        return condition(self.name, "$nin", values)

    @property
    def exists(self) -> Condition:
        """It is there, and neither null nor an empty list."""
        return Condition(self.name, "$exists", value=True)


def conditions(filter_: Filter) -> Iterator[Condition]:
    """Every condition of a filter, wherever it stands."""
    match filter_:
        case Condition():
            yield filter_
        case Not(part):
            yield from conditions(part)
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from conditions(part)


def map_conditions(filter_: Filter, change: Callable[[Condition], Filter]) -> Filter:
    """The filter with something else in the place of each condition."""
    match filter_:
        case Condition():
            return change(filter_)
        case Not(part):
            return Not(map_conditions(part, change))
        case All(parts):
            return All(tuple(map_conditions(part, change) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(map_conditions(part, change) for part in parts))


def to_dict(filter_: Filter) -> dict[str, Any]:
    """The filter as nested dictionaries; times as they are."""
    match filter_:
        case Condition(field, name, value):
            return {field: {name: list(value) if isinstance(value, tuple) else value}}
        case All(parts):
            return {"$and": [to_dict(part) for part in parts]}
        case AnyOf(parts):
            return {"$or": [to_dict(part) for part in parts]}
        case Not(part):
            return {"$not": to_dict(part)}


def as_filter(given: Filter | Mapping[str, Any]) -> Filter:
    """A filter as it is, a dictionary as `from_dict` reads it.

    Raises:
        FilterError: It is neither.
    """
    return given if isinstance(given, Filter) else from_dict(given)


def from_dict(given: Mapping[str, Any]) -> Filter:
    """Read the form that most of LangChain's vector stores take.

    Args:
        given: Such as `{"source": "a.md", "page": {"$gte": 3, "$lt": 9}}`, whose parts must all
            hold; also with "$and", "$or" (lists of such) and "$not". Times may be strings in
            ISO 8601 where they are compared by order.

    Raises:
        FilterError: It is empty, or has another form, or an unknown operator.
    """
    if not isinstance(given, Mapping) or not given:
        raise FilterError(
            f'{given!r} is no filter: give a condition such as Field("page") >= 3, or a '
            'dictionary such as {"title": "Bridge"} or {"page": {"$gte": 3}}'
        )
    parts = tuple(part for key, value in given.items() for part in _read(key, value))
    if not parts:
        raise FilterError(f"{dict(given)!r} compares with nothing")
    return parts[0] if len(parts) == 1 else All(parts)


def _read(key: str, value: Any) -> list[Filter]:  # noqa: ANN401  (a user's)
    if key in {"$and", "$or"}:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterError(f"{key} takes a list of filters, and was given {value!r}")
        inner = tuple(from_dict(one) for one in value)
        return [All(inner) if key == "$and" else AnyOf(inner)]
    if key == "$not":
        return [Not(from_dict(value))]
    if str(key).startswith("$"):
        raise FilterError(f"{key!r} stands where a field, $and, $or or $not belongs")
    if isinstance(value, Mapping):
        if not value:
            raise FilterError(f"{key!r} compares with nothing: {{}}")
        return [condition(key, name, one) for name, one in value.items()]
    return [condition(key, "$eq", value)]


def condition(field: str, name: Any, value: Any) -> Condition:  # noqa: ANN401  (a user's)
    """A condition of values as JSON has them: what is ordered may be a time in ISO format.

    Raises:
        FilterError: The operator is none of ours, or the value none for it.
    """
    if name in _ORDER and isinstance(value, str):  # JSON has no times
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return Condition(field, name, tuple(value) if listed else value)


_WANTED = {
    "$eq": "give a string, a number, a truth value or a time",
    "$in": "give a list of strings or of whole numbers, not empty",
    "$gt": "give a number or a datetime",
    "$exists": "give True or False",
}
_WANTED |= {"$ne": _WANTED["$eq"], "$nin": _WANTED["$in"]}
_WANTED |= dict.fromkeys(("$gte", "$lt", "$lte"), _WANTED["$gt"])


def _fits(name: Operator, value: object) -> bool:
    match name:
        case "$eq" | "$ne":
            return isinstance(value, str | int | float | datetime)
        case "$exists":
            return isinstance(value, bool)
        case "$in" | "$nin":
            listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
            kinds = {type(one) for one in listed}
            return kinds in ({str}, {int})
        case _:
            return isinstance(value, int | float | datetime) and not isinstance(value, bool)


def _values(payload: Any, path: list[str]) -> list[Any]:  # noqa: ANN401  (whatever is stored)
    if not path:
        if isinstance(payload, list):
            return payload
        return [] if payload is None else [payload]
    return _values(payload[path[0]], path[1:]) if _holds(payload, path[0]) else []


def _holds(payload: object, key: str) -> bool:
    return isinstance(payload, Mapping) and key in payload


def _same(stored: Any, wanted: Any) -> bool:  # noqa: ANN401
    if isinstance(wanted, datetime):
        return _ordered("$gte", stored, wanted) and _ordered("$lte", stored, wanted)
    return isinstance(stored, bool) == isinstance(wanted, bool) and bool(stored == wanted)


def _ordered(name: str, stored: Any, wanted: Any) -> bool:  # noqa: ANN401
    if isinstance(wanted, datetime):
        try:
            return _ORDER[name](_utc(datetime.fromisoformat(stored)), _utc(wanted))
        except (TypeError, ValueError):
            return False
    number = isinstance(stored, int | float) and not isinstance(stored, bool)
    return number and _ORDER[name](stored, wanted)


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _parts(given: Any, kind: type[All | AnyOf]) -> tuple[Filter, ...]:  # noqa: ANN401
    filter_ = as_filter(given)
    return filter_.parts if isinstance(filter_, kind) else (filter_,)
