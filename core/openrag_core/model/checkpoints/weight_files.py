"""Files of weights, and whether they hold what a model needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from openrag_core.errors import CheckpointError


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: one, or its shards in order.

    Raises:
        CheckpointError: There are none, or their index is damaged.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            return _shards(index)
        if (single := folder / f"{stem}.{suffix}").is_file():
            return [single]
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin in it")


def read_folder(
    folder: Path, expected: Mapping[str, torch.Size], *, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read the weights of a model, in one file or in several.

    Args:
        folder: Holds `model.safetensors`, else `pytorch_model.bin`, or their shards and index.
        expected: Shape of every tensor.
        optional: Those that may be absent.

    Raises:
        CheckpointError: A file is damaged, or a tensor is missing, has another shape or is not
            known.
    """
    tensors: dict[str, Tensor] = {}
    for file in (files := weight_files(folder)):
        own = read_file(file)
        check_known(file, own, expected)
        tensors |= own
    check_complete(files[0] if len(files) == 1 else folder, tensors, expected, optional=optional)
    return tensors


def check_whole(file: Path) -> None:
    """Refuse a damaged file of safetensors by its header, which says how long it must be.

    Raises:
        CheckpointError: It is absent or damaged.
    """
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged ({error}): fetch it again") from error


def read_file(file: Path) -> dict[str, Tensor]:
    """Read one file of safetensors, or a pickle weights-only.

    Raises:
        CheckpointError: It is absent, damaged, or holds something else.
    """
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # unpickling a damaged file raises anything
        raise CheckpointError(
            f"{file}: damaged, or not a file of weights ({error}): fetch it again"
        ) from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{file}: holds a {type(tensors).__name__}, not tensors by name")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{file}: {name!r} is a {type(tensor).__name__}, not a tensor")
    # rotary frequencies are computed, yet stored by old releases
    return {k: v for k, v in tensors.items() if not k.endswith("rotary_emb.inv_freq")}


def check_known(
    file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> None:
    """Refuse tensors that the model has not, or has in another shape.

    Args:
        file: Where they come from, for the message.
        tensors: By their name in that file.
        expected: Shapes by that name.

    Raises:
        CheckpointError: One is foreign.
    """
    for name, tensor in tensors.items():
        found = tuple(tensor.shape)
        if name not in expected:
            raise CheckpointError(
                f"{file}: {name} of shape {found} belongs to no layer of this model"
            )
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{file}: {name} has shape {found}; expected {tuple(expected[name])}"
            )


def check_complete(
    file: Path,
    names: Collection[str],
    expected: Mapping[str, torch.Size],
    *,
    optional: Collection[str] = (),
) -> None:
    """Refuse a file that holds only a part: the rest of the model would be random.

    Args:
        file: Or folder, for the message.
        names: What it holds.
        expected: What it should hold.
        optional: What of that may be absent.

    Raises:
        CheckpointError: A tensor is missing.
    """
    if missing := [n for n in expected if n not in names and n not in optional]:
        raise CheckpointError(
            f"{file}: lacks {missing[0]} of shape {tuple(expected[missing[0]])}"
            + (f", and {len(missing) - 1} more tensors" if missing[1:] else "")
        )


def check_loaded(folder: Path, model: nn.Module, info: Mapping[str, Any]) -> None:
    """Refuse a model that was loaded only in part: the rest of it would be random.

    Args:
        folder: It was loaded from.
        model: As it was loaded.
        info: What `from_pretrained` reports with `output_loading_info`.

    Raises:
        CheckpointError: A tensor is missing, has another shape or is not known.
    """
    files = weight_files(folder)
    where = files[0] if len(files) == 1 else folder
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise CheckpointError(
            f"{where}: {name} has shape {tuple(found)}; expected {tuple(expected)}"
        )
    for name in sorted(info["unexpected_keys"]):
        raise CheckpointError(f"{where}: {name} belongs to no layer of this model")
    if missing := set(info["missing_keys"]):
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        check_complete(where, shapes.keys() - missing, shapes)


def _shards(index: Path) -> list[Path]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of weights ({error!r})") from error
    if strange := [shard for shard in shards if Path(str(shard)).name != shard]:
        raise CheckpointError(f"{index}: names a file that is not beside it: {strange[0]!r}")
    return [index.parent / shard for shard in sorted(shards)]
