"""What training minimises.

The cross-entropy is computed only where some row has a label: in the released layout that is about
a tenth of the positions, and the output head is the largest matrix of a small model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from openrag_core.training.encoding import IGNORED


def response_loss(
    model: nn.Module, inputs: Mapping[str, Tensor], *, router_logits: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Sum of the cross-entropy over all labels.

    Args:
        model: A causal language model, whatever is wrapped around it.
        inputs: As `Collate` makes them.
        router_logits: Whether to ask for those too.

    Returns:
        The sum, in nats; and the router logits of each layer, shape (batch * length, experts).
    """
    labels = inputs["labels"][:, 1:]
    kept = (labels != IGNORED).any(dim=0).nonzero().flatten()
    asked = {"output_router_logits": True} if router_logits else {}
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=kept,
        use_cache=False,
        **asked,
    )
    logits = output.logits.float().flatten(0, 1)
    loss = functional.cross_entropy(
        logits, labels[:, kept].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, output.router_logits if router_logits else ()


def balance_loss(router_logits: Sequence[Tensor], top_k: int, attention_mask: Tensor) -> Tensor:
    """How unevenly the tokens are spread over the experts.

    In each layer E * sum over e of f_e P_e, where f_e counts the choices of expert e per token and
    P_e is its mean probability; k where all are served alike. Of the layers the mean, since expert
    3 of one has nothing to do with expert 3 of another.

    Args:
        router_logits: Of each layer; shape (batch * length, E).
        top_k: Experts that serve a token.
        attention_mask: Padding is not counted; shape (batch, length).

    Source: Fedus et al., Switch Transformers (arXiv:2101.03961), equations 4 to 6; computed by
    transformers. (The loss of the released Open-RAG code is the same for any routing.)
    """
    layers: list[Any] = [
        load_balancing_loss_func((logits,), logits.shape[-1], top_k, attention_mask)
        for logits in router_logits
    ]
    return torch.stack(layers).mean()
