"""The published layout of Open-RAG checkpoints, read and written without remote code.

Such a folder calls itself `model_type: llama`; loaded as that, it would silently lose every
router and expert. It is known by its extra settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import GENERATION_CONFIG_NAME

from openrag_core.errors import CheckpointError
from openrag_core.model.checkpoints.files import read_json, readable
from openrag_core.model.checkpoints.weight_files import read_folder
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.modeling import OpenRAGForCausalLM

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_INPUTS = ["input_ids", "attention_mask"]
_OURS = {"num_experts": "num_experts", "topk": "num_experts_per_tok", "adapter_dim": "adapter_dim"}
_OURS |= {"moe_scaling": "scaling"}
_DROPPED = {"architectures", "auto_map", "moe_dtype", "output_router_logits", "model_type"}
_DROPPED |= {"reflection_trained"}
_TELLING = {"topk", "moe_scaling", "adapter_dim"}  # of which other models have none
_OF_BASE = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)
_EXPERT = re.compile(r"(.*\.mlp\.)moe_adapter\.experts\.expert_(\d+)\.adapter_(down|up)\.weight")
_STACK = re.compile(r"(.*\.mlp\.)experts\.(down|up)")


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
        reflection_trained=config.get("reflection_trained", True),
        **{name: config[key] for key, name in _OURS.items()},
    )
    check_base(ours.get_text_config(), str(file))
    optional = {HEAD} if ours.tie_word_embeddings else set()
    tensors = read_folder(folder, published_shapes(ours), optional=optional)
    model = from_published(ours, tensors, **kwargs)
    if (folder / GENERATION_CONFIG_NAME).is_file():  # more tokens than the config's may end a text
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def save_published(model: OpenRAGForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a model in the published layout, for the released code (transformers 4.36.2).

    Tied embeddings stay tied and are written once: the released code honours the setting. Whether
    the reflection tokens are trained has no place in that layout; an extra setting says it, which
    the released code ignores. `auto_map` is left out, since it names Python files that are not
    ours to put there: load the folder with the released `LlamaForCausalLM`, or add those files
    and that setting. As plain Llama it would lose its experts.

    Args:
        model: On a Llama that the released code can compute.
        tokenizer: Of that model.
        folder: Is made where it is absent.

    Raises:
        CheckpointError: The released code would compute another function, or make other ids.
    """
    config = model.config
    base: Any = config.base_config
    check_base(base, "this model")
    numbers = str(model.dtype).removeprefix("torch.")
    settings = {name: getattr(base, name) for name in _OF_BASE}
    settings |= {key: getattr(config, name) for key, name in _OURS.items()}
    settings |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "moe_dtype": numbers,
        "output_router_logits": False,
        "pretraining_tp": 1,
        "reflection_trained": config.reflection_trained,
        "rope_scaling": None,
        "torch_dtype": numbers,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = published_tensors(model)
    if base.tie_word_embeddings:
        del tensors[HEAD]
    save_torch_state_dict(tensors, folder)
    text = json.dumps(settings, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    if model.generation_config is not None:
        # as it is: `save_pretrained` refuses the one that Llama 2 comes with
        model.generation_config.to_json_file(folder / GENERATION_CONFIG_NAME)
    _save_tokenizer(tokenizer, folder)


def read_published_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer as its file says, and as the released code took it.

    transformers 5 rebuilds that of a Llama otherwise: after a special token, "b" for "\u2581b".

    Raises:
        CheckpointError: It is missing or damaged.
    """
    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    with readable(folder):
        words: Tokenizer = kind.from_pretrained(folder, model_input_names=_INPUTS)
    return words


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files so that transformers 4.36.2 reads them as well as 5."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    file = folder / "tokenizer_config.json"
    settings = read_json(file)
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": _INPUTS}
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    file = folder / "tokenizer.json"
    backend = read_json(file)
    if (scheme := (backend["pre_tokenizer"] or {}).get("prepend_scheme")) is not None:
        raise CheckpointError(
            f"this tokenizer marks the beginning of a text ({scheme}) as tokenizers 0.15 cannot: "
            "take the one that the base's tokenizer.json says: PreTrainedTokenizerFast"
        )
    if merges := backend["model"].get("merges"):
        backend["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in merges]
    file.write_text(json.dumps(backend, ensure_ascii=False), encoding="utf-8")


def can_be_published(config: PreTrainedConfig) -> bool:
    """Whether the released code computes this base rightly."""
    try:
        check_base(config, "")
    except CheckpointError:
        return False
    return True


def check_base(config: PreTrainedConfig, where: str) -> None:
    """Refuse a base that the released code computes otherwise than transformers does.

    The released code knows one Llama: no biases, heads that share out the hidden size, and its
    own rotary embedding, which reads no `rope_theta`.

    Args:
        config: Of the base.
        where: It comes from, for the message.

    Raises:
        CheckpointError: A setting differs; the message names it.
    """
    allowed = {
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }
    if config.model_type == "llama":
        allowed["head_dim"] = config.hidden_size // config.num_attention_heads
    for setting, value in allowed.items():
        if (given := getattr(config, setting, None)) != value:
            raise CheckpointError(
                f"{where}: {setting} is {given!r}, and the released Open-RAG code "
                f"computes only {value!r}"
            )


def published_tensors(model: OpenRAGForCausalLM) -> dict[str, Tensor]:
    """Every tensor of a model under its name in the published layout.

    Returns:
        Those of the experts are copies, one down (A, hidden) and one up (hidden, A) for each.
    """
    published: dict[str, Tensor] = {}
    for name, tensor in model.base.state_dict().items():
        if match := _STACK.fullmatch(name):
            layer, matrix = match.groups()
            for number, own in enumerate(tensor):
                key = f"{layer}moe_adapter.experts.expert_{number}.adapter_{matrix}.weight"
                published[key] = own.clone() if matrix == "down" else own.T.contiguous()
        else:
            renamed = name.replace(".mlp.router.", ".mlp.moe_adapter.router.")
            published[renamed.replace(".mlp.dense.", ".mlp.")] = tensor
    return published


def published_shapes(config: OpenRAGConfig) -> dict[str, torch.Size]:
    """Shape of every tensor of the published layout."""
    with torch.device("meta"):
        shell = OpenRAGForCausalLM(config)
    return {name: tensor.shape for name, tensor in published_tensors(shell).items()}


def from_published(
    config: OpenRAGConfig, tensors: Mapping[str, Tensor], **kwargs: Any
) -> OpenRAGForCausalLM:
    """Build a model from the tensors of the published layout.

    Args:
        config: Of the model.
        tensors: Checked against `published_shapes`.
        **kwargs: For `from_pretrained`, such as `dtype`.
    """
    loaded: OpenRAGForCausalLM = OpenRAGForCausalLM.from_pretrained(
        None, config=config, state_dict=_converted(tensors), **kwargs
    )
    return loaded


def _converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor under its name in `OpenRAGForCausalLM`."""
    converted: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            layer, number, matrix = match.groups()
            stack = experts.setdefault(f"base.{layer}experts.{matrix}", {})
            stack[int(number)] = tensor if matrix == "down" else tensor.T
        elif ".mlp.moe_adapter." in name:
            converted[f"base.{name.replace('.moe_adapter.', '.')}"] = tensor
        else:
            converted[f"base.{name.replace('.mlp.', '.mlp.dense.')}"] = tensor
    for name, stack in experts.items():
        converted[name] = torch.stack([stack[number] for number in sorted(stack)])
    return converted
