"""What each package promises: `__all__` is sorted, complete and true."""

import importlib
from types import ModuleType

import pytest

PACKAGES = [
    "openrag_core",
    "openrag_core.evaluation",
    "openrag_core.model",
    "openrag_core.retrieval",
    "openrag_core.training",
    "langchain_openrag",
    "llamaindex_openrag",
]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_every_name_is_there(package: ModuleType) -> None:
    assert all(hasattr(package, name) for name in package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)


def test_every_public_class_is_promised(package: ModuleType) -> None:
    public = {
        name
        for name, value in vars(package).items()
        if isinstance(value, type) and not name.startswith("_")
    }
    assert public <= set(package.__all__)


def test_every_error_is_within_reach() -> None:
    core = importlib.import_module("openrag_core")
    errors = importlib.import_module("openrag_core.errors")
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined <= set(core.__all__)
    drawn = errors.__doc__ or ""
    assert all(f"- {name}" in drawn for name in defined)
