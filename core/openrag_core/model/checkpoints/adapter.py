"""Adapter-only checkpoints: all that was added to a dense model, without the model.

base.json             which base it belongs to: name or path, and fingerprint
config.json           of the whole model
adapter.safetensors   routers, experts, and the embedding rows that the base does not have
lora/                 where the base was adapted too: LoRA, as peft writes it
tokenizer files
"""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from openrag_core.errors import CheckpointError, WeightsNotInstalledError
from openrag_core.model.checkpoints.dense import dense_folder, from_folder
from openrag_core.model.checkpoints.files import read_json, readable
from openrag_core.model.checkpoints.lora import put_lora
from openrag_core.model.checkpoints.published import EMBEDDING, HEAD
from openrag_core.model.checkpoints.weight_files import (
    check_complete,
    check_known,
    read_file,
    weight_files,
)
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.modeling import OpenRAGForCausalLM
from openrag_core.model.upcycle import embedding_weights, upcycle
from openrag_core.weights import BUNDLED

BASE, WEIGHTS, LORA = "base.json", "adapter.safetensors", "lora"
_SAMPLE = 1024  # values of each tensor that a fingerprint looks at
EXPERTS = re.compile(r".*\.mlp\.(router\.weight|experts\.(down|up))")
_LAYER = re.compile(r"(layers\.\d+\.mlp)\.")
_PEFT = re.compile(r"\.(base_layer|original_module|token_adapter)\b")
_EMBEDDINGS = ("input_embeddings", "output_embeddings")


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint folder needs a base."""
    return (folder / BASE).is_file() or (folder / WEIGHTS).is_file()


def fingerprint(folder: Path) -> str:
    """What a dense checkpoint is known by, however its files are cut into shards.

    Args:
        folder: Of safetensors or weights-only pickles.

    Returns:
        SHA-256, in hexadecimal, of each tensor's name, dtype, shape and up to 1,024 evenly spaced
        values, in the order of the names.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    parts = {}
    for file in weight_files(folder):
        for name, tensor in read_file(file).items():
            step = max(1, -(-tensor.numel() // _SAMPLE))
            sample = tensor.flatten()[::step].contiguous().view(torch.uint8).numpy().tobytes()
            parts[name] = f"{tensor.dtype} {tuple(tensor.shape)}".encode() + sample
    if HEAD in parts and parts[HEAD] == parts.get(EMBEDDING):
        del parts[HEAD]  # tied, and written a second time by some
    return sha256(b"".join(name.encode() + parts[name] for name in sorted(parts))).hexdigest()


def save_adapter(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    base: str | PathLike[str],
) -> None:
    """Save what a mixture adds to its base.

    Args:
        model: An `OpenRAGForCausalLM`, as it is or with LoRA by peft around it.
        tokenizer: Of that model.
        folder: To write into. A base beside it is found again after both were moved together.
        base: The dense model that it was made from: "bundled", a folder, or a name on a hub.

    Raises:
        CheckpointError: The model is no mixture, or its dense weights are not those of the base,
            so that something would be lost.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(model, PeftModel) and set(model.peft_config) != {"default"}:
        raise CheckpointError(
            f"the model has the LoRA adapters {', '.join(model.peft_config)}: an adapter-only "
            'checkpoint holds one, named "default"'
        )
    if not isinstance(inner, OpenRAGForCausalLM):
        raise CheckpointError(f"{type(inner).__name__} has no experts to save: upcycle it first")
    where = dense_folder(base)
    added = _added(inner, from_folder(where, dtype=inner.dtype), where)
    save_file(added, folder / WEIGHTS, metadata={"format": "pt"})
    name = _name(base, folder)
    inner.config.dtype = inner.dtype  # not that of the base
    base_config: Any = inner.config.base_config
    base_config._name_or_path = name  # not where it lay on this machine
    inner.config.save_pretrained(folder)
    if inner.generation_config is not None:
        inner.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if isinstance(model, PeftModel):
        model.save_pretrained(
            str(folder / LORA), save_embedding_layers=False, selected_adapters=["default"]
        )
    belongs = {
        "name_or_path": name,
        "fingerprint": fingerprint(where),
        "lora": isinstance(model, PeftModel),
    }
    (folder / BASE).write_text(json.dumps(belongs, indent=2) + "\n", encoding="utf-8")


def load_adapter(
    folder: Path, *, base: str | PathLike[str] | None = None, **kwargs: Any
) -> OpenRAGForCausalLM:
    """Load a base and put on it what an adapter-only checkpoint holds.

    LoRA is merged into the dense weights, unless those are in 4 bits.

    Args:
        folder: Of the adapter-only checkpoint.
        base: Where the base is, if no longer where the checkpoint says.
        **kwargs: For `from_pretrained` of the base, such as `dtype`.

    Raises:
        CheckpointError: The base is missing or another one, a file is damaged, or a tensor is
            missing, has another shape or is not known.
    """
    where = find_base(folder, base)
    config = read_config(folder)
    if kwargs.get("dtype") == "auto" and config.dtype is not None:
        kwargs["dtype"] = config.dtype
    dense = from_folder(where, **kwargs)
    model = upcycle(
        dense,
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        adapter_dim=config.adapter_dim,
        scaling=config.scaling,
    )
    model.config.reflection_trained = config.reflection_trained
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.resize_token_embeddings(config.get_text_config().vocab_size, mean_resizing=False)
    put_added(folder / WEIGHTS, model)
    if read_json(folder / BASE)["lora"]:
        adapted: Any = put_lora(model, folder / LORA)
        four_bits = getattr(model, "is_loaded_in_4bit", False)  # merged, it would be rounded away
        model = adapted.get_base_model() if four_bits else adapted.merge_and_unload()
    return model


def _added(model: OpenRAGForCausalLM, base: PreTrainedModel, where: Path) -> dict[str, Tensor]:
    """Everything in the model that the base does not have."""
    state = {
        _PEFT.sub("", name): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and "trainable_tokens" not in name
    }
    added = {name: tensor for name, tensor in state.items() if EXPERTS.fullmatch(name)}
    embeddings = _embedding_names(base)
    for name, tensor in base.state_dict().items():
        same = f"base.{name}"  # of a vision tower, whose blocks stay as they are
        own = state.get(same if same in state else "base." + _LAYER.sub(r"\1.dense.", name))
        if own is None or own.shape[1:] != tensor.shape[1:]:
            raise CheckpointError(f"{where} is not the base of this model: {name} differs in shape")
        if name in embeddings:
            rows = _rows_that_differ(own, tensor.to(own.device))
            added[f"{embeddings[name]}.rows"] = rows
            added[f"{embeddings[name]}.values"] = own[rows]
        elif own.shape != tensor.shape or not torch.equal(own, tensor.to(own.device)):
            raise CheckpointError(
                f"{name} is not that of the base {where}, and an adapter-only checkpoint would "
                'lose it: save the whole model, in the layout "merged"'
            )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in added.items()}


def _embedding_names(base: PreTrainedModel) -> dict[str, str]:
    """Names of the base's embedding and output head (one, where they are tied) -> names here."""
    weights = embedding_weights(base)
    return {
        name: next(w for w, weight in zip(_EMBEDDINGS, weights, strict=True) if weight is tensor)
        for name, tensor in base.state_dict(keep_vars=True).items()
        if any(weight is tensor for weight in weights)
    }


def _rows_that_differ(own: Tensor, base: Tensor) -> Tensor:
    known = min(len(own), len(base))
    changed = (own[:known] != base[:known]).any(dim=-1).nonzero().flatten()
    return torch.cat([changed, torch.arange(known, len(own), device=changed.device)])


def _name(base: str | PathLike[str], folder: Path) -> str:
    path = Path(base)
    if base == BUNDLED or not path.is_dir():
        return str(base)
    beside = path.resolve().parent == folder.resolve().parent
    return os.path.relpath(path.resolve(), folder.resolve()) if beside else str(path.resolve())


def find_base(folder: Path, base: str | PathLike[str] | None) -> Path:
    """Folder of the dense model that an adapter-only checkpoint belongs to.

    Raises:
        CheckpointError: It is not to be had, or another one than the checkpoint was trained on.
    """
    belongs = read_json(folder / BASE)
    if missing := {"name_or_path", "fingerprint", "lora"} - belongs.keys():
        raise CheckpointError(f"{folder / BASE}: lacks {', '.join(sorted(missing))}")
    name = str(belongs["name_or_path"])
    beside = folder / name
    try:
        where = dense_folder(base or (beside if name != BUNDLED and beside.is_dir() else name))
    except WeightsNotInstalledError:  # says what to do
        raise
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} belongs to the base {name!r}, which is not to be had ({error}). If it is "
            "elsewhere, say where: load(..., base=FOLDER), or --base FOLDER"
        ) from error
    if (found := fingerprint(where)) != belongs["fingerprint"]:
        raise CheckpointError(
            f"{where} is not the base that {folder} was trained on (fingerprint {found[:12]}, "
            f"expected {str(belongs['fingerprint'])[:12]}): give the base {name!r}"
        )
    return where


