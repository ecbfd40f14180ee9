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

SPARED_WIDTH = 1024
"""From this width of unchosen experts, per chosen one, grouping is faster (see `grouping_pays`)."""

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

    Narrow ones are computed for every token, wide ones only for the tokens that chose them; see
    `grouping_pays`.
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

    def forward(self, y: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the chosen experts.

        Args:
            y: Output of the dense block; shape (tokens, hidden).
            chosen: Numbers of the experts that serve a token; shape (tokens, k).
            weights: Theirs, in the same order; shape (tokens, k).

        Returns:
            Shape (tokens, hidden).
        """
        compute = grouped if grouping_pays(y, self.down, chosen) else dense
        return compute(y, self.down, self.up, chosen, weights)


def grouping_pays(y: Tensor, down: Tensor, chosen: Tensor) -> bool:
    """Whether `grouped` can compute these experts, and faster than `dense`.

    What grouping spares grows with the width of the experts that were not chosen; what it costs,
    with the rows it moves for those that were. benchmarks/experts.py finds where they meet on a
    CPU; on other devices nothing was measured, and the dense pass stays.

    Args:
        y: As in `Experts.forward`.
        down: Shape (experts, width, hidden).
        chosen: As in `Experts.forward`.
    """
    experts, width, hidden = down.shape
    k = chosen.shape[-1]
    return (
        width * (experts - k) >= SPARED_WIDTH * k
        and y.device.type == "cpu"
        and y.dtype != torch.float64
        and width % 8 == hidden % 8 == 0  # grouped_mm wants rows of whole 16 bytes
        and not torch.compiler.is_compiling()  # traced, grouped_mm takes bfloat16 alone
    )


def dense(y: Tensor, down: Tensor, up: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Every expert for every token, with weight zero where it was not chosen.

    Args:
        y: As in `Experts.forward`.
        down: Shape (experts, width, hidden).
        up: The same shape.
        chosen: As in `Experts.forward`.
        weights: As in `Experts.forward`.

    Returns:
        Shape (tokens, hidden).
    """
    spread = weights.new_zeros(len(y), len(down)).scatter(-1, chosen, weights)
    hidden = functional.gelu(y @ down.flatten(0, 1).T)
    weighted: Tensor = hidden.view(-1, *down.shape[:2]) * spread.unsqueeze(-1)
    return weighted.flatten(-2) @ up.flatten(0, 1)


def grouped(y: Tensor, down: Tensor, up: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same sum from the chosen experts alone, each for all of its tokens at once.

    Arguments and result are those of `dense`.
    """
    down, up, weights = (t.to(y.dtype) for t in (down, up, weights))  # as autocast would
    numbers, order = chosen.flatten().sort(stable=True)
    ends = torch.searchsorted(
        numbers, torch.arange(len(down), device=y.device), right=True, out_int32=True
    )
    rows = y.index_select(0, order // chosen.shape[-1])
    hidden = functional.gelu(functional.grouped_mm(rows, down.transpose(1, 2), offs=ends))
    out = functional.grouped_mm(hidden, up, offs=ends)
    # Rows back to their tokens, weighted and summed: in one step, for they are larger than y.
    places = order.argsort().view_as(chosen)
    return functional.embedding_bag(places, out, mode="sum", per_sample_weights=weights)


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
        best, chosen = logits.topk(self.top_k, dim=-1)
        added: Tensor = self.experts(y.flatten(0, -2), chosen, best.softmax(dim=-1))
        return y + self.scaling * added.view_as(y)
