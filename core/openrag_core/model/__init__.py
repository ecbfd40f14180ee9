"""The mixture-of-experts generator, on torch and transformers (extra: model)."""

from openrag_core._extras import need

need("model", "torch", "transformers", "safetensors", "gguf", "peft", "platformdirs")

from openrag_core.model.checkpoint import load  # noqa: E402
from openrag_core.model.config import OpenRAGConfig  # noqa: E402
from openrag_core.model.generator import TransformersGenerator  # noqa: E402
from openrag_core.model.modeling import OpenRAGForCausalLM  # noqa: E402
from openrag_core.model.published import save_published  # noqa: E402
from openrag_core.model.published_split import load_split  # noqa: E402
from openrag_core.model.upcycle import add_reflection_tokens, upcycle  # noqa: E402

__all__ = [
    "OpenRAGConfig",
    "OpenRAGForCausalLM",
    "TransformersGenerator",
    "add_reflection_tokens",
    "load",
    "load_split",
    "save_published",
    "upcycle",
]
