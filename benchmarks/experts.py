"""Every expert for every token, or only the chosen ones, grouped: which is faster?

The two functions that the layer chooses between, without a model; every round routes anew, since
a product of bfloat16 costs more for a number of rows that was not met before.

    python benchmarks/experts.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from timing import ROUNDS, save, side_by_side
from torch import Tensor

from openrag_core.model.layer import dense, grouped, grouping_pays

DTYPES = (torch.bfloat16, torch.float32)
SHAPES = ((576, 32), (576, 128), (2048, 256), (4096, 512))
TOKENS = (1, 8, 64, 512, 2048)
EXPERTS = 8
TOP_K = 2

Routing = tuple[Tensor, Tensor]


def main() -> None:
    """Print the ratios, dense pass / grouped, and save them."""
    torch.manual_seed(0)
    print(f"{'tokens':24}" + "".join(f"{tokens:7}" for tokens in TOKENS) + "  layer takes")
    rows: list[dict[str, Any]] = []
    for dtype in DTYPES:
        for hidden, width in SHAPES:
            down, up = (0.02 * torch.randn(2, EXPERTS, width, hidden)).to(dtype)
            row: dict[str, Any] = {"dtype": str(dtype), "hidden": hidden, "width": width}
            for tokens in TOKENS:
                y = torch.randn(tokens, hidden, dtype=dtype)
                times = _measured(y, down, up)
                row |= dict(zip((f"dense_{tokens}_s", f"grouped_{tokens}_s"), times, strict=True))
                row[f"ratio_{tokens}"] = times[0] / times[1]
            rows.append(row)
            ratios = "".join(f"{row[f'ratio_{tokens}']:7.2f}" for tokens in TOKENS)
            name = f"{str(dtype).removeprefix('torch.'):8}  {hidden:4} x {width:4}"
            takes = "grouped" if grouping_pays(y, down, _routing(y)[0]) else "dense"
            print(f"{name:24}{ratios}  {takes}")
    save(__file__, rows)


def _measured(y: Tensor, down: Tensor, up: Tensor) -> tuple[float, float]:
    calls = 10 if len(y) < 512 else 1  # a single short one is lost in the noise
    routings = [[_routing(y) for _ in range(calls)] for _ in range(ROUNDS + 1)]
    ways = (partial(_run, way, y, down, up, iter(routings)) for way in (dense, grouped))
    first, second = side_by_side(*ways)
    return first / calls, second / calls


def _routing(y: Tensor) -> Routing:
    best, chosen = torch.randn(len(y), EXPERTS).topk(TOP_K)
    return chosen, best.softmax(dim=-1).to(y.dtype)


@torch.inference_mode()
def _run(
    way: Callable[..., Tensor],
    y: Tensor,
    down: Tensor,
    up: Tensor,
    routings: Iterable[list[Routing]],
) -> None:
    for routing in next(iter(routings)):
        way(y, down, up, *routing)


if __name__ == "__main__":
    main()
