"""The dense model that a mixture is made from."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from openrag_core.errors import CheckpointError
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.model.checkpoints.files import read_json, readable
from openrag_core.model.checkpoints.published import (
    can_be_published,
    is_published,
    read_published_tokenizer,
)
from openrag_core.model.checkpoints.weight_files import check_loaded, check_whole, weight_files
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.upcycle import extend_tokenizer
from openrag_core.weights import BUNDLED, checkpoint_folder, quietly


def dense_folder(path_or_name: str | PathLike[str]) -> Path:
    """The folder of a dense model; "bundled" is the one inside the embedded default.

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        CheckpointError: There is none, or it is no dense decoder.
    """
    folder = bundled_base() if str(path_or_name) == BUNDLED else checkpoint_folder(path_or_name)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind == OpenRAGConfig.model_type or is_published(config):
        raise CheckpointError(
            f"{folder} is a mixture of experts already: choose the dense model it was made from"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointError(
            f"{folder}: model_type {kind!r} is no decoder that transformers knows: choose a dense "
            "causal language model, such as Llama, Mistral, Qwen, Gemma or Phi"
        )
    return folder


@quietly()
def load_dense(
    path_or_name: str | PathLike[str],
    *,
    dtype: str | torch.dtype = "auto",
    **kwargs: Any,
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a dense decoder with its tokenizer.

    That of a Llama that can be published is read as the released code reads it, so that the ids
    are the same there.

    Args:
        path_or_name: "bundled", a folder, or a name on a model hub.
        dtype: By default the one it is stored in.
        **kwargs: For `from_pretrained`, such as `device_map`.

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        CheckpointError: There is none, it is no dense decoder, or it is damaged.
    """
    folder = dense_folder(path_or_name)
    model = from_folder(folder, dtype=dtype, **kwargs)
    return model, _tokenizer(folder, model.config)


def bundled_tokenizer() -> Tokenizer:
    """That of the embedded default, with the reflection tokens.

    Raises:
        WeightsNotInstalledError: The embedded default is not on this machine.
        CheckpointError: Its cache cannot be written.
    """
    folder = bundled_base()
    tokenizer = _tokenizer(folder, AutoConfig.from_pretrained(folder))
    extend_tokenizer(tokenizer)
    return tokenizer


def _tokenizer(folder: Path, config: PreTrainedConfig) -> Tokenizer:
    return read_published_tokenizer(folder) if can_be_published(config) else read_tokenizer(folder)


def from_folder(folder: Path, **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained` that refuses what is damaged or incomplete.

    Raises:
        CheckpointError: A file is damaged, or a tensor is missing, has another shape or is not
            known.
    """
    for file in weight_files(folder):
        check_whole(file)
    with readable(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    model: PreTrainedModel = loaded[0]
    check_loaded(folder, model, loaded[1])
    return model


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    with readable(folder):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer
