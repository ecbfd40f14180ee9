"""Commands that make training data and train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrag_core.build import Settings, open_index
from openrag_core.cli import render_training as render
from openrag_core.cli.console import err, goes_on, out, progress
from openrag_core.cli.loading import folder_to_fill, load_object, new_file, old_file
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER, checkpoint_folder

if TYPE_CHECKING:
    from openrag_core.retrieval import PassageIndex
    from openrag_core.training import Critic, Helpers, Text

data_app = typer.Typer(help="Questions and training rows.", no_args_is_help=True)


@data_app.command("build")
def build(
    questions: Annotated[list[Path], typer.Argument(help="Files of questions, JSON lines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of rows to make.")],
    mine: Annotated[
        Path | None, typer.Option(help="Passages to mine hard distractors in, JSON lines.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Dense model to ask what it knows: bundled, or a folder or name."),
    ] = None,
    min_no_retrieval: Annotated[
        float, typer.Option(help="Share of questions that need no retrieval to reach, with --base.")
    ] = 0.2,
    critic: Annotated[
        str | None, typer.Option(help="Judges unlabelled passages: MODULE:NAME of a Critic.")
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Trained model that reads the distractors' answers out of them: bundled, or a "
            "folder or name."
        ),
    ] = None,
    gold: Annotated[float, typer.Option(help="Rows per question with gold evidence.")] = 1.0,
    mixed: Annotated[float, typer.Option(help="With gold and a distractor.")] = 0.5,
    distractor: Annotated[float, typer.Option(help="With distractors only.")] = 1.0,
    window: Annotated[
        int | None, typer.Option(help="Words to which most passages are cut.")
    ] = None,
    whole: Annotated[
        float, typer.Option(help="With --window, share of the passages that stay whole.")
    ] = 0.3,
    sentences: Annotated[
        bool,
        typer.Option(
            "--sentences",
            help="Learn relevance at the end of every sentence: until the answer is told, a gold "
            "passage is irrelevant.",
        ),
    ] = False,
    judge_only: Annotated[
        bool,
        typer.Option(
            "--judge-only",
            help="End rows of distractors alone at [Irrelevant], in place of a --reader.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Make training rows that contrast gold passages with distractors.

    What the base, the critic and the reader say is kept beside the output: run again, it goes on
    from there.
    """
    for file in questions:
        old_file("QUESTIONS", file)
    if mine is not None:
        old_file("--mine", mine)
    from openrag_core import training  # noqa: PLC0415  (loads torch)

    mix = training.Mix(
        gold=gold,
        mixed=mixed,
        distractor=distractor,
        window=window,
        whole=whole,
        sentences=sentences,
        answer_distractors=not judge_only,
        seed=seed,
    )
    new_file("--output", output, "rows.jsonl", read=filter(None, (*questions, mine)))
    read = [question for file in questions for question in training.read_questions(file)]
    helpers = _helpers(output, mine=mine, base=base, critic=critic, reader=reader)
    with goes_on("the same command goes on from what was asked before"), progress() as advance:
        made = training.build_dataset(
            read, mix, helpers, min_no_retrieval=min_no_retrieval, progress=advance
        )
    training.write_rows(made.rows, output)
    unlabelled = 0 if critic else sum(len(question.passages) for question in read)
    wanted = min_no_retrieval if base else 0.0
    out.print(render.dataset(made, output, wanted=wanted, unlabelled=unlabelled))


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file; see recipes/ and docs/training.md.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the latest checkpoint in OUT.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda.")] = None,
) -> None:
    """Train a model by a recipe.

    On several GPUs: torchrun --nproc-per-node N --no-python openrag train RECIPE OUT
    """
    old_file("RECIPE", recipe)
    folder_to_fill("OUT", output)
    from openrag_core import training  # noqa: PLC0415  (loads torch)
    from openrag_core.cli.training_bar import TrainingBar  # noqa: PLC0415

    chosen = training.read_recipe(recipe)
    resumes = (
        "the same command with --resume goes on from the latest checkpoint; one is saved every "
        f"{chosen.save_every:,} steps"
    )
    with goes_on(resumes), TrainingBar(err) as bar:
        done = training.train(chosen, output, resume=resume, device=device, callbacks=[bar])
    if done is not None:  # the other processes of torchrun have nothing to say
        out.print(render.trained(done, output))


def _helpers(
    output: Path,
    *,
    mine: Path | None,
    base: str | None,
    critic: str | None,
    reader: str | None,
) -> Helpers:
    from openrag_core import training  # noqa: PLC0415
    from openrag_core.model import TransformersGenerator, load  # noqa: PLC0415
    from openrag_core.model.checkpoints.dense import dense_folder  # noqa: PLC0415
    from openrag_core.retrieval.encoders import fingerprint  # noqa: PLC0415

    given: dict[str, Any] = {"cache": training.JsonCache(output.with_suffix(".cache.jsonl"))}
    if critic is not None:
        given["critic"] = _critic(critic)
    if mine is not None:
        passages = training.read_passages(mine)
        given |= {"whole": passages, "retriever": _index(passages, output.with_suffix(".index"))}
    if base is not None:
        with err.status("loading the base"):
            folder = dense_folder(base)
            model = TransformersGenerator(*load(folder), max_new_tokens=16)
        given |= {"base": model, "base_name": fingerprint(folder)}
    if reader is not None:
        with err.status("loading the reader"):
            folder = BUNDLED_ADAPTER if reader == BUNDLED else checkpoint_folder(reader)
            model = TransformersGenerator(*load(reader), max_new_tokens=32)
        given |= {"reader": model, "reader_name": fingerprint(folder)}
    return training.Helpers(**given)


def _index(passages: Mapping[str, Text], folder: Path) -> PassageIndex:
    """The passages, indexed beside the output; what has not changed is left alone."""
    from openrag_core.retrieval import Document, Section  # noqa: PLC0415

    with err.status("opening the index"):
        index = open_index(Settings(index=folder))
    index.remove(set(index.documents()) - passages.keys())

    def documents() -> Iterator[Document]:
        for source, passage in passages.items():
            advance("indexing", 1, len(passages))
            digest = sha256(f"{passage.title}\n{passage.text}".encode()).hexdigest()
            yield Document(source, source, digest, (Section(passage.title, passage.text),))

    with progress() as advance:
        index.add_documents(documents())
    return index


def _critic(path: str) -> Critic:
    from openrag_core.training.critic import check_critic  # noqa: PLC0415

    found: Critic = load_object("--critic", path, "an object with `name` and `judge`")
    check_critic(found)
    return found
