"""The wheel, in an environment that holds nothing else; and the doors of the extras."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BARE = """
import sys
import openrag_core
from openrag_core import Gate, OpenRAG, prompts, scoring
assert openrag_core.__version__
heavy = {"torch", "transformers", "numpy", "qdrant_client", "qdrant_edge", "langchain_core"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("openrag_moe-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a clean environment with the wheel in it, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    binary = folder / "bin" / "python"
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    with zipfile.ZipFile(wheel) as files:
        files.extractall(site)
    return binary


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(python), "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=python.parent,
    )


def test_the_wheel_holds_three_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"openrag_core", "langchain_openrag", "llamaindex_openrag"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_core_imports_with_no_extra_installed(python: Path) -> None:
    done = run(python, BARE)
    assert done.returncode == 0, done.stderr


def test_core_loads_no_torch_where_everything_is_installed() -> None:
    done = run(Path(sys.executable), BARE)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("openrag_core.model", "model"),
        ("openrag_core.retrieval", "qdrant"),
        ("openrag_core.evaluation", "eval"),
        ("langchain_openrag", "langchain"),
        ("llamaindex_openrag", "llama-index"),
    ],
)
def test_every_door_says_what_to_install(python: Path, module: str, extra: str) -> None:
    done = run(python, f"import {module}")
    assert "MissingExtraError: " in done.stderr
    assert f"Run: pip install 'openrag-moe[{extra}]'" in done.stderr


def test_the_command_line_says_so_without_a_traceback(python: Path) -> None:
    done = run(python, "from openrag_core.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr.startswith("error: typer, rich, psutil not installed. Run: pip install")
    assert "Traceback" not in done.stderr
