"""Settings are held to the types that their fields are annotated with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from openrag_core.errors import ConfigError


def check_types(settings: object) -> None:
    """Refuse a value that is none of what its field is annotated with.

    Args:
        settings: Of a dataclass whose annotations can be read when it is made.

    Raises:
        ConfigError: There is one; of numbers, nan is none.
    """
    for name, annotation in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        united = get_origin(annotation) in {Union, UnionType}
        kinds = get_args(annotation) if united else (annotation,)
        if not any(_fits(value, kind) for kind in kinds):
            allowed = " or ".join(_called(kind) for kind in kinds if kind is not NoneType)
            raise ConfigError(f"{name} must be {allowed}; got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not isnan(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))


_KINDS: Mapping[Any, tuple[str, Callable[[object], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    tuple[float, float]: ("two numbers", _is_pair),
}


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401  (an annotation)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in _KINDS:
        return _KINDS[kind][1](value)
    kind = get_origin(kind) or kind
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _called(kind: Any) -> str:  # noqa: ANN401
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _KINDS[kind][0] if kind in _KINDS else f"{kind.__name__}(...)"
