"""What training minimises.

The cross-entropy is computed only where some row has a label: in the released layout that is about
a tenth of the positions, and the output head is the largest matrix of a small model.

A paragraph that ends after any of its sentences is a paragraph too. So a row may close it several
times: the closing marks stand behind the row, each sees what was read until then and itself, and
nothing sees it. What the model would say next is what it would say of that much text alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from openrag_core.training.encoding import IGNORED, Encoded


class Losses(NamedTuple):
    """Of one batch."""

    response: Tensor
    """Sum of the cross-entropy over the labels of the responses, in nats."""
    relevance: dict[int, Tensor]
    """The same of the judgements beside them, by the reply that is right."""
    router_logits: tuple[Tensor, ...]
    """Of each layer, shape (batch * length, experts), where they were asked for."""


def batch_losses(model: nn.Module, inputs: Mapping[str, Tensor], *, router_logits: bool) -> Losses:
    """What one pass over a batch costs.

    Args:
        model: A causal language model, whatever is wrapped around it.
        inputs: As `Collate` makes them.
        router_logits: Whether to ask for those too.
    """
    labels = functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    judged = inputs.get("relevance", torch.full_like(labels, IGNORED))
    kept = ((labels != IGNORED) | (judged != IGNORED)).any(dim=0).nonzero().flatten()
    asked: dict[str, Any] = {"output_router_logits": True} if router_logits else {}
    if "position_ids" in inputs:
        asked["position_ids"] = inputs["position_ids"]
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=_visible(inputs),
        logits_to_keep=kept,
        use_cache=False,
        **asked,
    )
    logits = output.logits.float().flatten(0, 1)
    response = functional.cross_entropy(
        logits, labels[:, kept].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    replies = judged[:, kept].flatten()
    relevance = {
        int(reply): functional.cross_entropy(
            logits[replies == reply], replies[replies == reply], reduction="sum"
        )
        for reply in replies[replies != IGNORED].unique()
    }
    return Losses(response, relevance, output.router_logits if router_logits else ())


def reply_weights(rows: Sequence[Encoded]) -> dict[int, float]:
    """What a judgement counts, by the reply that is right.

    Divided by the number of rows, the weighted losses are the mean of each reply's own mean, over
    all rows and, in expectation, over any part of them, however a step is split.

    Args:
        rows: Those that are learned.
    """
    counts = Counter(reply for row in rows for _, reply in row.relevance)
    return {reply: len(rows) / (len(counts) * count) for reply, count in counts.items()}


def _visible(inputs: Mapping[str, Tensor]) -> Tensor:
    """The mask of padding, or where paragraphs are closed more than once, of every pair.

    A position says how many ids come before it: with itself, that is what it sees.
    """
    if "position_ids" not in inputs:
        return inputs["attention_mask"]
    before = inputs["position_ids"]
    places = torch.arange(before.shape[1], device=before.device)
    seen = (places < before.unsqueeze(-1)) | torch.eye(len(places), device=before.device).bool()
    kind = before.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else torch.get_default_dtype()
    hidden = torch.zeros(seen.shape, dtype=dtype, device=before.device)
    return hidden.masked_fill(~seen, torch.finfo(dtype).min).unsqueeze(1)


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
