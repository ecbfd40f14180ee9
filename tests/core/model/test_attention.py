"""core/openrag_core/model/attention.py: the same numbers as torch's fused attention."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DogeConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from openrag_core.model import upcycle
from openrag_core.model.attention import NAME, cpu_decoding_attention, use_cpu_decoding
from openrag_core.model.decoding import GreedyDecoder, Prompt
from tests.core.model.tiny import FAMILIES, SIZES, dense, wake

IDS = [[5, 9, 17], [7, 3, 90, 12, 44, 20, 8], [33], [60, 61, 62, 63, 64]]
PROMPTS = [Prompt(row, 9) for row in IDS]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("queries", [1, 4])
def test_it_equals_the_formula(queries: int, scaling: float | None, masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8) for heads, n in ((6, queries), (2, 5), (2, 5)))
    mask = torch.rand(2, 1, queries, 5) > 0.4
    mask[..., 0] = True
    module = nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    module.is_causal = False  # type: ignore[assignment]
    got, weights = cpu_decoding_attention(
        module, query, key, value, mask if masked else None, scaling=scaling
    )
    spread = [tensor.repeat_interleave(3, dim=1) for tensor in (key, value)]
    scores = query @ spread[0].transpose(-1, -2) * (scaling or 8**-0.5)
    if masked:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = (scores.softmax(dim=-1) @ spread[1]).transpose(1, 2)
    torch.testing.assert_close(got, expected)
    assert weights is None


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("heads", [1, 6])
def test_any_mask_does_what_it_does_in_the_fused_form(heads: int, additive: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, n, m, 8) for n, m in ((6, 1), (2, 5), (2, 5)))
    mask = torch.randn(2, heads, 1, 5)
    if not additive:
        mask = mask > -0.5
    module = nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, is_causal=False)
    got, _ = cpu_decoding_attention(module, query, key, value, mask)
    torch.testing.assert_close(got, expected)
    bias = torch.randn(2, 6, 1, 5)
    fused, ours = (
        attention(module, query, key, value, mask, is_causal=False, position_bias=bias)[0]
        for attention in (sdpa_attention_forward, cpu_decoding_attention)
    )
    torch.testing.assert_close(ours, fused)


def test_a_model_that_learns_its_masks_writes_the_same() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(DogeConfig(**SIZES)).eval()
    expected = GreedyDecoder(model, pad_id=0)(PROMPTS)
    use_cpu_decoding(model)
    for got, plain in zip(GreedyDecoder(model, pad_id=0)(PROMPTS), expected, strict=True):
        assert got.ids == plain.ids
        assert got.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_write_the_same(family: str) -> None:
    model = upcycle(dense(family), num_experts=4, adapter_dim=3)
    wake(model)
    before = model.base.config._attn_implementation
    expected = GreedyDecoder(model, pad_id=0)(PROMPTS)
    use_cpu_decoding(model)
    assert model.base.config._attn_implementation == (NAME if before == "sdpa" else before)
    for got, plain in zip(GreedyDecoder(model, pad_id=0)(PROMPTS), expected, strict=True):
        assert got.ids == plain.ids
        assert got.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


def test_it_is_used_by_what_is_loaded_and_not_saved() -> None:
    assert {dense(family).config._attn_implementation for family in FAMILIES} >= {"sdpa"}
    model = dense()
    use_cpu_decoding(model)
    assert model.config._attn_implementation == NAME
    assert NAME not in model.config.to_json_string()
