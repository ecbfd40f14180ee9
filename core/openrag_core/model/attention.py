"""Attention that decodes fast on a CPU, under a name that transformers knows.

torch's fused attention is made for many queries at a time; for the single one of a decoding step,
two small matrix products over the cached keys and values are faster on a CPU, and need no copy of
those that several heads share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_with_cpu_decoding"


def cpu_decoding_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T scaling) v, by plain products for a single query on a CPU, else fused.

    Args:
        module: Of the base model; its `num_key_value_groups` heads share keys and values.
        query: Shape (batch, heads, queries, width).
        key: Shape (batch, key heads, keys, width).
        value: The same shape; of a width of its own in some models.
        attention_mask: True where a query may look, or what is added to the scores; shape (batch,
            1 or heads, queries, keys), or None.
        scaling: By default 1 / sqrt(width).
        **kwargs: For the fused form, which is left what has a `position_bias`.

    Returns:
        Shape (batch, queries, heads, width), and None in place of the weights.
    """
    single = query.shape[2] == 1 and query.device.type == "cpu"
    if not single or kwargs.get("position_bias") is not None:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return fused
    batch, heads, _, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = grouped @ key.transpose(-1, -2) * (scaling or width**-0.5)
    if attention_mask is not None:
        mask = attention_mask.expand(batch, heads, 1, -1).reshape(scores.shape)
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        else:
            scores = scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).reshape(batch, 1, heads, -1), None


def use_cpu_decoding(model: PreTrainedModel) -> None:
    """Let a model that uses torch's fused attention decode fast on a CPU; others stay."""
    base = getattr(model, "base", model)
    if base.config._attn_implementation == "sdpa":
        base.set_attn_implementation(NAME)


AttentionInterface.register(NAME, cpu_decoding_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def has_full_attention(config: PreTrainedConfig) -> bool:
    """Whether a mask alone says what is seen: full attention, rotated positions.

    Others count places where these count positions, or hide it in settings of their own.

    Args:
        config: Of a decoder.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if not kinds else None
    rotated = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
    return window is None and kinds <= {"full_attention"} and bool(rotated)
