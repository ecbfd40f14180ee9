"""How much slower is an answer while another process takes one of the cores?

Measured with the waiting policy that the command line and the Makefile set (docs/models.md).

    GOMP_SPINCOUNT=1000 python benchmarks/busy.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

from passages import NEW_TOKENS, prompts
from timing import ROUNDS, save

from openrag_core.model import load
from openrag_core.model.decoding import GreedyDecoder, Prompt

PASSAGES = 5


def main() -> None:
    """Print the ratio and save it."""
    model, _ = load("bundled")
    model.generation_config.eos_token_id = None
    asked = [Prompt(ids, NEW_TOKENS) for ids in prompts(PASSAGES)]
    work = partial(GreedyDecoder(model, pad_id=0), asked)
    work()
    quiet = _seconds(work)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        busy = _seconds(work)
        neighbour.kill()
    print(f"quiet {quiet:.2f} s, one core busy {busy:.2f} s: {busy / quiet:.1f} times")
    save(
        __file__,
        [{"quiet_s": quiet, "busy_s": busy, "ratio": busy / quiet}],
        dtype=str(model.dtype),
    )


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
