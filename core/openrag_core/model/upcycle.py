"""Dense causal language model -> mixture of experts that computes the same function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.layer import Experts, OpenRAGMLP
from openrag_core.model.modeling import OpenRAGForCausalLM, add_experts
from openrag_core.reflection import TOKENS

PAD = "<pad>"
_QUANTIZED = ("hf_quantizer", "is_loaded_in_4bit", "is_quantized", "quantization_method")


def upcycle(
    model: PreTrainedModel,
    *,
    num_experts: int = 8,
    top_k: int = 2,
    adapter_dim: int = 512,
    scaling: float = 0.25,
) -> OpenRAGForCausalLM:
    """Make a sparse mixture of experts out of a dense model; their logits are equal.

    The experts' last matrices start at zero. The dense model's tensors are shared, not copied:
    it is part of the result afterwards.

    Args:
        model: A dense causal language model.
        num_experts: Experts per layer.
        top_k: Experts that serve a token, at most `num_experts`.
        adapter_dim: Width of an expert.
        scaling: Factor on the experts' sum.

    Raises:
        ConfigError: A number is outside its range.
        CheckpointError: The model has no feed-forward blocks to extend.
    """
    config = OpenRAGConfig(
        base_config=model.config,
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        adapter_dim=adapter_dim,
        scaling=scaling,
    )
    add_experts(model, config)
    with torch.device("meta"):  # a shell: its base is replaced at once
        upcycled = OpenRAGForCausalLM(config)
    upcycled.base = model
    for module in upcycled.modules():
        if isinstance(module, Experts | OpenRAGMLP):
            upcycled._init_weights(module)
    upcycled.generation_config = model.generation_config
    for name in _QUANTIZED:  # of the outermost model peft and transformers ask it
        if hasattr(model, name):
            setattr(upcycled, name, getattr(model, name))
    upcycled.eval()
    return upcycled


def add_reflection_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the fifteen reflection tokens, and a pad token where there is none, in place.

    The embedding of a new token starts as the mean of the embeddings of the pieces that its name
    had been tokenised into.

    Args:
        model: Its embeddings grow by the number of new tokens.
        tokenizer: Of that model.
    """
    pieces = extend_tokenizer(tokenizer)
    rows = max(len(tokenizer), embedding_weights(model)[0].shape[0])
    model.resize_token_embeddings(rows, mean_resizing=False)
    vocabulary = tokenizer.get_added_vocab()
    with torch.no_grad():
        for weight in set(embedding_weights(model)):  # one, where the output head is tied
            for token, ids in pieces.items():
                if ids:  # some tokenizers drop what they do not know
                    weight[vocabulary[token]] = weight[ids].mean(dim=0)


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Add the reflection tokens, and a pad token where there is none, to a tokenizer alone.

    Returns:
        The tokens that are new, each with the ids that its name had been tokenised into.
    """
    pieces: dict[str, list[int]] = {
        token: tokenizer(token, add_special_tokens=False)["input_ids"]
        for token in TOKENS
        if token not in tokenizer.get_added_vocab()
    }
    if pieces:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(pieces)}, replace_extra_special_tokens=False
        )
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return pieces


def embedding_weights(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Of the token embedding and of the output head; one and the same where they are tied."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    return embedding.weight, head.weight
