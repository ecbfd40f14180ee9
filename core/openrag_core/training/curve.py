"""What a run leaves to look at: a line of JSON per log, and the loss as a picture."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_logger = logging.getLogger(__name__)
LOG, PICTURE = "log.jsonl", "loss.png"


class CurveCallback(TrainerCallback):
    """Keeps log.jsonl and loss.png up to date.

    Args:
        folder: Of the run.
        tokens_per_step: For the horizontal axis.
    """

    def __init__(self, folder: Path, tokens_per_step: float) -> None:
        self._folder = folder
        self._tokens_per_step = tokens_per_step
        self._start = perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what was logged after the checkpoint that is resumed from."""
        if state.is_world_process_zero:
            kept = [line for line in read_log(self._folder) if line["step"] <= state.global_step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            (self._folder / LOG).write_text(text, encoding="utf-8")
            self._start = perf_counter() - (kept[-1]["seconds"] if kept else 0.0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a line."""
        if state.is_world_process_zero and logs:
            line = {
                "step": state.global_step,
                "tokens": round(state.global_step * self._tokens_per_step),
                "seconds": round(perf_counter() - self._start, 1),
                **{name: value for name, value in logs.items() if name != "total_flos"},
            }
            try:
                with (self._folder / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:  # no reason to lose what was learned
                _logger.warning("%s: cannot be written (%s)", self._folder / LOG, error)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw what there is."""
        if state.is_world_process_zero:
            try:
                draw(self._folder)
            except OSError as error:
                _logger.warning("%s: cannot be written (%s)", self._folder / PICTURE, error)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw all of it."""
        self.on_save(args, state, control)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's log; none where there is no log yet."""
    file = folder / LOG
    if not file.is_file():
        return []
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # the last one of a run that was stopped while writing
            lines.append(json.loads(line))
    return lines


def draw(folder: Path) -> None:
    """Draw the loss of a run into loss.png; nothing where nothing was logged."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

    log = read_log(folder)
    learned = [(line["tokens"], line["loss"]) for line in log if "loss" in line]
    held_out = [(line["tokens"], line["eval_loss"]) for line in log if "eval_loss" in line]
    if not learned:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*learned, strict=True), linewidth=1, alpha=0.4, color="tab:blue")
    axes.plot(*zip(*_smooth(learned), strict=True), color="tab:blue", label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), marker="o", color="tab:orange", label="validation")
    axes.set(xlabel="tokens", ylabel="loss (nats)", title=folder.name)
    axes.set_yscale("log")  # the first steps would flatten all others
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / PICTURE, dpi=120)


def _smooth(points: list[tuple[float, float]], weight: float = 0.8) -> list[tuple[float, float]]:
    """Exponential mean, corrected for its beginning."""
    mean, total, smooth = 0.0, 0.0, []
    for where, value in points:
        mean = weight * mean + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append((where, mean / total))
    return smooth
