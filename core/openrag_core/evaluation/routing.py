"""Which experts serve which tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openrag_core.errors import EvaluationError
from openrag_core.model.layer import record_router_logits
from openrag_core.model.modeling import OpenRAGForCausalLM

Usage = NDArray[np.float64]


@torch.inference_mode()
def expert_usage(
    model: OpenRAGForCausalLM, texts: Iterable[Sequence[tuple[str, Sequence[int]]]]
) -> dict[str, Usage]:
    """How often each expert of each layer is chosen, for each kind of tokens.

    Args:
        model: A mixture of experts, in evaluation mode.
        texts: Each a row of token ids in stretches, with the kind of each stretch, such as
            [("question", [...]), ("passage", [...]), ("answer", [...])].

    Returns:
        By kind, the experts' share of the choices; shape (layers, experts), rows that add up to 1.

    Raises:
        EvaluationError: The model has no experts, or there are no texts.
    """
    if not isinstance(model, OpenRAGForCausalLM):
        raise EvaluationError(f"{type(model).__name__} has no experts: give a mixture")
    config: Any = model.config
    counts: dict[str, Usage] = {}
    for stretches in texts:
        ids = [id_ for _, stretch in stretches for id_ in stretch]
        with record_router_logits() as recorded:
            model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1)
        chosen = torch.stack(
            [logits.topk(config.num_experts_per_tok).indices for logits in recorded]
        )
        start = 0
        for kind, stretch in stretches:
            own = chosen[:, start : start + len(stretch)].flatten(1)
            start += len(stretch)
            table = counts.setdefault(kind, np.zeros((len(recorded), config.num_experts)))
            for layer, experts in enumerate(own.cpu()):
                table[layer] += np.bincount(experts.numpy(), minlength=config.num_experts)
    if not counts:
        raise EvaluationError("no texts to look at: give at least one")
    return {kind: table / table.sum(axis=1, keepdims=True) for kind, table in counts.items()}


def balance(usage: Mapping[str, Usage]) -> dict[str, float]:
    """By kind, the mean over the layers of the choices' entropy, as a share of the most there is.

    1 where all experts are chosen alike, 0 where always the same one is.
    """
    shares = {}
    for kind, table in usage.items():
        logs = np.log(table, where=table > 0, out=np.zeros_like(table))
        entropy = -(table * logs).sum(axis=1) / np.log(table.shape[1])
        shares[kind] = float(entropy.mean())
    return shares
