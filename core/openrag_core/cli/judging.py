"""openrag judge, openrag data synthesize: a chat model of the user's own grades and writes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openrag_core.build import Settings, open_index
from openrag_core.cli import render_judging as render
from openrag_core.cli.console import err, out, progress
from openrag_core.cli.loading import load_object, new_file
from openrag_core.cli.options import (
    DEFAULT,
    Collection,
    Encoder,
    Index,
    Language,
    QdrantKey,
    QdrantUrl,
    Tenant,
)
from openrag_core.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from openrag_core.conversation import ChatModel
    from openrag_core.evaluation import Rubric

Chat = Annotated[
    str,
    typer.Option("--chat", help="MODULE:NAME of a ChatModel, such as LangChainChat(model)."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Under which replies are kept, if the model has no name itself."),
]
Concurrency = Annotated[int, typer.Option("--concurrency", help="Most requests at once.")]
Attempts = Annotated[
    int, typer.Option("--attempts", help="Most requests for one reply that can be used.")
]
PromptPrice = Annotated[
    float, typer.Option("--prompt-price", help="Per million tokens that the model reads.")
]
NewPrice = Annotated[
    float, typer.Option("--new-price", help="Per million tokens that the model writes.")
]


def judge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of an evaluation.")],
    chat: Chat,
    rubric: Annotated[
        list[str] | None,
        typer.Option(help="correctness, faithfulness, relevance, or MODULE:NAME; by default all."),
    ] = None,
    way: Annotated[
        Literal["memory", "reading"] | None,
        typer.Option(help="Which answers; by default those from reading, where there are any."),
    ] = None,
    name: Name = None,
    concurrency: Concurrency = 8,
    attempts: Attempts = 3,
    prompt_price: PromptPrice = 0.0,
    new_price: NewPrice = 0.0,
) -> None:
    """Have a chat model grade the answers of an evaluation.

    Judgements are written to DIR, beside those by other rubrics. Interrupted, the same command goes
    on and pays nothing twice.
    """
    from openrag_core import evaluation  # noqa: PLC0415  (an extra)
    from openrag_core.cache import JsonCache  # noqa: PLC0415
    from openrag_core.json_lines import read_json_lines, write_json_lines  # noqa: PLC0415

    _, records = evaluation.read_results(folder)
    asked = evaluation.Judge(
        _chat(chat),
        [_rubric(one) for one in rubric or ()] or evaluation.RUBRICS,
        name=name,
        concurrency=concurrency,
        attempts=attempts,
        cache=JsonCache(folder / "judge.cache.jsonl"),
        price=evaluation.Price(prompt_price, new_price),
    )
    with progress() as advance:
        judged = asked.judge(
            records, way=way, progress=lambda done, total: advance("judging", done, total)
        )
    file = folder / f"judgements{f'.{way}' if way else ''}.jsonl"
    now = {one.rubric for one in judged.judgements}
    before = read_json_lines(file, error=EvaluationError) if file.is_file() else ()
    others = [one for _, one in before if one.get("rubric") not in now]
    written = [*others, *map(asdict, judged.judgements)]
    write_json_lines(written, file, error=EvaluationError)
    out.print(render.judged(judged.summary(), file))
    failed = [one for one in judged.judgements if one.outcome == "failed"]
    if failed:
        err.print(f"{len(failed)} failed, the first: {failed[0].reason}", markup=False)
    if failed and not any(one.outcome == "graded" for one in judged.judgements):
        raise typer.Exit(1)


def synthesize(
    output: Annotated[Path, typer.Option("--output", "-o", help="File of questions to make.")],
    chat: Chat,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Questions to keep.")] = 100,
    threshold: Annotated[int, typer.Option(help="Lowest grade of a critique, 1 to 5.")] = 4,
    max_passages: Annotated[
        int | None,
        typer.Option(min=1, help="Most passages to ask about; by default four times -n."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing of passages.")] = 0,
    name: Name = None,
    concurrency: Concurrency = 8,
    attempts: Attempts = 3,
    prompt_price: PromptPrice = 0.0,
    new_price: NewPrice = 0.0,
    index: Index = DEFAULT.index,
    qdrant_url: QdrantUrl = None,
    qdrant_api_key: QdrantKey = None,
    collection: Collection = DEFAULT.collection,
    encoder: Encoder = DEFAULT.encoder,
    language: Language = DEFAULT.language,
    tenant: Tenant = None,
) -> None:
    """Have a chat model write questions about what is indexed, and drop the bad ones.

    Interrupted, the same command goes on and pays nothing twice.
    """
    from openrag_core import evaluation  # noqa: PLC0415  (an extra)
    from openrag_core.cache import JsonCache  # noqa: PLC0415

    new_file("--output", output, "questions.jsonl")
    writer = evaluation.Synthesizer(
        _chat(chat),
        name=name,
        threshold=threshold,
        concurrency=concurrency,
        attempts=attempts,
        cache=JsonCache(output.with_suffix(".cache.jsonl")),
        price=evaluation.Price(prompt_price, new_price),
    )
    settings = Settings(
        index=index,
        qdrant_url=qdrant_url,
        qdrant_api_key=qdrant_api_key,
        collection=collection,
        encoder=encoder,
        language=language,
        tenant=tenant,
    )
    with err.status("opening the index"):
        passages = open_index(settings, must_exist=True)
    with progress() as advance:
        made = writer.synthesize(
            passages,
            count,
            seed=seed,
            max_passages=max_passages,
            progress=lambda done, total: advance("writing questions", done, total),
        )
    passages.close()
    if made.questions:
        made.write(output)
    out.print(render.synthesized(made.summary(), output))
    if not made.questions:
        raise EvaluationError(f"no question was kept, and {output} was not written")


def _chat(path: str) -> ChatModel:
    found: ChatModel = load_object("--chat", path, "a ChatModel, an object with `reply`")
    return found


def _rubric(given: str) -> Rubric:
    from openrag_core.evaluation import RUBRICS, Rubric  # noqa: PLC0415

    known = {rubric.name: rubric for rubric in RUBRICS}
    if given in known:
        return known[given]
    found = load_object("--rubric", given, f"a Rubric, or one of {', '.join(known)}")
    if not isinstance(found, Rubric):
        raise ConfigError(f"--rubric {given!r}: expected a Rubric, got {type(found).__name__}")
    return found
