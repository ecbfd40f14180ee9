"""The door to the optional parts: each says in one line what to install."""

from importlib.util import find_spec

from openrag_core.errors import MissingExtraError


def need(extra: str, *modules: str) -> None:
    """Refuse to go on where a module is not installed.

    Args:
        extra: The extra of openrag-moe that brings it.
        *modules: Top-level names.

    Raises:
        MissingExtraError: One is absent.
    """
    if absent := [module for module in modules if find_spec(module) is None]:
        raise MissingExtraError(
            f"{', '.join(absent)} not installed. Run: pip install 'openrag-moe[{extra}]'"
        )
