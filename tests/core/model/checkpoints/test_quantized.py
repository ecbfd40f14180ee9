"""Dense weights in 4 bits: bitsandbytes also computes them on a CPU."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from openrag_core import CheckpointError, ConfigError, MissingExtraError
from openrag_core.model import TransformersGenerator, load, lora_targets, save
from tests.core.model.checkpoints.test_adapter import make_mixture
from tests.core.model.tiny import SIZES
from tests.core.model.words import tokenizer

pytest.importorskip("bitsandbytes", reason="extra: quantized")
FIXTURES = Path(__file__).parents[3] / "fixtures"
IDS = torch.tensor([[5, 9, 17, 33]])


def likeness(one: Tensor, other: Tensor) -> float:
    one, other = (tensor.detach().float().flatten() for tensor in (one, other))
    return float(functional.cosine_similarity(one, other, dim=0))


def kinds(model: PreTrainedModel) -> tuple[str, str, torch.dtype]:
    layer = model.get_decoder().layers[0].mlp
    names = [type(module).__name__ for module in (layer.dense.down_proj, layer.router)]
    return names[0], names[1], layer.experts.up.dtype


def test_the_bundled_model_still_answers() -> None:
    model, tokenizer = load("bundled", load_in_4bit=True, dtype="bfloat16")
    assert kinds(model) == ("Linear4bit", "Linear", torch.bfloat16)
    assert model.get_memory_footprint() < 0.5 * load("bundled")[0].get_memory_footprint()
    draft = TransformersGenerator(model, tokenizer, max_new_tokens=12).draft(
        ["What is the capital of France?"]
    )
    assert "Paris" in draft[0].text


def test_a_published_checkpoint_keeps_its_experts(tmp_path: Path) -> None:
    exact = load(FIXTURES / "tiny-a", dtype="float32")[0]
    model, words = load(FIXTURES / "tiny-a", dtype="float32", load_in_4bit=True)
    assert kinds(model) == ("Linear4bit", "Linear", torch.float32)
    with pytest.raises(CheckpointError, match="no weights in 4 bits"):
        save(model, words, tmp_path / "out", layout="published")
    assert 0.95 < likeness(model(IDS).logits, exact(IDS).logits) < 1


def test_lora_stays_beside_the_rounded_weights(tmp_path: Path) -> None:
    base = tmp_path / "base"
    wide = SIZES | {"hidden_size": 64, "intermediate_size": 64}  # a block of 4-bit weights is 64
    AutoModelForCausalLM.from_config(LlamaConfig(**wide)).save_pretrained(base)
    tokenizer().save_pretrained(base)
    model, words = make_mixture(base)
    targets = lora_targets(model)
    adapted = get_peft_model(model, LoraConfig(target_modules=targets, init_lora_weights=False))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.3)
    save(adapted, words, tmp_path / "adapter", layout="adapter", base=base)
    exact = load(tmp_path / "adapter", dtype="float32")[0](IDS).logits
    rounded = load(tmp_path / "adapter", dtype="float32", load_in_4bit=True)[0]
    assert likeness(rounded(IDS).logits, exact) > 0.95
    without = load(base, dtype="float32")[0](IDS).logits
    assert likeness(without, exact) < 0.9


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrag_core._extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"openrag-moe\[quantized\]"):
        load("bundled", load_in_4bit=True)


def test_what_the_released_training_leaves_is_merged_first(tmp_path: Path) -> None:
    (tmp_path / "moe_model.bin").touch()
    with pytest.raises(ConfigError, match="convert it first"):
        load(tmp_path, load_in_4bit=True)
