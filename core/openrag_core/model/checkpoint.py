"""Name or folder -> a model ready to run, with its tokenizer."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core.compute import choose_device, choose_dtype
from openrag_core.errors import CheckpointError, OpenRAGError
from openrag_core.model.attention import use_cpu_decoding
from openrag_core.model.bundled import bundled_folder
from openrag_core.model.published import is_published, load_published
from openrag_core.model.published_split import is_split, load_split
from openrag_core.model.weight_files import check_loaded
from openrag_core.weights import BUNDLED, checkpoint_folder


def load(
    path_or_name: str | PathLike[str] = BUNDLED,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a checkpoint: ours, a published Open-RAG one (merged or not), or a dense model as it is.

    Args:
        path_or_name: "bundled" for the embedded default, a folder, or a name on a model hub.
        dtype: "float32", "float16", "bfloat16" or a torch dtype. By default bfloat16 where the
            device multiplies it natively and float32 elsewhere.
        device: Such as "cpu" or "cuda:1"; by default the GPU where there is one.

    Returns:
        The model in evaluation mode, and its tokenizer. `model.config.reflection_trained` says
        whether its reflection tokens mean anything (absent in a dense model: they do not).

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        CheckpointError: There is no such checkpoint, or it is damaged.
        ConfigError: The dtype or the device is unknown.
    """
    where = choose_device(device)
    numbers = choose_dtype(dtype, where)
    folder = bundled_folder() if path_or_name == BUNDLED else checkpoint_folder(path_or_name)
    model: Any
    try:
        if is_split(folder):
            model, tokenizer = load_split(folder, dtype=numbers)
        else:
            model = _model(folder, numbers)
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except OpenRAGError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise anything
        raise CheckpointError(
            f"{folder}: transformers cannot load it: {type(error).__name__}: {error}"
        ) from error
    use_cpu_decoding(model)
    return model.to(where).eval(), tokenizer


def _model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = _config(folder)
    if is_published(config):
        return load_published(folder, config, dtype=dtype)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    check_loaded(folder, loaded[1])
    model: PreTrainedModel = loaded[0]
    return model


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as a model's config: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: holds no settings")
    return config
