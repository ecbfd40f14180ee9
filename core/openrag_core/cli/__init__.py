"""The command line: openrag index | ask | eval | calibrate | report | judge | train and more."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from io import TextIOWrapper
from threading import current_thread, main_thread

from openrag_core._extras import need
from openrag_core.errors import OpenRAGError


def main() -> None:
    """Run the command line; errors end it with a message and a code, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know every letter
    try:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # half-made files are removed
        need("cli", "typer", "rich", "psutil")
        if not os.environ.get("OPENRAG_DEBUG"):
            _keep_libraries_quiet()
        _prepare_threads()
        from openrag_core.cli.app import run  # noqa: PLC0415  (loads torch: threads come first)

        run()
    except OpenRAGError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _prepare_threads() -> None:
    """Choose how torch's threads wait and how many there are, unless the user did.

    By default OpenMP threads spin at every barrier: with another process on one of the cores a
    command takes many times longer. The variables count only before torch is loaded.
    """
    import psutil  # noqa: PLC0415  (an extra)

    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if "OMP_NUM_THREADS" not in os.environ:
        cores = _usable_cores()
        busy = round(psutil.cpu_percent(interval=0.1) / 100 * (os.cpu_count() or 1))
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores - busy))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_libraries_quiet() -> None:
    """Keep the libraries' own notes and progress bars off the screen; ours say what matters."""
    warnings.simplefilter("ignore")
    for name in ("pypdf", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
