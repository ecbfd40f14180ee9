"""core/openrag_core/model/layer.py: the formula, token by token and expert by expert."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from openrag_core.model.layer import (
    OpenRAGMLP,
    dense,
    grouped,
    grouping_pays,
    record_router_logits,
)

HIDDEN, EXPERTS = 8, 4
NARROW, WIDE = 3, 1024


@pytest.fixture(params=[(k, width) for width in (NARROW, WIDE) for k in (1, 2, 4)])
def layer(request: pytest.FixtureRequest) -> OpenRAGMLP:
    return make_layer(*request.param)


def make_layer(top_k: int, width: int) -> OpenRAGMLP:
    torch.manual_seed(0)
    mlp = OpenRAGMLP(
        nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Tanh()),
        hidden_size=HIDDEN,
        num_experts=EXPERTS,
        top_k=top_k,
        adapter_dim=width,
        scaling=0.25,
    )
    nn.init.normal_(mlp.experts.down)
    nn.init.normal_(mlp.experts.up, std=width**-0.5)
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


@pytest.mark.parametrize(
    ("top_k", "width", "y", "pays"),
    [
        (1, WIDE, torch.ones(5, HIDDEN), True),
        (2, WIDE, torch.ones(5, HIDDEN, dtype=torch.bfloat16), True),
        (2, NARROW, torch.ones(5, HIDDEN), False),
        (4, WIDE, torch.ones(5, HIDDEN), False),
        (2, WIDE + 1, torch.ones(5, HIDDEN), False),
        (2, WIDE, torch.ones(5, HIDDEN + 1), False),
        (2, WIDE, torch.ones(5, HIDDEN, dtype=torch.float64), False),
        (2, WIDE, torch.ones(5, HIDDEN, device="meta"), False),
    ],
)
def test_wide_experts_are_grouped_where_that_is_possible(
    top_k: int, width: int, y: Tensor, pays: bool
) -> None:
    down = torch.zeros(EXPERTS, width, y.shape[-1], dtype=y.dtype, device=y.device)
    chosen = torch.arange(top_k, device=y.device).expand(5, top_k)
    weights = torch.full((5, top_k), 1 / top_k, dtype=y.dtype, device=y.device)
    assert grouping_pays(y, down, chosen) is pays
    if pays:
        assert grouped(y, down, down, chosen, weights).shape == y.shape


@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_grouped_experts_have_the_outputs_and_gradients_of_the_dense_pass(
    tokens: int, top_k: int
) -> None:
    torch.manual_seed(0)
    y, logits = torch.randn(tokens, HIDDEN), torch.randn(tokens, EXPERTS)
    logits[:, 2] = -10  # an expert that nobody chooses
    down, up = 0.3 * torch.randn(2, EXPERTS, 16, HIDDEN)
    leaves = [tensor.requires_grad_() for tensor in (y, logits, down, up)]
    best, chosen = logits.topk(top_k)
    results = []
    for compute in (dense, grouped):
        out = compute(y, down, up, chosen, best.softmax(dim=-1))
        loss = (out * torch.linspace(-1, 1, HIDDEN)).square().sum()
        results.append([out, *torch.autograd.grad(loss, leaves, retain_graph=True)])
    torch.testing.assert_close(results[1], results[0])
    assert not results[1][3][2].any()


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_layer_may_be_checkpointed_and_run_for_inference(width: int) -> None:
    layer = make_layer(2, width)
    x = torch.randn(2, 5, HIDDEN)
    plain = layer(x)
    again = checkpoint(layer, x, use_reentrant=False)
    leaves = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(again.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
    )
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("mixed", [True, False])
def test_bfloat16_by_itself_or_by_autocast(width: int, mixed: bool) -> None:
    layer = make_layer(2, width)
    x = torch.randn(2, 5, HIDDEN)
    expected = layer(x)
    if not mixed:
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_wide_experts_compile_in_float32() -> None:
    experts = make_layer(2, WIDE).experts
    given = torch.randn(5, HIDDEN), torch.tensor([[0, 3]] * 5), torch.full((5, 2), 0.5)
    compiled = torch.compile(experts, backend="eager")
    torch.testing.assert_close(compiled(*given), experts(*given))