def read_config(folder: Path) -> OpenRAGConfig:
    """The configuration of an adapter-only checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or of another kind of model.
    """
    with readable(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, OpenRAGConfig):
        raise CheckpointError(f"{folder / 'config.json'}: not of an Open-RAG model")
    return config


@torch.no_grad()
def put_added(file: Path, model: OpenRAGForCausalLM) -> None:
    """Copy routers, experts and embedding rows into a mixture.

    Args:
        file: The adapter.safetensors of an adapter-only checkpoint.
        model: Of the same sizes, its embeddings resized for the reflection tokens.

    Raises:
        CheckpointError: The file is damaged, or a tensor is missing, has another shape or is not
            known.
    """
    tensors = read_file(file)
    own = {name: p for name, p in model.named_parameters() if EXPERTS.fullmatch(name)}
    embeddings = dict(zip(_EMBEDDINGS, embedding_weights(model), strict=True))
    expected = {name: parameter.shape for name, parameter in own.items()}
    for name, weight in embeddings.items():
        if (rows := tensors.get(f"{name}.rows")) is not None:
            expected |= {
                f"{name}.rows": torch.Size([rows.numel()]),
                f"{name}.values": torch.Size([rows.numel(), weight.shape[1]]),
            }
    check_known(file, tensors, expected)
    check_complete(file, tensors, expected)
    for name, parameter in own.items():
        parameter.copy_(tensors[name])
    for name, weight in embeddings.items():
        if (rows := tensors.get(f"{name}.rows")) is not None:
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(weight):
                raise CheckpointError(f"{file}: {name}.rows must be in [0, {len(weight)})")
            weight[rows.to(weight.device)] = tensors[f"{name}.values"].to(weight)
