"""Where a run goes on from a mixture that was trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openrag_core.errors import CheckpointError, ConfigError
from openrag_core.model.checkpoints.adapter import (
    LORA,
    find_base,
    is_adapter,
    read_config,
)
from openrag_core.model.checkpoints.lora import read_lora_config
from openrag_core.training.recipe import Recipe
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER, checkpoint_folder


def find_start(recipe: Recipe) -> Path | None:
    """The adapter-only checkpoint that a recipe starts from; None where it starts anew.

    Raises:
        ConfigError: The recipe trains no mixture, or one of other sizes than the checkpoint's.
        CheckpointError: There is no such checkpoint, it is not adapter-only, or it belongs to
            another base.
    """
    if recipe.start is None:
        return None
    if recipe.mixture is None:
        raise ConfigError(
            "start: a run without a mixture has nothing to go on from; give it as base"
        )
    folder = BUNDLED_ADAPTER if recipe.start == BUNDLED else checkpoint_folder(recipe.start)
    if not is_adapter(folder):
        raise CheckpointError(
            f"start: {folder} is no adapter-only checkpoint, as openrag train leaves them in "
            "OUT/model"
        )
    find_base(folder, recipe.base)
    wanted, found = _sizes(recipe), _sizes_of(folder)
    if other := [
        f"{name} is {found[name]!r} there and {wanted[name]!r} in the recipe"
        for name in found
        if found[name] != wanted[name]
    ]:
        raise ConfigError(f"start: {folder} has other sizes ({'; '.join(other)}): take its own")
    return folder


def _sizes(recipe: Recipe) -> dict[str, Any]:
    mixture, lora = recipe.mixture, recipe.lora
    assert mixture is not None
    return {
        "num_experts": mixture.num_experts,
        "top_k": mixture.top_k,
        "adapter_dim": mixture.adapter_dim,
        "scaling": mixture.scaling,
        "lora.rank": lora.rank,
        "lora.alpha": lora.alpha,
        "lora.dora": lora.dora,
    }


def _sizes_of(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    sizes = {
        "num_experts": config.num_experts,
        "top_k": config.num_experts_per_tok,
        "adapter_dim": config.adapter_dim,
        "scaling": config.scaling,
    }
    if not (folder / LORA).is_dir():  # upcycled and never trained: LoRA begins anew
        return sizes
    lora: Any = read_lora_config(folder / LORA)
    return sizes | {
        "lora.rank": lora.r,
        "lora.alpha": lora.lora_alpha,
        "lora.dora": lora.use_dora,
    }
