"""The base of the embedded default: SmolLM2-135M-Instruct, converted once and kept in the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from openrag_core.errors import CheckpointError
from openrag_core.model.checkpoints.files import new_folder
from openrag_core.weights import GENERATOR

_NAME = f"{GENERATOR.module}-{GENERATOR.version}-v1"  # another conversion takes another name


def cache_folder() -> Path:
    """Where converted weights are kept: $OPENRAG_CACHE, or the user's cache folder."""
    return Path(os.environ.get("OPENRAG_CACHE") or user_cache_dir("openrag"))


def bundled_base() -> Path:
    """The checkpoint folder of the dense model, converted on first use (about 15 s).

    Two processes may convert at the same time: each does so under a temporary name, and the first
    to finish wins.

    Raises:
        WeightsNotInstalledError: The package that holds the weights is not installed.
        CheckpointError: It cannot be converted, or the cache cannot be written.
    """
    folder = cache_folder() / _NAME
    if folder.is_dir():
        return folder
    gguf = GENERATOR.locate()
    try:
        with new_folder(folder) as made:
            _convert(gguf, made)
    except Exception as error:  # a full disk makes the libraries raise anything
        if not folder.is_dir():
            raise CheckpointError(
                f"the bundled model cannot be kept in {folder.parent} ({error}): make room there, "
                "or set OPENRAG_CACHE to another folder"
            ) from error
    return folder


def has_bundled_base(model: PreTrainedModel) -> bool:
    """Whether a model was made from the bundled dense one, or is it; by the name of its folder.

    Args:
        model: As `load` gives it.
    """
    config: Any = model.config
    return Path(getattr(config, "base_config", config)._name_or_path).name == _NAME


def _convert(gguf: Path, folder: Path) -> None:
    dense = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = dense.config.to_dict()
    for stale in ("quantization_config", "_name_or_path", "dtype", "model_type"):
        settings.pop(stale, None)
    plain = LlamaForCausalLM(LlamaConfig(**settings))  # one read from GGUF refuses to be saved
    plain.load_state_dict(dense.state_dict())
    plain.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
