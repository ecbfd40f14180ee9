"""The mean of checkpoints that one mixture was trained to, tensor by tensor.

python recipes/average.py MODEL MODEL... OUT

Each MODEL is a folder in the adapter-only layout, as a run leaves it; the later ones went on from
the first. OUT is a new folder like the last. Both matrices of a LoRA are averaged, which is not the
mean of their products, but near it for models that are near each other.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from openrag_core.model.checkpoints.files import new_folder

FILES = ("adapter.safetensors", "lora/adapter_model.safetensors")
ROWS = "input_embeddings.rows"
"""Which rows of the embedding are kept; not a weight."""


def main(models: Sequence[Path], out: Path) -> None:
    """Write OUT."""
    means = {name: mean([load_file(model / name) for model in models]) for name in FILES}
    with new_folder(out) as made:
        shutil.copytree(models[-1], made, dirs_exist_ok=True)
        for name, tensors in means.items():
            with safe_open(models[-1] / name, "pt") as file:
                save_file(tensors, made / name, file.metadata())


def mean(files: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, in its dtype."""
    first = files[0]
    shapes = [{key: tensor.shape for key, tensor in file.items()} for file in files]
    same = all(own == shapes[0] for own in shapes)
    if not same or any(not torch.equal(first[ROWS], file[ROWS]) for file in files if ROWS in file):
        raise SystemExit("the checkpoints hold other tensors than each other: not one mixture")
    return {
        key: tensor
        if key == ROWS
        else torch.stack([file[key].float() for file in files]).mean(0).to(tensor.dtype)
        for key, tensor in first.items()
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case [first, *more, out] if more:
            main([Path(first), *map(Path, more)], Path(out))
        case _:
            raise SystemExit(__doc__)
