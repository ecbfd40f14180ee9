"""The published layout of Open-RAG checkpoints, read without remote code.

Such a folder calls itself `model_type: llama`; loaded as that, it would silently lose every
router and expert. It is known by its extra settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig

from openrag_core.errors import CheckpointError
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.modeling import OpenRAGForCausalLM

_OURS = {"num_experts": "num_experts", "topk": "num_experts_per_tok", "adapter_dim": "adapter_dim"}
_OURS |= {"moe_scaling": "scaling"}
_DROPPED = {"architectures", "auto_map", "moe_dtype", "output_router_logits", "model_type"}
_TELLING = {"topk", "moe_scaling", "adapter_dim"}  # of which other models have none
_EXPERT = re.compile(r"(.*\.mlp\.)moe_adapter\.experts\.expert_(\d+)\.adapter_(down|up)\.weight")


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of a published Open-RAG checkpoint."""
    return config.get("model_type") != OpenRAGConfig.model_type and bool(_TELLING & config.keys())


def load_published(folder: Path, config: Mapping[str, Any], **kwargs: Any) -> OpenRAGForCausalLM:
    """Load a published checkpoint.

    Args:
        folder: Holds safetensors, or pickles, which are read weights-only.
        config: Content of its config.json.
        **kwargs: For `from_pretrained`, such as `dtype`.

    Raises:
        CheckpointError: The base is no Llama, a setting is missing, a file is damaged, or a
            tensor is missing, has another shape or is not known.
    """
    file = folder / "config.json"
    if config.get("model_type") != "llama":
        raise CheckpointError(
            f"{file}: a published Open-RAG checkpoint has model_type 'llama', "
            f"this one {config.get('model_type')!r}"
        )
    if absent := sorted(_OURS.keys() - config.keys()):
        raise CheckpointError(
            f"{file}: a published Open-RAG checkpoint, but it lacks {', '.join(absent)}"
        )
    base = {k: v for k, v in config.items() if k not in _OURS.keys() | _DROPPED}
    ours = OpenRAGConfig(
        base_config=AutoConfig.for_model("llama", **base),
        reflection_trained=True,
        **{name: config[key] for key, name in _OURS.items()},
    )
    loaded: Any = OpenRAGForCausalLM.from_pretrained(
        None,
        config=ours,
        state_dict=_converted(folder),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, with names
        **kwargs,
    )
    model: OpenRAGForCausalLM = loaded[0]
    check_loaded(folder, loaded[1])
    return model


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


def _converted(folder: Path) -> dict[str, Tensor]:
    """Every tensor under its name in `OpenRAGForCausalLM`."""
    converted: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in _tensors(folder):
        if match := _EXPERT.fullmatch(name):
            layer, number, matrix = match.groups()
            stack = experts.setdefault(f"base.{layer}experts.{matrix}", {})
            stack[int(number)] = tensor if matrix == "down" else tensor.T
        elif ".mlp.moe_adapter." in name:
            converted[f"base.{name.replace('.moe_adapter.', '.')}"] = tensor
        elif not name.endswith("rotary_emb.inv_freq"):  # computed, yet stored by old releases
            converted[f"base.{name.replace('.mlp.', '.mlp.dense.')}"] = tensor
    for name, stack in experts.items():
        converted[name] = torch.stack([stack[number] for number in sorted(stack)])
    return converted


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in _files(folder):
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


def _files(folder: Path) -> list[Path]:
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
        if (single := folder / f"{stem}.{suffix}").is_file():
            return [single]
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin in it")
