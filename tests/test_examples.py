"""Every example runs as it stands, in an empty folder, and says what its documents say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

EXPECTED = {
    "langchain_chain.py": ["Ana Tolvik", "[Velora Bridge]", "38 metres"],
    "llamaindex_tool.py": ["Marta Venn", "Keth Lighthouse > Keepers"],
}


def test_no_example_is_forgotten() -> None:
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_it_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in EXPECTED[name]), done.stdout
