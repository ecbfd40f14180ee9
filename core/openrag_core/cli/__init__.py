"""The command line: openrag index | ask | info | weights (extra: cli)."""

from __future__ import annotations

import os
import sys
import warnings

from openrag_core._extras import need
from openrag_core.errors import OpenRAGError


def main() -> None:
    """Run the command line; errors end it with a message and a code, never with a traceback."""
    _prepare_threads()
    if not os.environ.get("OPENRAG_DEBUG"):
        _keep_libraries_quiet()
    try:
        need("cli", "typer", "rich")
    except OpenRAGError as error:
        sys.exit(f"error: {error}")
    from openrag_core.cli.app import run  # noqa: PLC0415  (torch must load after the threads are set)

    run()


def _prepare_threads() -> None:
    """Choose how torch's threads wait and how many there are, unless the user did.

    By default OpenMP threads spin at every barrier: with another process on one of the cores a
    command takes many times longer. The variables count only before torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - int(busy))))


def _keep_libraries_quiet() -> None:
    """Keep the libraries' own notes and progress bars off the screen; ours say what matters."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
