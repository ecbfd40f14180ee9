"""A dense feed-forward block with a router and adapter experts behind it.

    y   = MLP(x)                          the dense block, unchanged
    r   = W_router x                      one logit per expert
    w   = softmax over the k largest of r
    out = y + s * sum of w_e up_e(GELU(down_e(y)))

Source: Open-RAG (arXiv:2410.01782) after Parameter-Efficient Sparsity Crafting
(arXiv:2401.02731). The router reads x, the block's input; the experts read y, its output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional

_recorded: ContextVar[list[Tensor] | None] = ContextVar("router_logits", default=None)


@contextmanager
def record_router_logits() -> Iterator[list[Tensor]]:
    """Collect the router logits of every layer that runs inside, first layer first.

    Yields:
        One tensor per layer and forward pass; shape (batch * length, experts).
    """
    logits: list[Tensor] = []
    token = _recorded.set(logits)
    try:
        yield logits
    finally:
        _recorded.reset(token)


class Experts(nn.Module):
    """The adapter experts of one layer, as two tensors.

    Every expert is computed for every token, as two matrix products, and those that the router
    did not choose get weight zero: with narrow adapters this is cheaper than sorting the tokens.
    """

    def __init__(self, num_experts: int, hidden_size: int, adapter_dim: int) -> None:
        super().__init__()
        shape = (num_experts, adapter_dim, hidden_size)
        self.down = nn.Parameter(torch.empty(shape))
        self.up = nn.Parameter(torch.empty(shape))

    def reset_parameters(self) -> None:
        """Start as a function that is zero everywhere, so that the layer equals the dense block."""
        bound = 1 / math.sqrt(self.down.shape[-1])  # Kaiming-uniform with a = sqrt(5)
        nn.init.uniform_(self.down, -bound, bound)
        nn.init.zeros_(self.up)

    def forward(self, y: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the experts.

        Args:
            y: Output of the dense block; shape (tokens, hidden).
            weights: Of each expert, zero where it was not chosen; shape (tokens, experts).

        Returns:
            Shape (tokens, hidden).
        """
        hidden = functional.gelu(y @ self.down.flatten(0, 1).T)
        weighted: Tensor = hidden.view(-1, *self.down.shape[:2]) * weights.unsqueeze(-1)
        return weighted.flatten(-2) @ self.up.flatten(0, 1)


class OpenRAGMLP(nn.Module):
    """Takes the place of a decoder layer's `mlp`.

    Args:
        dense: The block that stood there; shape (..., hidden) -> (..., hidden).
        hidden_size: Width of the residual stream.
        num_experts: E.
        top_k: Experts that serve a token.
        adapter_dim: Width A of an expert.
        scaling: Factor s on the experts' sum.
    """

    def __init__(
        self,
        dense: nn.Module,
        *,
        hidden_size: int,
        num_experts: int,
        top_k: int,
        adapter_dim: int,
        scaling: float,
    ) -> None:
        super().__init__()
        self.dense = dense
        self.router = nn.Linear(hidden_size, num_experts, bias=False)
        self.experts = Experts(num_experts, hidden_size, adapter_dim)
        self.top_k = top_k
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """Apply the dense block and add what the chosen experts make of its output.

        Args:
            x: Shape (batch, length, hidden).

        Returns:
            The same shape.
        """
        y: Tensor = self.dense(x)
        logits = self.router(x).flatten(0, -2)
        if (recorded := _recorded.get()) is not None:
            recorded.append(logits)
        chosen, experts = logits.topk(self.top_k, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, experts, chosen.softmax(dim=-1))
        added: Tensor = self.experts(y.flatten(0, -2), weights)
        return y + self.scaling * added.view_as(y)
