"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openrag_core.build import Settings
from openrag_core.records import EvidenceMode, Hops, check_hops
from openrag_core.search import SearchMode

DEFAULT = Settings()
Index = Annotated[
    Path, typer.Option("--index", envvar="OPENRAG_INDEX", help="Folder of the embedded index.")
]
QdrantUrl = Annotated[
    str | None,
    typer.Option(envvar="QDRANT_URL", help="Use a Qdrant server instead of the embedded index."),
]
QdrantKey = Annotated[
    str | None, typer.Option("--qdrant-api-key", envvar="QDRANT_API_KEY", help="Of the server.")
]
Collection = Annotated[str, typer.Option(help="Name of the collection on the server.")]
Encoder = Annotated[str, typer.Option(help="Dense encoder: bundled, or a folder or name.")]
Language = Annotated[
    str | None,
    typer.Option(help="Of the documents, for word search; english for a new index."),
]
Tenant = Annotated[str | None, typer.Option(help="Whose documents, where several share an index.")]
Backend = Annotated[
    Literal["torch", "openvino"],
    typer.Option("--encoder-backend", help="openvino is faster on CPUs (extra: fast)."),
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
RerankerName = Annotated[
    str,
    typer.Option(
        "--reranker",
        help="maxsim, reflection, cohere, none, or a cross-encoder's folder or name; joined by +.",
    ),
]
Model = Annotated[
    str, typer.Option("--model", envvar="OPENRAG_MODEL", help="bundled, or a folder or name.")
]
Base = Annotated[
    str | None, typer.Option("--base", help="Of an adapter-only checkpoint, if it was moved.")
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16 or auto.")]
Device = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", help="Longest answer.")]


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
