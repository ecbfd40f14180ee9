"""Configuration of an Open-RAG model: any dense decoder's own, plus the experts."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from openrag_core.errors import ConfigError


class OpenRAGConfig(PreTrainedConfig):
    """Configuration of `OpenRAGForCausalLM`.

    Args:
        base_config: Configuration of the dense decoder, of any family that transformers knows.
        num_experts: Adapter experts per layer, E >= 1.
        num_experts_per_tok: Experts that serve a token, k in [1, E]. (Not `top_k`: that name
            belongs to sampling in transformers.)
        adapter_dim: Width A of an expert, >= 1.
        scaling: Factor s > 0 on the experts' sum; 0.25 in the released models.
        reflection_trained: Whether the model was trained to write reflection tokens. While it was
            not, their probabilities mean nothing and are never reported.

    Raises:
        ConfigError: A value is outside its range.
    """

    model_type = "openrag"
    sub_configs = {"base_config": AutoConfig}  # noqa: RUF012  (transformers' own convention)
    has_no_defaults_at_init = True

    def __init__(
        self,
        base_config: PreTrainedConfig | dict[str, Any] | None = None,
        num_experts: int = 8,
        num_experts_per_tok: int = 2,
        adapter_dim: int = 512,
        scaling: float = 0.25,
        reflection_trained: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(base_config, dict):
            base_config = AutoConfig.for_model(**base_config)
        self.base_config = base_config
        if num_experts < 1 or adapter_dim < 1:
            raise ConfigError(
                f"num_experts and adapter_dim must be at least 1; got {num_experts}, {adapter_dim}"
            )
        if not 1 <= num_experts_per_tok <= num_experts:
            raise ConfigError(
                f"top_k must be in [1, {num_experts}], the number of experts; "
                f"got {num_experts_per_tok}"
            )
        if not 0 < scaling < float("inf"):
            raise ConfigError(f"scaling must be a finite number above 0; got {scaling}")
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.adapter_dim = adapter_dim
        self.scaling = scaling
        self.reflection_trained = reflection_trained
        if base_config is not None:
            for name in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
                kwargs.setdefault(name, getattr(base_config, name, None))
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The decoder's configuration, where transformers looks up sizes, caches and windows."""
        if self.base_config is None:
            return self
        return self.base_config.get_text_config(*args, **kwargs)
