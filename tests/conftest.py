"""Fixtures that more than one folder needs; the real ones are made once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from openrag_core import OpenRAG
from openrag_core.build import Settings, build, open_index
from openrag_core.retrieval import PassageIndex
from tests.homes import Home, home_in

ROOT = Path(__file__).parents[1]
DOCUMENTS = ROOT / "examples" / "documents"

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Convert the bundled weights afresh, away from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENRAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("OPENRAG_INDEX", "OPENRAG_MODEL", "QDRANT_URL", "QDRANT_API_KEY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def documents_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PassageIndex]:
    """The example documents, really indexed."""
    index = open_index(Settings(index=tmp_path_factory.mktemp("index") / "embedded"))
    index.add_files(sorted(DOCUMENTS.iterdir()))
    yield index
    index.close()


@pytest.fixture(scope="session")
def bundled_rag(documents_index: PassageIndex) -> OpenRAG:
    """The embedded default over the example documents."""
    return build(Settings(top_k=2, max_new_tokens=40), retriever=documents_index)


@pytest.fixture(params=["memory", "rest"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """Where collections are made that others read, or ours."""
    with home_in(request.param) as made:
        yield made


def environment() -> dict[str, str]:
    """For a command that a test runs: this one's, without colours or pinned widths."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb"}
