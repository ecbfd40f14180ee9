"""Every Python block of the README and the docs runs as it stands; links lead somewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openrag_core.build import Settings, open_index
from tests.conftest import DOCUMENTS, ROOT, environment

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    page: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for page in PAGES
}
RUN = """
import contextlib, gc, io, json, sys
for number, code in enumerate(json.load(sys.stdin)):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, f"block {number}", "exec"), {"__name__": "__main__"})
    assert shown.getvalue().strip(), f"block {number} prints nothing"
    gc.collect()
"""
"""Each block by itself, but in one process: most of their time is spent on imports."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As after `openrag index examples/documents` in a clone."""
    path = tmp_path_factory.mktemp("clone")
    (path / "examples").symlink_to(ROOT / "examples")
    index = open_index(Settings(index=path / ".openrag"))
    index.add_files(sorted(DOCUMENTS.iterdir()))
    index.close()
    return path


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCKS[p]], ids=lambda page: page.stem)
def test_it_runs(page: Path, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(BLOCKS[page]),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Every line of it exists, and every module and folder of the core stands in it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.findall(r"```text\n(core/.*?)```", readme, re.DOTALL)[0]
    named = set(re.findall(r"^  ([\w.]+)/?\s", tree, re.MULTILINE))
    package = ROOT / "core" / "openrag_core"
    assert all((package / name).exists() for name in named)
    parts = {p.name for p in package.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert parts - {"__init__.py", "__pycache__", "_extras.py"} <= named
