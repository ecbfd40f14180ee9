"""Tiny random dense models of several families."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MiniCPM3Config,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from openrag_core.model.layer import Experts

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, head_dim=8),
    "phi": PhiConfig(**SIZES),
    "phi3": Phi3Config(**SIZES),
    "phi3-longrope": Phi3Config(
        **SIZES,
        max_position_embeddings=512,
        original_max_position_embeddings=90,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [3.0] * 4,
        },
    ),
    "minicpm3-latent": MiniCPM3Config(
        **SIZES | {"num_key_value_heads": 4},
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    ),
    "mistral-window": MistralConfig(**SIZES, sliding_window=5),
    "gemma2-window": Gemma2Config(**SIZES, head_dim=8, sliding_window=5),
    "gemma3-window": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "qwen3.5-linear": Qwen3_5TextConfig(
        **SIZES,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    ),
}


def dense(family: str = "llama") -> PreTrainedModel:
    """A dense model with random weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(deepcopy(FAMILIES[family]))
    model.eval()
    return model


def wake(model: PreTrainedModel) -> None:
    """Give the experts something to say, as training would."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, Experts):
                module.up.normal_(std=0.2)


def assert_equal(model: nn.Module, other: nn.Module) -> None:
    """Same tensors, bit for bit."""
    state, expected = model.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []
