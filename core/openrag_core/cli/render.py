"""Results as what a terminal shows."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from openrag_core import __version__
from openrag_core.build import Settings, open_store
from openrag_core.errors import OpenRAGError
from openrag_core.filters import Field
from openrag_core.html import LABELS, short_of_target
from openrag_core.records import Answer, Candidate, Decision, Passage
from openrag_core.verdict import NOT_TOLD
from openrag_core.weights import PACKAGES
from openrag_core.words import counted

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    text = NOT_TOLD if result.abstained else result.text
    panel = Panel(_plain(text), border_style=colour, subtitle=_note(result), subtitle_align="right")
    sources = [f"[{n}] {place(passage)}" for n, passage in enumerate(result.sources, start=1)]
    heading = ["nearest passages:"] if result.abstained and sources else []
    return Group(panel, *(_plain(line, style="dim") for line in heading + sources))


def gone(documents: Sequence[str], *, removed: bool) -> RenderableType:
    """What was indexed and is there no more, or empty."""
    names = [_plain(f"gone or empty: {_relative(document)}") for document in documents]
    note = "removed" if removed else "still in the index: add --sync to remove it"
    return Group(*names, Text(note, style="dim"))


def explanation(result: Answer) -> RenderableType:
    """The gate, the candidates with their scores, and the time of each stage."""
    times = " · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.seconds.items())
    parts: list[RenderableType] = [Text(_gate(result.decision))]
    if result.draft:
        stopped = "" if result.draft.complete else " ... (stopped: the decision was clear)"
        parts.append(_plain(f"draft: {result.draft.text.strip()}{stopped}"))
    if result.probability is not None:
        read = counted(len(result.candidates), "passage")
        parts.append(Text(f"fitted gate: {read} read, as many as the target asked for"))
    parts.append(Text(times, style="dim"))
    if result.candidates:
        parts.append(_candidates(result.candidates))
    return Group(*parts)


def _candidates(candidates: Sequence[Candidate]) -> Table:
    scores = [asdict(candidate.score) for candidate in candidates]
    given = [name for name in scores[0] if any(score[name] is not None for score in scores)]
    together = max(len(candidate.evidence) for candidate in candidates)
    what = "passage" if together == 1 else "chain of passages"
    joint = together > 1 and len(candidates) == 1
    title = "one answer from all passages" if joint else f"one answer per {what}, best first"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("total", *given):
        table.add_column(LABELS.get(name, name), justify="right", no_wrap=True)
    table.add_column("answer, and what it was written from", overflow="fold")
    for candidate, score in zip(candidates, scores, strict=True):
        table.add_row(
            f"{candidate.total:.3f}",
            *("-" if score[name] is None else f"{score[name]:.3f}" for name in given),
            Group(_plain(candidate.text.strip()), _plain(_places(candidate), style="dim")),
        )
    return table


def _places(candidate: Candidate) -> str:
    """What the answer was written from."""
    places = "\n".join(map(place, candidate.evidence))
    return f"{places} (too long: only its beginning)" if candidate.written.truncated else places


MANY = 200_000  # passages that the embedded engine searches in some milliseconds


def report(result: IndexReport, address: str, total: int, *, local: bool = True) -> RenderableType:
    """What became of the files."""
    counts = (
        f"{result.added} added, {result.changed} changed, {result.unchanged} unchanged, "
        f"{len(result.skipped)} skipped; {counted(result.passages, 'passage')} written"
    )
    skipped = [
        Text.assemble(("skipped", "yellow"), " ", _plain(f"{file}: {reason}"))
        for file, reason in result.skipped.items()
    ]
    speed = f", {result.passages_per_second:.0f} a second" if result.passages else ""
    holds = f"{address} now holds {counted(total, 'passage')}" if total else f"{address}: empty"
    if local and total > MANY:
        holds += "; with so many, a Qdrant server answers faster (--to URL)"
    return Group(*skipped, counts + speed, Text(holds, "dim"))


def mixture(model: PreTrainedModel, folder: Path) -> RenderableType:
    """What was made, and what to do with it."""
    config: Any = model.config
    blocks = [layer.mlp for layer in cast("Any", model).get_decoder().layers]
    parts = [part for block in blocks for part in (block.router, block.experts)]
    added = sum(weight.numel() for part in parts for weight in part.parameters())
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    trained = "trained" if config.reflection_trained else "not trained yet"
    lines = (
        f"{config.base_config.model_type}, {model.num_parameters() / 1e6:,.1f} M parameters, "
        f"{added / 1e6:,.1f} M of them in {config.num_experts} experts of width "
        f"{config.adapter_dim}, {config.num_experts_per_tok} per token; "
        f"reflection tokens {trained}",
        f"{folder}: {size / 1e6:,.1f} MB, {str(model.dtype).removeprefix('torch.')}",
        f"next: openrag ask QUESTION --model {folder}",
    )
    return Group(*map(_plain, lines))


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
    number = passage.metadata.get("page")
    page = "" if number is None else f"page {number}"
    where = _relative(passage.source) if passage.source else passage.id
    return " · ".join(part for part in (passage.title, where, page) if part)


def _note(result: Answer) -> str:
    confidence = f"confidence {result.confidence:.2f}"
    if result.probability is not None:
        confidence = f"right with a probability of {result.probability:.2f}"
    if result.abstained and not result.candidates:
        return "no passage was found at all: is the filter, or the tenant, the right one?"
    if result.abstained and result.probability is not None:
        return short_of_target(result.probability)
    if result.abstained:
        return "no passage was relevant enough to answer from"
    if not result.decision.retrieve:
        return f"from the model's memory, not from documents; {confidence}"
    cut = "only the beginning was read, the passage is too long for the model; "
    note = f"{cut if result.truncated else ''}{confidence}"
    return note if result.grounded else f"unchecked: no minimum of relevance is set; {note}"


def _relative(source: str) -> str:
    path = Path(source)
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if inside else source)


def _plain(text: str, style: str = "") -> Text:
    """Text of documents and models: no markup, and nothing that a terminal would obey."""
    return Text(_CONTROL.sub("", text), style=style)


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
        passages = counted(store.count(), "passage")
        documents = counted(store.count(Field("chunk") == 0), "document")
        return f"{store.address}: {passages} of {documents} ({made})"
    finally:
        store.close()
