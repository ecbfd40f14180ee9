"""Name or folder -> a model ready to run, with its tokenizer."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core._extras import need
from openrag_core.compute import choose_device, choose_dtype
from openrag_core.errors import ConfigError
from openrag_core.model.attention import use_cpu_decoding
from openrag_core.model.checkpoints.adapter import find_base, is_adapter, load_adapter
from openrag_core.model.checkpoints.dense import (
    bundled_tokenizer,
    dense_folder,
    from_folder,
    read_tokenizer,
)
from openrag_core.model.checkpoints.files import read_json, readable
from openrag_core.model.checkpoints.published import (
    is_published,
    load_published,
    read_published_tokenizer,
)
from openrag_core.model.checkpoints.published_split import is_split, load_split
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER, checkpoint_folder, quietly


@quietly()
def load(
    path_or_name: str | PathLike[str] = BUNDLED,
    *,
    base: str | PathLike[str] | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict[str, Any] | None = None,
    load_in_4bit: bool = False,
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a checkpoint: ours, one in the published Open-RAG layout, or a dense model as it is.

    Args:
        path_or_name: "bundled" for the embedded default, a folder, or a name on a model hub.
        base: The dense model that an adapter-only checkpoint belongs to, or one as the released
            training leaves it, if it is no longer where the checkpoint says.
        dtype: "float32", "float16", "bfloat16" or a torch dtype, or "auto" for that of the files.
            By default bfloat16 where the device multiplies it natively and float32 elsewhere.
        device: Such as "cpu" or "cuda:1"; by default the GPU where there is one.
        device_map: In place of `device`: "auto" spreads the model over the GPUs, by accelerate.
        load_in_4bit: Whether the dense weights are kept in 4 bits (NF4, by bitsandbytes); routers
            and experts never are.

    Returns:
        The model in evaluation mode, and its tokenizer. `model.config.reflection_trained` says
        whether its reflection tokens mean anything (absent in a dense model: they do not).

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        MissingExtraError: 4 bits or a device map are asked for without the package they need.
        CheckpointError: There is no such checkpoint, or it is damaged.
        ConfigError: The dtype or the device is unknown, or a base is given to what takes none.
    """
    where = choose_device(device)
    numbers: Any = "auto" if dtype == "auto" else choose_dtype(dtype, where)
    kwargs: dict[str, Any] = {"dtype": numbers}
    if device_map is not None:
        kwargs["device_map"] = device_map
    if load_in_4bit:
        kwargs |= four_bits(
            choose_dtype(None if dtype == "auto" else dtype, where), device_map or {"": where}
        )
    model: Any
    model, tokenizer = _load(path_or_name, base, kwargs)
    model.name_or_path = str(path_or_name)  # an adapter's says where its base lies
    use_cpu_decoding(model)
    if "device_map" not in kwargs:
        model.to(where)
    return model.eval(), tokenizer


def _load(
    path_or_name: str | PathLike[str], base: str | PathLike[str] | None, kwargs: dict[str, Any]
) -> tuple[PreTrainedModel, Tokenizer]:
    if str(path_or_name) == BUNDLED:
        if base not in (None, BUNDLED):
            raise ConfigError(f"{BUNDLED} has its own base and takes no other, got {str(base)!r}")
        return load_adapter(BUNDLED_ADAPTER, base=BUNDLED, **kwargs), bundled_tokenizer()
    folder = checkpoint_folder(path_or_name)
    if is_adapter(folder):
        return load_adapter(folder, base=base, **kwargs), read_tokenizer(folder)
    if is_split(folder):
        if "quantization_config" in kwargs:
            raise ConfigError(
                f"{folder}: its LoRA must be merged before the weights are put in 4 bits: "
                "openrag convert it first"
            )
        with readable(folder):
            return load_split(folder, base, **kwargs)
    if base is not None:
        raise ConfigError(f"{folder} is a whole model and takes no base")
    config = read_json(folder / "config.json")
    if is_published(config):
        with readable(folder):
            return load_published(folder, config, **kwargs), read_published_tokenizer(folder)
    return from_folder(folder, **kwargs), read_tokenizer(folder)


def base_of(
    path_or_name: str | PathLike[str], base: str | PathLike[str] | None = None
) -> Path | None:
    """Folder of the dense model that an adapter-only checkpoint belongs to; None of any other.

    Args:
        path_or_name: As in `load`.
        base: Where it is, if it was moved.

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        CheckpointError: It is not there.
    """
    if str(path_or_name) == BUNDLED:
        return dense_folder(BUNDLED)
    folder = checkpoint_folder(path_or_name)
    return find_base(folder, base) if is_adapter(folder) else None


def four_bits(
    numbers: torch.dtype, device_map: str | dict[str, Any] | dict[str, torch.device]
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that keep the dense weights in 4 bits.

    Args:
        numbers: What is computed in.
        device_map: Where; as in `load`, or every module on one device.

    Raises:
        MissingExtraError: The package it needs is not installed.
    """
    need("quantized", "accelerate", "bitsandbytes")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=numbers,
        llm_int8_skip_modules=["router", "lm_head"],
    )
    return {"quantization_config": settings, "device_map": device_map}
