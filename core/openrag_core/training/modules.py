"""What is trained: LoRA in the dense blocks, routers and experts in full, new embedding rows."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core.errors import ConfigError
from openrag_core.model.checkpoints.adapter import EXPERTS
from openrag_core.model.modeling import lora_targets
from openrag_core.model.upcycle import embedding_weights
from openrag_core.prompts import token_id
from openrag_core.reflection import TOKENS
from openrag_core.training.recipe import LoRA
from openrag_core.weights import quietly


@quietly()
def make_trainable(model: PreTrainedModel, tokenizer: Tokenizer, lora: LoRA) -> PeftModel:
    """Freeze a model but for what training changes, which is kept in float32.

    Args:
        model: A mixture or a dense model, its embeddings resized for the reflection tokens.
        tokenizer: Of that model, with the reflection tokens.
        lora: How the dense weights are adapted.

    Returns:
        The model with peft around it.

    Raises:
        ConfigError: A target is no module of the model.
    """
    model.requires_grad_(False)
    names = lora_targets(model)
    if unknown := set(lora.targets or ()) - set(names):
        raise ConfigError(
            f"lora.targets: the model has no {', '.join(sorted(unknown))}; "
            f"it has {', '.join(names)}"
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=lora.targets or names,
        trainable_token_indices=_token_rows(model, tokenizer),
        task_type="CAUSAL_LM",
    )
    adapted: Any = get_peft_model(model, config)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):  # autocast casts the weights; peft would the activations
            module.cast_input_dtype_enabled = False
    for name, parameter in adapted.named_parameters():
        if EXPERTS.fullmatch(name):
            parameter.requires_grad_(True)
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    whole: PeftModel = adapted
    return whole


def _token_rows(model: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """By module: the rows of the reflection tokens, in the output head too where it is its own."""
    ids = [token_id(tokenizer, token) for token in TOKENS]
    embedding, head = embedding_weights(model)
    wanted = {model.get_input_embeddings()}
    if head is not embedding:  # tied ones are kept together by peft
        wanted.add(model.get_output_embeddings())
    return {
        name.rpartition(".")[2]: ids for name, module in model.named_modules() if module in wanted
    }
