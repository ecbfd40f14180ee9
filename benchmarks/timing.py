"""Two ways of doing the same, timed in turns in one run; what came of it, saved as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import transformers

ROUNDS = 9


def side_by_side(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, run in turns after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for way, taken in zip((one, other), times, strict=True):
            start = perf_counter()
            way()
            taken.append(perf_counter() - start)
    return median(times[0][1:]), median(times[1][1:])


def save(script: str, rows: list[dict[str, Any]], **about: str) -> None:
    """Write the rows beside the script, with what they were measured on."""
    record = about | {
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rows": rows,
    }
    Path(script).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
