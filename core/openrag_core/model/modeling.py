"""The Open-RAG model: any dense causal language model with experts in its feed-forward blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from openrag_core.errors import CheckpointError
from openrag_core.model.config import OpenRAGConfig
from openrag_core.model.layer import Experts, OpenRAGMLP, record_router_logits


@dataclass
class OpenRAGOutput(CausalLMOutputWithPast):
    """What a forward pass gives."""

    router_logits: tuple[Tensor, ...] | None = None
    """On request: one tensor per layer, shape (batch * length, experts)."""


class OpenRAGForCausalLM(PreTrainedModel, GenerationMixin):
    """A dense causal language model whose feed-forward blocks carry a mixture of experts.

    The base is built by transformers and keeps its own attention, norms, caches and output head;
    only the `mlp` of each decoder layer is replaced.
    """

    config: OpenRAGConfig
    config_class = OpenRAGConfig
    base_model_prefix = "base"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012  (as in transformers)

    def __init__(self, config: OpenRAGConfig) -> None:
        super().__init__(config)
        self.base = AutoModelForCausalLM.from_config(config.base_config)
        add_experts(self.base, config)
        self._no_split_modules = self.base._no_split_modules
        tied = self.base._tied_weights_keys or {}  # transformers finds these itself, peft does not
        self._tied_weights_keys = {f"base.{one}": f"base.{other}" for one, other in tied.items()}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Experts):
            module.reset_parameters()
        elif isinstance(module, OpenRAGMLP):
            nn.init.kaiming_uniform_(module.router.weight, a=5**0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The base's token embedding."""
        embeddings: nn.Module = self.base.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the base's token embedding."""
        self.base.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The base's output head."""
        head: nn.Module = self.base.get_output_embeddings()
        return head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the base's output head."""
        self.base.set_output_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers; some bases keep the size a second time, for their loss."""
        embeddings: nn.Embedding = super().resize_token_embeddings(*args, **kwargs)
        if hasattr(self.base, "vocab_size"):
            self.base.vocab_size = self.config.get_text_config().vocab_size
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        logits_to_keep: int | Tensor = 0,
        output_router_logits: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the base model; its arguments and outputs are passed through.

        Args:
            input_ids: Shape (batch, length).
            attention_mask: The same shape; 0 where there is padding.
            position_ids: The same shape.
            past_key_values: The cache.
            inputs_embeds: In place of `input_ids`; shape (batch, length, hidden).
            labels: What the loss is computed against; -100 where there is none.
            logits_to_keep: How many last positions to compute logits for; 0 for all.
            output_router_logits: Whether to return what the routers computed.
            **kwargs: For the base model.

        Returns:
            An `OpenRAGOutput`, or a tuple where `return_dict=False` was asked for.
        """
        kwargs |= {  # named above, since transformers looks for them
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "logits_to_keep": logits_to_keep,
        }
        output: CausalLMOutputWithPast | tuple[Any, ...]
        if not output_router_logits:
            output = self.base(**kwargs)
            return output
        with record_router_logits() as router_logits:
            output = self.base(**kwargs)
        if isinstance(output, tuple):
            return (*output, tuple(router_logits))
        return OpenRAGOutput(**output, router_logits=tuple(router_logits))


def decoder_layers(base: PreTrainedModel) -> list[nn.Module]:
    """The layers of a dense decoder, each with an attribute `mlp`.

    Raises:
        CheckpointError: The model has no such layers, or is a mixture of experts already.
    """
    layers = list(getattr(base.get_decoder(), "layers", ()))
    blocks = [getattr(layer, "mlp", None) for layer in layers]
    if not layers or not all(isinstance(block, nn.Module) for block in blocks):
        raise CheckpointError(
            f"{type(base).__name__} has no decoder layers with a dense `mlp`: "
            "choose a dense causal language model, such as Llama, Mistral, Qwen, Gemma or Phi"
        )
    if any(hasattr(block, "experts") for block in blocks):
        raise CheckpointError(
            f"{type(base).__name__} is a mixture of experts already: choose a dense model"
        )
    return layers


def add_experts(base: PreTrainedModel, config: OpenRAGConfig) -> None:
    """Put a router and experts behind every feed-forward block of a dense decoder, in place.

    Args:
        base: The dense decoder; what is added takes its dtype and, layer by layer, its device.
        config: Sizes of the experts.

    Raises:
        CheckpointError: The model has no layers to extend.
    """
    for layer in decoder_layers(base):
        dense: Any = layer.mlp
        layer.mlp = OpenRAGMLP(
            dense,
            hidden_size=config.get_text_config().hidden_size,
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            adapter_dim=config.adapter_dim,
            scaling=config.scaling,
        )
        for added in (layer.mlp.router, layer.mlp.experts):
            added.to(device=next(dense.parameters()).device, dtype=base.dtype)


def lora_targets(model: PreTrainedModel) -> list[str]:
    """Which linear modules LoRA adapts: those of attention and of the dense blocks.

    They are read off the model, since families name them differently: Phi-3, for instance, has one
    `qkv_proj` and one `gate_up_proj`.

    Args:
        model: An `OpenRAGForCausalLM`.

    Returns:
        Names within a decoder layer, such as "self_attn.q_proj" and "mlp.dense.down_proj", for
        `target_modules` of `peft.LoraConfig`.
    """
    layers: Any = model.get_decoder().layers
    names = {
        name
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and name != "mlp.router"
    }
    return sorted(names)


AutoConfig.register(OpenRAGConfig.model_type, OpenRAGConfig, exist_ok=True)
AutoModelForCausalLM.register(OpenRAGConfig, OpenRAGForCausalLM, exist_ok=True)
