"""Objects of the user's own, named on the command line."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from openrag_core.errors import ConfigError


def load_object(option: str, path: str, expected: str) -> Any:  # noqa: ANN401  (a user's)
    """The object that is named by MODULE:NAME.

    Args:
        option: For which it was named.
        path: MODULE:NAME; the module may lie in the current folder, as with `python -m`.
        expected: What it should be, for the message.

    Raises:
        ConfigError: There is none.
    """
    module, _, name = path.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{option} {path!r}: expected MODULE:NAME of {expected}, in a module that Python finds "
            f"({error})"
        ) from error
    finally:
        sys.path.remove("")
