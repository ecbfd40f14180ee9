"""Where the command line writes to: results to `out`, progress and errors to `err`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

out = Console()
err = Console(stderr=True)


@contextmanager
def goes_on(how: str) -> Iterator[None]:
    """Tell somebody who interrupts how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(how)
        raise


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """One bar per stage, made when it begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    time = TimeRemainingColumn(elapsed_when_finished=True)
    bars: dict[str, Any] = {}
    lock = Lock()
    with Progress(*columns, time, console=err) as shown:

        def advance(stage: str, done: int, total: int) -> None:
            with lock:  # critics are asked by several threads
                if stage not in bars:
                    bars[stage] = shown.add_task(stage, total=total or None)
                shown.advance(bars[stage], done)

        yield advance
