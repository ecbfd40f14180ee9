"""openrag eval: a task, a file of examples, a folder of results."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openrag_core.build import Settings, build, find_models, open_index
from openrag_core.calibration import FILE as GATE_FILE
from openrag_core.cli import render_evaluation as render
from openrag_core.cli.console import err, out, progress
from openrag_core.cli.loading import folder_to_fill, old_file
from openrag_core.cli.options import (
    DEFAULT,
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
from openrag_core.errors import EvaluationError
from openrag_core.reflection import ScoreWeights
from openrag_core.search import SearchOptions
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER
from openrag_core.words import counted

if TYPE_CHECKING:
    from openrag_core.pipeline import OpenRAG

RELEASED = "released"
_SHOWN = (
    "model",
    "base",
    "dtype",
    "device",
    "max_new_tokens",
    "instruction",
    "encoder",
    "reranker",
)
_OF_THE_INDEX = ("index", "qdrant_url", "collection", "language", "tenant")


def evaluate(
    task: Annotated[
        str,
        typer.Option(
            help="popqa, triviaqa, nq, squad, arc_challenge, claims, hotpotqa, 2wiki, musique, "
            "squad_v2, clapnq, asqa or faithfulness."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Its examples: .jsonl or .json, perhaps .gz.")],
    output: Annotated[Path, typer.Option("--out", help="Folder of the results.")],
    passages: Annotated[
        Literal["given", "index", "none"] | None,
        typer.Option(
            help="Read those of the rows (default, if they bring any), an index, or none."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions, from the first on.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Questions that are answered together.")
    ] = 16,
    instruction: Annotated[
        str | None,
        typer.Option(help="In front of every prompt; 'released': the task's own, as published."),
    ] = None,
    evidence: Evidence = DEFAULT.evidence,
    hops: HopCount = str(DEFAULT.hops),
    top_k: TopK = DEFAULT.top_k,
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
) -> None:
    """Answer questions from memory and from passages, and measure both.

    What the tasks measure is in docs/evaluation.md. Interrupted, the same command goes on where it
    was. What a gate would have decided is worked out afterwards, from the results.
    """
    settings = Settings(
        model=model,
        base=base,
        dtype=dtype,
        device=device,
        max_new_tokens=max_new_tokens,
        instruction=instruction,
        index=index,
        qdrant_url=qdrant_url,
        qdrant_api_key=qdrant_api_key,
        collection=collection,
        encoder=encoder,
        language=language,
        reranker=reranker,
        evidence=evidence,
        hops=hops_of(hops),
        top_k=top_k,
        min_relevance=min_relevance,
        weights=ScoreWeights() if released_score else None,
        tenant=tenant,
        search=SearchOptions(mode=search),
    )
    _run(settings, task, data, output, passages=passages, limit=limit, batch_size=batch_size)


def _run(
    settings: Settings,
    name: str,
    data: Path,
    folder: Path,
    *,
    passages: Literal["given", "index", "none"] | None,
    limit: int | None,
    batch_size: int,
) -> None:
    old_file("--data", data)
    folder_to_fill("--out", folder)
    from openrag_core import evaluation  # noqa: PLC0415  (an extra)
    from openrag_core.evaluation.run import source_of  # noqa: PLC0415

    source = source_of(name, data, passages)
    if settings.instruction == RELEASED:
        settings = replace(settings, instruction=evaluation.task(name).instruction)
    with err.status("loading (the first time, the bundled model is converted: about 15 s)"):
        rag, described = _pipeline(settings, reads_index=source == "index")
    try:
        with progress() as advance:
            done = evaluation.evaluate(
                rag,
                name,
                data,
                folder,
                passages=source,
                limit=limit,
                batch_size=batch_size,
                settings=described,
                progress=lambda done, total: advance("answering", done, total),
            )
    except KeyboardInterrupt:
        _tell_how_to_go_on(folder)
        raise
    out.print(render.evaluated(done))


def _pipeline(settings: Settings, *, reads_index: bool) -> tuple[OpenRAG, dict[str, Any]]:
    """It, and what determines its numbers that it does not tell by itself."""
    from openrag_core.evaluation.run import GivenRetriever  # noqa: PLC0415

    find_models(settings)
    given = asdict(settings)
    described = {name: given[name] for name in _SHOWN} | {"model_sha256": _weights(settings)}
    if not reads_index:
        return build(settings, retriever=GivenRetriever()), described
    passages = open_index(settings, must_exist=True)
    store = passages.store
    described |= {name: str(given[name]) for name in _OF_THE_INDEX}
    described |= {"search": given["search"], "index_sha256": passages.fingerprint()}
    described |= {"index_made": dict(store.description or {})}
    return build(settings, retriever=passages), described


def _weights(settings: Settings) -> str | None:
    """Of the model's files, where they are on this machine.

    Its card and its gate change no answer, and a gate is fitted to a folder of answers that may
    then still grow.
    """
    from openrag_core.evaluation.results import fingerprint  # noqa: PLC0415

    folder = BUNDLED_ADAPTER if settings.model == BUNDLED else Path(settings.model)
    return fingerprint(folder, without=("README.md", GATE_FILE)) if folder.is_dir() else None


def _tell_how_to_go_on(folder: Path) -> None:
    from openrag_core.evaluation import read_results  # noqa: PLC0415

    try:
        _, records = read_results(folder)
    except EvaluationError:
        return  # it had not begun
    err.print(f"{counted(len(records), 'question')} done: the same command goes on from there")
