"""What an evaluation came to, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openrag_core.words import counted

if TYPE_CHECKING:
    from openrag_core.evaluation import Evaluated

_NOTHING = "-"
_NAMES = {"memory": "from memory", "reading": "from passages"}


def evaluated(done: Evaluated) -> RenderableType:
    """Every metric in percent, from memory and from passages, with 95 % intervals."""
    summary = done.summary
    ways = [way for way in ("memory", "reading") if summary[way]]
    table = Table(
        title=f"{summary['task']}, {counted(summary['n'], 'question')}", title_justify="left"
    )
    table.add_column("%")
    for way in ways:
        table.add_column(_NAMES[way], justify="right")
    for metric in dict.fromkeys(name for way in ways for name in summary[way]):
        cells = (Text(_cell(summary[way].get(metric))) for way in ways)
        table.add_row(Text(metric, style="bold" if metric == summary["metric"] else ""), *cells)
    times = (summary["seconds"][way] for way in ways)
    table.add_row("seconds a question", *(f"{seconds:.2f}" for seconds in times))
    unread = summary["unread"]
    note = [Text(f"{unread} of them without a passage to read")] if unread else []
    if refused := summary["refused"]:
        note.append(Text(f"{refused} of them could not be asked, and count as wrong"))
    return Group(table, *note, Text(f"{done.asked} asked now; everything is in {done.folder}"))


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return _NOTHING
    mean = f"{100 * found['mean']:.1f}"
    if found["low"] is None:
        return mean
    return f"{mean} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
