"""The Open-RAG model: any dense causal language model with experts in its feed-forward blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
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

    def forward(
        self,
        *args: Any,
        logits_to_keep: int | Tensor = 0,
        output_router_logits: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the base model; its arguments and outputs are passed through.

        Args:
            *args: For the base model.
            logits_to_keep: How many last positions to compute logits for; 0 for all.
            output_router_logits: Whether to return what the routers computed.
            **kwargs: For the base model.

        Returns:
            An `OpenRAGOutput`, or a tuple where `return_dict=False` was asked for.
        """
        kwargs["logits_to_keep"] = logits_to_keep  # named above, since transformers looks for it
        output: CausalLMOutputWithPast | tuple[Any, ...]
        if not output_router_logits:
            output = self.base(*args, **kwargs)
            return output
        with record_router_logits() as router_logits:
            output = self.base(*args, **kwargs)
        if isinstance(output, tuple):
            return (*output, tuple(router_logits))
        return OpenRAGOutput(**output, router_logits=tuple(router_logits))


def add_experts(base: PreTrainedModel, config: OpenRAGConfig) -> None:
    """Put a router and experts behind every feed-forward block of a dense decoder, in place.

    Args:
        base: Its decoder layers have an attribute `mlp`.
        config: Sizes of the experts.

    Raises:
        CheckpointError: The model has no such layers.
    """
    layers = getattr(base.get_decoder(), "layers", ())
    if not layers or not all(
        isinstance(getattr(layer, "mlp", None), nn.Module) for layer in layers
    ):
        raise CheckpointError(
            f"{type(base).__name__} has no decoder layers with a dense `mlp`: "
            "choose a dense causal language model, such as Llama, Mistral, Qwen, Gemma or Phi"
        )
    for layer in layers:
        layer.mlp = OpenRAGMLP(
            layer.mlp,
            hidden_size=config.get_text_config().hidden_size,
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            adapter_dim=config.adapter_dim,
            scaling=config.scaling,
        )


AutoConfig.register(OpenRAGConfig.model_type, OpenRAGConfig, exist_ok=True)
AutoModelForCausalLM.register(OpenRAGConfig, OpenRAGForCausalLM, exist_ok=True)
