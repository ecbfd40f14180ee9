"""openrag calibrate and openrag report: what the results of openrag eval come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from openrag_core._extras import need
from openrag_core.calibration import FILE, CalibratedGate, read_gate
from openrag_core.cli.console import err, out
from openrag_core.cli.loading import new_file
from openrag_core.errors import ConfigError
from openrag_core.records import Signal
from openrag_core.reflection import ScoreWeights

_ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9)
_RATES = (0.25, 0.5, 0.75)
_DATA = {"index", "index_sha256", "index_made", "qdrant_url", "collection", "tenant", "language"}
Folders = Annotated[list[Path], typer.Argument(help="Made by openrag eval.")]


def calibrate(
    results: Folders,
    output: Annotated[Path, typer.Option("--out", "-o", help="File of the gate.")] = Path(FILE),
    signal: Annotated[
        Literal["f_ret", "f_minp", "f_meanp"] | None,
        typer.Option(help="By default the one that tells right drafts best."),
    ] = None,
    method: Annotated[
        Literal["isotonic", "platt"], typer.Option(help="platt: for few questions.")
    ] = "isotonic",
) -> None:
    """Fit a gate that takes a target: how often to be right, or how often to retrieve.

    Writes the gate and, beside it, a reliability diagram. Put the gate into the folder of the
    model's checkpoint, or give it with openrag ask --calibration.
    """
    need("eval", "sklearn", "matplotlib", "ranx", "rouge_score")
    from openrag_core.evaluation import read_results  # noqa: PLC0415  (slow to load)
    from openrag_core.evaluation.calibrate import fit_gate  # noqa: PLC0415
    from openrag_core.evaluation.plots import png, reliability_diagram  # noqa: PLC0415

    picture = output.with_suffix(".png")
    if picture == output:
        raise ConfigError(f"--out {output} is where the diagram goes: name a .json file")
    for file in (output, picture):
        new_file("--out", file, FILE, read=_files(results))
    if len({folder.resolve() for folder in results}) < len(results):
        raise ConfigError("a folder is named twice, and its questions would count twice")
    runs = [read_results(folder) for folder in results]
    records = [record for _, own in runs for record in own]
    if len({_asked(config) for config, _ in runs}) > 1:
        raise ConfigError(
            "these results are of different models or pipelines, or of one that was asked with "
            "other settings, such as another instruction: a gate is of one; name those"
        )
    chosen: Signal | None = signal
    about = {
        "tasks": sorted({config["task"] for config, _ in runs}),
        "data": sorted({config["data"]["file"] for config, _ in runs}),
        "model": runs[0][0]["settings"].get("model"),
        "method": method,
    }
    weights = ScoreWeights(**runs[0][0]["pipeline"]["weights"])
    fitted = fit_gate(records, signal=chosen, method=method, weights=weights, about=about)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(fitted.gate, indent=1) + "\n", encoding="utf-8")
    names = {str(amount): one for amount, one in fitted.reading.items()}
    fits = {f"memory ({fitted.signal})": fitted.memory} | {
        f"{amount} passage{'s' if amount != '1' else ''}": one for amount, one in names.items()
    }
    picture.write_bytes(png(reliability_diagram(fits)))
    table = Table("answers", "questions", "right", "error (ECE)", "before")
    for name, one in fits.items():
        right = sum(own.right * own.count for own in one.bins) / one.questions
        before = "" if one.before != one.before else f"{one.before:.3f}"
        table.add_row(name, str(one.questions), f"{right:.3f}", f"{one.expected_error:.3f}", before)
    out.print(table)
    if 0 < fitted.right < 1:
        areas = " · ".join(f"{name} {area:.3f}" for name, area in fitted.ranking.items())
        out.print(f"telling right drafts from wrong ones (area under the ROC curve): {areas}")
    else:
        alike = "right" if fitted.right else "wrong"
        out.print(
            f"all drafts are {alike}: signals could not be compared; {fitted.signal} is taken"
        )
    out.print(_targets(output, records))
    err.print(f"{output} and {picture} written")


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    """Of the results, and what graded them."""
    from openrag_core.evaluation import results  # noqa: PLC0415  (slow to load)

    for folder in folders:
        yield from (folder / n for n in (results.CONFIG, results.SUMMARY, results.CURVES))
        yield folder / results.PICTURE
        yield from folder.glob("*.jsonl")


def _asked(config: Mapping[str, Any]) -> str:
    """What answered, whatever it was asked about and wherever that lay."""
    given = config["settings"]
    settings = {name: value for name, value in given.items() if name not in _DATA}
    settings["model"] = given.get("model_sha256") or given.get("model")
    return json.dumps([config["pipeline"], settings], sort_keys=True, default=str)


def _targets(file: Path, records: list[dict[str, object]]) -> Table:
    """What targets come to on the questions of the fit."""
    from openrag_core.evaluation.calibrate import simulate  # noqa: PLC0415  (slow to load)

    table = Table("target", "answered", "right of these", "retrieved", "passages read")
    for name, values in (("min_accuracy", _ACCURACIES), ("max_retrieval_rate", _RATES)):
        for value in values:
            try:
                gate: CalibratedGate = read_gate(file, **{name: value})
            except ConfigError as error:
                table.add_row(f"{name} {value:g}", str(error).partition(": ")[0], "", "", "")
                continue
            one = simulate(gate, records)
            table.add_row(
                one.target,
                f"{one.answered:.2f}",
                f"{one.accuracy:.2f}",
                f"{one.retrieved:.2f}",
                f"{one.passages:.1f}",
            )
    return table


def report(
    results: Folders,
    output: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
) -> None:
    """Make one HTML page of results: tables, pictures, and the worst cases with their passages."""
    need("eval", "sklearn", "matplotlib", "ranx", "rouge_score")
    from openrag_core.evaluation import read_results  # noqa: PLC0415  (slow to load)
    from openrag_core.evaluation.report import page  # noqa: PLC0415

    new_file("--out", output, "report.html", read=_files(results))
    runs = {str(folder): read_results(folder) for folder in results}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(runs), encoding="utf-8")
    err.print(f"{output} written")
