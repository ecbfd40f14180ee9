"""What do the experts cost? The bundled mixture against the dense model inside it.

python benchmarks/mixture.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timing import save, side_by_side
from transformers import DynamicCache

from openrag_core.model import load

BATCHES = (1, 8, 32)
LENGTH = 190
STEPS = 20


def main() -> None:
    """Print the ratios and save them."""
    model: Any = load("bundled")[0]
    layers = model.base.model.layers
    mixtures = [layer.mlp for layer in layers]
    rows = []
    for batch in BATCHES:
        row: dict[str, Any] = {"batch": batch}
        for stage, run in (("prefill", _prefill), ("decode", _decode)):
            ways = (partial(_with, layers, mixtures), partial(_with, layers, _dense(mixtures)))
            cache = DynamicCache(config=model.config.get_text_config())
            ids = torch.randint(20, 40_000, (batch, LENGTH))
            if stage == "decode":
                _prefill(model, ids, cache)
            mixed, dense = side_by_side(*(partial(way, run, model, ids, cache) for way in ways))
            row |= {f"{stage}_mixture_s": mixed, f"{stage}_dense_s": dense}
            row[f"{stage}_ratio"] = mixed / dense
        rows.append(row)
        print(
            f"batch {batch:2}  prefill {row['prefill_ratio']:.2f}  decode {row['decode_ratio']:.2f}"
        )
    save(__file__, rows, dtype=str(model.dtype))


def _dense(mixtures: list[Any]) -> list[Any]:
    return [mixture.dense for mixture in mixtures]


def _with(layers: Any, blocks: list[Any], run: Any, *arguments: Any) -> None:  # noqa: ANN401
    for layer, block in zip(layers, blocks, strict=True):
        layer.mlp = block
    run(*arguments)


@torch.inference_mode()
def _prefill(model: Any, ids: torch.Tensor, cache: DynamicCache) -> None:  # noqa: ANN401
    cache.reset()
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)


@torch.inference_mode()
def _decode(model: Any, ids: torch.Tensor, cache: DynamicCache) -> None:  # noqa: ANN401
    for _ in range(STEPS):
        model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1)
    cache.crop(-STEPS)


if __name__ == "__main__":
    main()
