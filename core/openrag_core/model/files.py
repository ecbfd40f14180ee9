"""Checkpoint folders: read with errors that name the file, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openrag_core.errors import CheckpointError, OpenRAGError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that takes its name only when the block ends well.

    Args:
        folder: Must not exist, or be empty.

    Raises:
        CheckpointError: There is something already, or it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already: remove it, or choose another name")
    try:
        made = folder.with_name(f".{folder.name}.{uuid4().hex}")
        made.mkdir(parents=True)
        try:
            yield made
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error


@contextmanager
def readable(where: Path) -> Iterator[None]:
    """Turn whatever the libraries raise over a damaged file into one error that names it.

    Raises:
        CheckpointError: Anything went wrong inside.
    """
    try:
        yield
    except OpenRAGError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{where}: cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        CheckpointError: It is missing, or holds no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as settings: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds no settings")
    return content


def read_tensors(*files: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every tensor in files of weights; pickles are read weights-only.

    Raises:
        CheckpointError: A file is missing, damaged or none of weights.
    """
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118  (no mapping)
                        yield name, tensors.get_tensor(name)
            else:
                yield from torch.load(file, weights_only=True, map_location="cpu").items()
        except (SafetensorError, UnpicklingError, OSError, RuntimeError, EOFError) as error:
            raise CheckpointError(
                f"{file}: damaged, or not a file of weights ({error}): fetch it again"
            ) from error


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, in order.

    Raises:
        CheckpointError: There are none.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map", {}).values()
            return [folder / shard for shard in sorted(set(shards))]
        if (single := folder / f"{stem}.{suffix}").is_file():
            return [single]
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin in it")


def check_loaded(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse a model that was loaded only in part: the rest of it would be random.

    Args:
        folder: For the message.
        info: What `from_pretrained` reports with `output_loading_info`.

    Raises:
        CheckpointError: A tensor is missing, has another shape or is not known.
    """
    for problem in ("missing", "unexpected", "mismatched"):
        if tensors := sorted(map(_describe, info[f"{problem}_keys"])):
            raise CheckpointError(
                f"{folder}: {len(tensors)} {problem} tensors, such as {'; '.join(tensors[:3])}"
            )


def _describe(key: str | tuple[str, torch.Size, torch.Size]) -> str:
    if isinstance(key, str):
        return key
    name, found, expected = key
    return f"{name} of shape {tuple(found)} instead of {tuple(expected)}"
