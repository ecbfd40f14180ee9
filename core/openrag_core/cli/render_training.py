"""What training made, as a terminal shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openrag_core.words import counted

if TYPE_CHECKING:
    from openrag_core.training import Dataset, Trained


def dataset(made: Dataset, file: Path, *, wanted: float, unlabelled: int) -> RenderableType:
    """Rows by kind, and what is to be known about them.

    Args:
        made: The rows.
        file: Where they are.
        wanted: Share of [No Retrieval] that was asked for.
        unlabelled: Passages that nobody judged.
    """
    table = Table.grid(padding=(0, 2))
    for kind, count in made.kinds.most_common():
        table.add_row(kind.replace("_", " "), Text(f"{count:,}", justify="right"))
    table.add_row("rows", Text(f"{len(made.rows):,}", justify="right", style="bold"))
    lines = [Text(f"questions learned with [No Retrieval]: {made.no_retrieval:.1%}")]
    if made.no_retrieval < wanted:
        lines.append(_warning(f"wanted {wanted:.0%}, but the base knows no more instructions"))
    if made.without_passages:
        lines.append(
            _warning(
                f"left out: {counted(made.without_passages, 'question')} with neither gold "
                "passages nor distractors"
            )
        )
    if unlabelled:
        lines.append(
            _warning(
                f"left out, for want of a label: {counted(unlabelled, 'passage')} (--critic has "
                "them judged)"
            )
        )
    lines.append(Text(f"written to {file}", style="dim"))
    return Group(table, *lines)


def trained(done: Trained, folder: Path) -> RenderableType:
    """What was learned, and what to do with it."""
    size = sum(file.stat().st_size for file in done.model.rglob("*") if file.is_file())
    lines = [
        Text(
            f"{done.plan.steps:,} steps, {done.plan.tokens:,} tokens in {done.seconds / 60:,.1f} "
            f"min ({done.plan.padding:.1%} padding), loss {done.loss:.3f}"
        )
    ]
    if done.rows.cut or done.rows.dropped:
        lines.append(
            _warning(
                f"longer than max_length: {done.rows.cut:,} rows cut, {done.rows.dropped:,} dropped"
            )
        )
    lines += [
        Text(f"{done.model}: {size / 1e6:,.1f} MB; recipe, log and loss curve in {folder}"),
        Text(f"next: openrag ask QUESTION --model {done.model}"),
    ]
    return Group(*lines)


def _warning(text: str) -> Text:
    return Text(text, style="yellow")
