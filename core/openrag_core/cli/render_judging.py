"""Judgements and synthetic questions, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def judged(summary: Mapping[str, Any], file: Path) -> RenderableType:
    """Mean grades, and how many judgements there are not."""
    table = Table(*("rubric", "mean", "graded", "failed", "skipped"))
    for name, own in summary["rubrics"].items():
        mean = "-" if own["mean"] is None else f"{own['mean']:.2f}"
        counts = (str(own[outcome]) for outcome in ("graded", "failed", "skipped"))
        table.add_row(Text(name), mean, *counts)
    return Group(table, *_costs(summary), Text(f"written to {file}", style="dim"))


def synthesized(summary: Mapping[str, Any], file: Path) -> RenderableType:
    """How many questions there are, and why there are no more."""
    table = Table.grid(padding=(0, 2))
    for reason, count in summary["dropped"].items():
        table.add_row(Text(f"dropped: {reason}"), f"{count:,}")
    table.add_row("kept", f"{summary['kept']:,}", style="bold")
    where = [Text(f"written to {file}", style="dim")] if summary["kept"] else []
    return Group(table, *_costs(summary), *where)


def _costs(summary: Mapping[str, Any]) -> list[Text]:
    return [
        Text(
            f"{what}: {used['requests']:,} replies, {used['prompt_tokens']:,} tokens read, "
            f"{used['new_tokens']:,} written, cost {used['cost']:.4f}"
        )
        for what, used in (("in all", summary["usage"]), ("paid now", summary["paid_now"]))
    ]
