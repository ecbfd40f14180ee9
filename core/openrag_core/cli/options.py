"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openrag_core import settings
from openrag_core.build import Settings
from openrag_core.records import EvidenceMode, Hops, check_hops
from openrag_core.search import SearchMode

DEFAULT = Settings()
INDEX, MODEL = "Index", "Model"
"""Panels of the help."""
Index = Annotated[
    Path,
    typer.Option(
        "--index",
        envvar="OPENRAG_INDEX",
        help="Folder of the embedded index.",
        rich_help_panel=INDEX,
    ),
]
QdrantUrl = Annotated[
    str | None,
    typer.Option(
        envvar="QDRANT_URL",
        help="Use a Qdrant server instead of the embedded index.",
        rich_help_panel=INDEX,
    ),
]
QdrantKey = Annotated[
    str | None,
    typer.Option(
        "--qdrant-api-key", envvar="QDRANT_API_KEY", help="Of the server.", rich_help_panel=INDEX
    ),
]
Collection = Annotated[
    str, typer.Option(help="Name of the collection on the server.", rich_help_panel=INDEX)
]
Encoder = Annotated[
    str, typer.Option(help="Dense encoder: bundled, or a folder or name.", rich_help_panel=INDEX)
]
Language = Annotated[
    str | None,
    typer.Option(
        help="Of the documents, for word search; english for a new index.", rich_help_panel=INDEX
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(help="Whose documents, where several share an index.", rich_help_panel=INDEX),
]
Backend = Annotated[
    Literal["torch", "openvino"],
    typer.Option(
        "--encoder-backend", help="openvino is faster on CPUs (extra: fast).", rich_help_panel=INDEX
    ),
]
Evidence = Annotated[
    EvidenceMode,
    typer.Option("--evidence", help="One answer from each passage, or one from all of them."),
]
HopCount = Annotated[
    str, typer.Option("--hops", help="Passages in a chain to answer from: a number, or auto.")
]
TopK = Annotated[int, typer.Option("--top-k", help="Passages, or chains, to answer from.")]
Search = Annotated[
    SearchMode,
    typer.Option("--search", help="By meaning (dense), by words (sparse), or both."),
]
MinRelevance = Annotated[
    float | None, typer.Option("--min-relevance", help="Below it, a passage is not believed.")
]
ReleasedScore = Annotated[
    bool,
    typer.Option(
        "--released-score", help="Choose by the published sum, without the passages' ranks."
    ),
]
RerankerName = Annotated[
    str,
    typer.Option(
        "--reranker",
        help="maxsim, reflection, cohere, none, or a cross-encoder's folder or name; joined by +.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        envvar="OPENRAG_MODEL",
        help="bundled, or a folder or name.",
        rich_help_panel=MODEL,
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="Of an adapter-only checkpoint, if it was moved.", rich_help_panel=MODEL
    ),
]
Dtype = Annotated[
    settings.Dtype | None,
    typer.Option("--dtype", help="Of the weights; auto: as in the files.", rich_help_panel=MODEL),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda.", rich_help_panel=MODEL)
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", help="Longest answer.", rich_help_panel=MODEL)
]


def hops_of(text: str) -> Hops:
    """A number of hops, or "auto".

    Raises:
        ConfigError: It is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        check_hops(text)  # type: ignore[arg-type]  # it says what is wrong
        raise
