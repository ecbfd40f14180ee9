"""What several tests of checkpoints start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[3] / "fixtures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published checkpoint that may be damaged."""
    return Path(shutil.copytree(FIXTURES / "tiny-b", tmp_path / "published"))
