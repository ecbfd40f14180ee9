"""What the released training leaves: a LoRA for the base, and the experts in a file of their own.

    moe_model.bin                 routers and experts, as PEFT named them
    adapter_model/                LoRA of the base, with the embeddings of the added tokens
    tokenizer_config.json, ...    which id is which reflection token

Put together with the base, it is a published checkpoint. What neither file says (experts per
token, scaling) is given, or as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core.errors import CheckpointError
from openrag_core.model.checkpoints.lora import put_lora, read_lora_config
from openrag_core.model.checkpoints.published import (
    EMBEDDING,
    HEAD,
    check_base,
    from_published,
    published_shapes,
    read_published_tokenizer,
)
from openrag_core.model.checkpoints.weight_files import (
    check_complete,
    check_known,
    read_file,
    read_folder,
)
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.modeling import OpenRAGForCausalLM
from openrag_core.weights import checkpoint_folder

_EXPERTS = "moe_model.bin"
_ADAPTER = "adapter_model"
_PREFIX = "base_model.model."  # what PEFT calls the model inside it


def is_split(folder: Path) -> bool:
    """Whether a folder holds what the released training leaves."""
    return (folder / _EXPERTS).is_file()


def load_split(
    folder: str | PathLike[str],
    base: str | PathLike[str] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    top_k: int = 2,
    scaling: float = 0.25,
    **kwargs: Any,
) -> tuple[OpenRAGForCausalLM, Tokenizer]:
    """Load what the released training leaves, its LoRA merged into the base.

    Args:
        folder: Holds `moe_model.bin` and `adapter_model/`.
        base: Folder or name of the dense Llama; by default what the LoRA's configuration names.
        tokenizer: By default the one in the folder. It is never made up from the base's: in
            which order the training numbered the reflection tokens is written nowhere else.
        top_k: Experts that serve a token.
        scaling: Factor on the experts' sum.
        **kwargs: For `from_pretrained`, such as `dtype`, in which the LoRA is merged.

    Returns:
        The model, whose reflection tokens count as trained, and its tokenizer.

    Raises:
        CheckpointError: A file is absent, damaged, or does not fit the others.
        ConfigError: `top_k` exceeds the number of experts.
    """
    folder = Path(folder)
    lora = read_lora_config(folder / _ADAPTER)
    tokenizer = tokenizer or _tokenizer(folder)
    dense = _base(base or lora.base_model_name_or_path, folder, **kwargs)
    if grown := len(tokenizer) > dense.config.vocab_size:
        dense.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    experts = {k.removeprefix(_PREFIX): v for k, v in read_file(folder / _EXPERTS).items()}
    config = OpenRAGConfig(
        base_config=dense.config,
        num_experts=_rows(folder, experts, ".mlp.moe_adapter.router.weight"),
        num_experts_per_tok=top_k,
        adapter_dim=_rows(folder, experts, ".experts.expert_0.adapter_down.weight"),
        scaling=scaling,
        reflection_trained=True,
    )
    shapes = published_shapes(config)
    check_known(folder / _EXPERTS, experts, shapes)
    needed = {name: shape for name, shape in shapes.items() if ".moe_adapter." in name}
    check_complete(folder / _EXPERTS, experts, needed)
    adapted: Any = put_lora(
        dense,
        folder / _ADAPTER,
        embeddings=True,  # where the vocabulary grew, their rows are nowhere else
        optional=lambda names: () if grown else [name for name in names if ".lora_" not in name],
    )
    merged = adapted.merge_and_unload()
    return from_published(config, merged.state_dict() | experts, **kwargs), tokenizer


def _rows(folder: Path, experts: Mapping[str, Tensor], ending: str) -> int:
    for name, tensor in experts.items():
        if name.endswith(ending):
            return len(tensor)
    raise CheckpointError(
        f"{folder / _EXPERTS}: no tensor *{ending}: not what the released training writes"
    )


def _tokenizer(folder: Path) -> Tokenizer:
    for own in (folder, folder / _ADAPTER):
        if (own / "tokenizer_config.json").is_file():
            return read_published_tokenizer(own)
    raise CheckpointError(
        f"{folder}: no tokenizer_config.json, so that nobody knows which id is which reflection "
        "token: put the tokenizer's files there that the training saved, or give a tokenizer"
    )


def _base(name: str | PathLike[str] | None, folder: Path, **kwargs: Any) -> LlamaForCausalLM:
    """The dense model; its head is a tensor of its own, since LoRA moves the two apart."""
    if not name:
        raise CheckpointError(
            f"{folder / _ADAPTER / 'adapter_config.json'}: names no base_model_name_or_path: "
            "give the base"
        )
    own = checkpoint_folder(name, otherwise="the base explicitly")
    file = own / "config.json"
    try:
        config: Any = AutoConfig.from_pretrained(own)
    except Exception as error:  # a damaged file makes transformers raise anything
        raise CheckpointError(f"{file}: no configuration of a base ({error})") from error
    check_base(config, str(file))
    optional = {HEAD} if config.tie_word_embeddings else set()
    tensors = read_folder(own, _shapes(config), optional=optional)
    if config.tie_word_embeddings:
        config.tie_word_embeddings = False
        tensors[HEAD] = tensors[EMBEDDING].clone()
    loaded: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=tensors, **kwargs
    )
    return loaded


def _shapes(config: LlamaConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        shell = LlamaForCausalLM(config)
    return {name: tensor.shape for name, tensor in shell.state_dict().items()}
