"""An encoder's transformer, compiled by OpenVINO for this CPU (extra: fast)."""

from __future__ import annotations

import warnings
from typing import Any

import openvino as ov
import torch
from openvino import properties
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from openrag_core.compute import choose_dtype


def compile_encoder(model: SentenceTransformer) -> None:
    """Let OpenVINO run the transformer inside a sentence-transformers model, for any shapes.

    Products are taken in bfloat16 where the chip has it natively, in float32 elsewhere.

    Args:
        model: On the CPU, in float32; changed in place.
    """
    transformer: Any = model[0]
    inside: nn.Module = transformer.model.eval()
    names = list(model.tokenizer.model_input_names)
    example = {name: torch.ones((2, 8), dtype=torch.long) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing takes for constant: it is
        traced = ov.convert_model(_Hidden(inside, names), example_input=tuple(example.values()))
    low = choose_dtype(None, torch.device("cpu")) == torch.bfloat16
    precision = ov.Type.bf16 if low else ov.Type.f32
    compiled = ov.Core().compile_model(
        traced,
        "CPU",
        {
            properties.hint.inference_precision: precision,
            properties.inference_num_threads: torch.get_num_threads(),
        },
    )
    transformer.model = _Compiled(inside, compiled, names)


class _Hidden(nn.Module):
    """A transformer as tracing wants it: tensors in, one tensor out."""

    def __init__(self, inside: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.inside, self.names = inside, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """The last hidden states."""
        named = dict(zip(self.names, tensors, strict=True))
        hidden: Tensor = self.inside(**named).last_hidden_state
        return hidden


class _Compiled(nn.Module):
    """What takes the transformer's place."""

    def __init__(self, inside: nn.Module, compiled: ov.CompiledModel, names: list[str]) -> None:
        super().__init__()
        self.config = inside.config
        self._compiled, self._names = compiled, names

    def forward(self, **inputs: Tensor) -> BaseModelOutput:
        """As the transformer's own."""
        hidden = self._compiled([inputs[name].numpy() for name in self._names])[0]
        return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden.copy()))
