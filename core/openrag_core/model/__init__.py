"""The mixture-of-experts generator, on torch and transformers (extra: model)."""

from openrag_core._extras import need

need("model", "torch", "transformers", "peft", "safetensors", "gguf", "platformdirs")

from openrag_core.model.chat import BaseChat, TransformersChat  # noqa: E402
from openrag_core.model.checkpoints.dense import bundled_tokenizer, load_dense  # noqa: E402
from openrag_core.model.checkpoints.loading import load  # noqa: E402
from openrag_core.model.checkpoints.published_split import load_split  # noqa: E402
from openrag_core.model.checkpoints.saving import save  # noqa: E402
from openrag_core.model.config import OpenRAGConfig  # noqa: E402
from openrag_core.model.generator import TransformersGenerator  # noqa: E402
from openrag_core.model.modeling import OpenRAGForCausalLM, lora_targets  # noqa: E402
from openrag_core.model.upcycle import add_reflection_tokens, upcycle  # noqa: E402

__all__ = [
    "BaseChat",
    "OpenRAGConfig",
    "OpenRAGForCausalLM",
    "TransformersChat",
    "TransformersGenerator",
    "add_reflection_tokens",
    "bundled_tokenizer",
    "load",
    "load_dense",
    "load_split",
    "lora_targets",
    "save",
    "upcycle",
]
