"""LoRA as peft writes it, read so that nothing is passed over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import PreTrainedModel

from openrag_core.errors import CheckpointError
from openrag_core.model.checkpoints.weight_files import check_complete, check_known, read_file

Shapes = Mapping[str, torch.Size]


def read_lora_config(folder: Path) -> PeftConfig:
    """The configuration beside the weights of a LoRA.

    Raises:
        CheckpointError: It is missing, damaged, or of another method.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; this checkpoint needs its LoRA")
    try:
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # peft makes keyword arguments of whatever it finds
        raise CheckpointError(f"{file}: no configuration of peft's ({error!r})") from error
    if config.peft_type != "LORA":
        raise CheckpointError(f"{file}: peft_type is {config.peft_type!r}; expected 'LORA'")
    return config


def put_lora(
    model: PreTrainedModel,
    folder: Path,
    *,
    embeddings: bool = False,
    optional: Callable[[Shapes], Collection[str]] = lambda _: (),
) -> PeftModel:
    """Put a LoRA around a model, in place.

    Args:
        model: What it was trained on.
        folder: Holds adapter_config.json and adapter_model.safetensors or .bin.
        embeddings: Whether the file may hold the whole embeddings too.
        optional: Given the shapes of all tensors, the names of those that may be absent.

    Raises:
        CheckpointError: A file is missing or damaged, does not fit the model, or lacks a tensor.
    """
    config = read_lora_config(folder)
    try:
        adapted: Any = PeftModel(model, config)
    except ValueError as error:
        raise CheckpointError(
            f"{folder / 'adapter_config.json'}: does not fit the model ({error})"
        ) from error
    put_lora_weights(adapted, folder, embeddings=embeddings, optional=optional)
    whole: PeftModel = adapted.eval()
    return whole


def put_lora_weights(
    adapted: PeftModel,
    folder: Path,
    *,
    embeddings: bool = False,
    optional: Callable[[Shapes], Collection[str]] = lambda _: (),
) -> None:
    """Copy the weights of a LoRA into one of the same shape.

    Arguments and errors are those of `put_lora`.
    """
    files = [folder / f"adapter_model.{suffix}" for suffix in ("safetensors", "bin")]
    file = next((file for file in files if file.is_file()), files[0])
    tensors = read_file(file)
    state = get_peft_model_state_dict(adapted, save_embedding_layers=embeddings)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    check_known(file, tensors, shapes)
    check_complete(file, tensors, shapes, optional=optional(shapes))
    set_peft_model_state_dict(adapted, tensors)
