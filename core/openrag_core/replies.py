"""JSON in the replies of chat models, whatever surrounds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from openrag_core.words import well_formed

_Result = TypeVar("_Result")
_Model = TypeVar("_Model", bound=BaseModel)
Read = Callable[[dict[str, Any]], _Result]
"""Makes something of an object; raises ValueError for one that is of no use."""


def read_json(reply: str, read: Read[_Result]) -> _Result:
    """Read the JSON object of a reply.

    A reply that repeats what it judges may hold an object that somebody wrote into it: where two
    say different things, neither is believed.

    Raises:
        ValueError: There is none that `read` takes, or several that say different things.
    """
    found: list[_Result] = []
    reason = "it holds no JSON object"
    for content in _objects(reply):
        try:
            found.append(read(content))
        except ValueError as error:
            reason = str(error)
    if not found:
        raise ValueError(reason)
    if any(one != found[0] for one in found):
        raise ValueError("it holds several JSON objects that say different things")
    return found[0]


def validated(model: type[_Model], content: object) -> _Model:
    """The content as a model; a truth value is no number, and a text none either.

    Raises:
        ValueError: It does not fit; the message names each field.
    """
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError("; ".join(wrong)) from error


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost ones, in their order."""
    start = text.find("{")
    while start >= 0:
        try:
            content, end = json.JSONDecoder().raw_decode(text, start)
            # Halves of a surrogate pair are JSON, and can be written nowhere.
            yield json.loads(well_formed(json.dumps(content, ensure_ascii=False)))
        except ValueError:
            end = start + 1
        except RecursionError:  # nobody asked for that
            return
        start = text.find("{", end)
