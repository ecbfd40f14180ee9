"""core/openrag_core/model/layer.py: the formula, token by token and expert by expert."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openrag_core.model.layer import OpenRAGMLP, record_router_logits

HIDDEN, EXPERTS, WIDTH = 6, 4, 3


@pytest.fixture(params=[1, 2, 4])
def layer(request: pytest.FixtureRequest) -> OpenRAGMLP:
    torch.manual_seed(0)
    mlp = OpenRAGMLP(
        nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Tanh()),
        hidden_size=HIDDEN,
        num_experts=EXPERTS,
        top_k=request.param,
        adapter_dim=WIDTH,
        scaling=0.25,
    )
    nn.init.normal_(mlp.experts.down)
    nn.init.normal_(mlp.experts.up)
    return mlp


def by_the_book(layer: OpenRAGMLP, x: Tensor) -> Tensor:
    """The formula for one token, with loops."""
    y: Tensor = layer.dense(x)
    logits = layer.router(x)
    chosen = sorted(range(EXPERTS), key=lambda e: -logits[e].item())[: layer.top_k]
    weights = torch.stack([logits[e] for e in chosen]).softmax(dim=0)
    out = y
    for weight, e in zip(weights, chosen, strict=True):
        hidden = functional.gelu(layer.experts.down[e] @ y)
        out = out + 0.25 * weight * (hidden @ layer.experts.up[e])
    return out


def test_every_token_gets_what_the_formula_says(layer: OpenRAGMLP) -> None:
    x = torch.randn(2, 5, HIDDEN)
    expected = torch.stack([torch.stack([by_the_book(layer, t) for t in row]) for row in x])
    torch.testing.assert_close(layer(x), expected)


def test_experts_that_say_nothing_leave_the_dense_block(layer: OpenRAGMLP) -> None:
    layer.experts.reset_parameters()
    x = torch.randn(1, 5, HIDDEN)
    assert torch.equal(layer(x), layer.dense(x))
    assert layer.experts.down.abs().max() <= HIDDEN**-0.5


def test_router_logits_are_recorded_only_when_asked_for(layer: OpenRAGMLP) -> None:
    x = torch.randn(2, 5, HIDDEN)
    with record_router_logits() as outer:
        layer(x)
        with record_router_logits() as inner:
            layer(x)
    layer(x)
    assert len(outer) == len(inner) == 1
    torch.testing.assert_close(outer[0], layer.router(x).view(10, EXPERTS))
