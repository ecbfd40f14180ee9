"""Pictures of what was measured, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from openrag_core.evaluation.adaptive import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from openrag_core.evaluation.fitting import Fit

_STYLES = {
    "f_meanp": ("tab:blue", "-"),
    "f_minp": ("tab:orange", "-"),
    "f_ret": ("tab:green", "-"),
    "random": ("tab:gray", "--"),
    "oracle": ("tab:gray", ":"),
}


def png(figure: Figure) -> bytes:
    """The figure as a file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def adaptive_curve(curves: Sequence[Curve], *, metric: str) -> Figure:
    """Accuracy against the share of questions that retrieve, one line for each signal."""
    figure, axes = _figure((7, 4.5))
    for curve in curves:
        colour, line = _STYLES[curve.order]
        shares = [100 * point.share for point in curve.points]
        accuracies = [100 * point.accuracy for point in curve.points]
        label = f"{curve.order} (area {100 * curve.area:.1f})"
        axes.plot(shares, accuracies, color=colour, linestyle=line, label=label)
        if curve.order not in {"random", "oracle"}:
            best = curve.best
            axes.plot([100 * best.share], [100 * best.accuracy], color=colour, marker="o")
    axes.set(xlabel="questions that retrieve (%)", ylabel=f"{metric} (%)", xlim=(0, 100))
    axes.legend(loc="lower right", fontsize="small")
    return figure


def reliability_diagram(fits: Mapping[str, Fit]) -> Figure:
    """What was said against what was right; a dot's size is its share of the questions."""
    figure, axes = _figure((5.5, 5))
    axes.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", linewidth=1)
    for name, one in fits.items():
        x = [own.probability for own in one.bins]
        y = [own.right for own in one.bins]
        sizes = [20 + 400 * own.count / one.questions for own in one.bins]
        label = f"{name} (ECE {one.expected_error:.3f})"
        (line,) = axes.plot(x, y, linewidth=1, label=label)
        axes.scatter(x, y, s=sizes, color=line.get_color(), alpha=0.5)
    axes.set(
        xlabel="probability of being right, as calibrated",
        ylabel="share that was right",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(loc="upper left", fontsize="small")
    return figure


def routing_map(usage: Mapping[str, NDArray[np.float64]]) -> Figure:
    """How often each expert is chosen, by layer, one map for each kind of tokens.

    Args:
        usage: Shares of the choices, by name; each of shape (layers, experts), rows that add up
            to 1.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

    figure = Figure(figsize=(1.2 + 1.8 * len(usage), 5), layout="constrained")
    all_axes = figure.subplots(1, len(usage), sharey=True, squeeze=False)[0]
    experts = next(iter(usage.values())).shape[1]
    for axes, (name, shares) in zip(all_axes, usage.items(), strict=True):
        image = axes.imshow(shares, aspect="auto", cmap="viridis", vmin=0, vmax=3 / experts)
        axes.set(title=name, xlabel="expert")
        axes.title.set_fontsize("small")
    all_axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=all_axes, label="share of the choices")
    return figure


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes
