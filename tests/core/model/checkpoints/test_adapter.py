"""model/checkpoints/adapter.py: what is added comes back, on the base it belongs to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import add_reflection_tokens, load, load_dense, lora_targets, save, upcycle
from openrag_core.model.checkpoints.adapter import fingerprint
from tests.core.model.tiny import assert_equal, dense, wake
from tests.core.model.words import tokenizer

IDS = torch.tensor([[5, 9, 17, 33, 65, 100]])
EXPERT = "base.model.layers.1.mlp.experts.up"


def make_base(folder: Path, family: str = "llama") -> Path:
    """A dense checkpoint with a tokenizer of few words."""
    dense(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def make_mixture(base: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Upcycled, with reflection tokens, and with experts that say something."""
    model, words = load_dense(base)
    mixture = upcycle(model, num_experts=4, adapter_dim=3)
    add_reflection_tokens(mixture, words)
    wake(mixture)
    return mixture, words


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter-only checkpoint that may be damaged."""
    save(*make_mixture(base), tmp_path / "adapter", layout="adapter", base=base)
    return tmp_path / "adapter"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma2", "phi3", "qwen3.5-linear"])
def test_it_comes_back_bit_for_bit(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = tmp_path / "base"
    model: Any = dense(family)
    model.to(dtype).save_pretrained(base)
    tokenizer().save_pretrained(base)
    model, words = make_mixture(base)
    save(model, words, tmp_path / "adapter", layout="adapter", base=base)
    again, its_words = load(tmp_path / "adapter", dtype="auto")
    assert again.dtype == dtype
    assert_equal(again, model)
    assert its_words.get_vocab() == words.get_vocab()
    assert not again.config.reflection_trained
    save(again, its_words, tmp_path / "merged")
    assert_equal(load(tmp_path / "merged", dtype="auto")[0], model)


def test_a_vocabulary_that_grows_comes_back(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    model, words = make_mixture(base)
    model.resize_token_embeddings(140, mean_resizing=False)
    save(model, words, tmp_path / "adapter", layout="adapter", base=base)
    rows = load_file(tmp_path / "adapter" / "adapter.safetensors")["input_embeddings.rows"]
    assert rows.tolist()[-12:] == list(range(128, 140))
    assert_equal(load(tmp_path / "adapter", dtype="float32")[0], model)


def test_it_holds_only_what_was_added(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter.safetensors")
    embeddings = {name for name in tensors if "embeddings" in name}
    assert len(embeddings) == 4
    assert all(".mlp.router." in n or ".mlp.experts." in n for n in tensors.keys() - embeddings)
    assert len(tensors["input_embeddings.rows"]) == 15


@pytest.mark.parametrize("family", ["llama", "llama-tied", "phi3", "phi"])
def test_lora_is_kept_by_peft_and_merged_when_loaded(family: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    model, words = make_mixture(base)
    rows = sorted(words.get_added_vocab().values())
    settings = LoraConfig(
        r=2,
        target_modules=lora_targets(model),
        trainable_token_indices={"embed_tokens": rows},
        init_lora_weights=False,  # nothing would be added at first
    )
    adapted = get_peft_model(model, settings)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                weight.add_(0.1)
    expected = adapted.eval()(IDS).logits
    assert isinstance(adapted, PeftModel)
    save(adapted, words, tmp_path / "adapter", layout="adapter", base=base)
    again, _ = load(tmp_path / "adapter", dtype="float32")
    torch.testing.assert_close(again(IDS).logits, expected)
    assert_equal(again, adapted.merge_and_unload())
    assert_equal(load(tmp_path / "adapter", dtype="float32")[0], again)


@pytest.fixture
def with_lora(base: Path, tmp_path: Path) -> Path:
    model, words = make_mixture(base)
    settings = LoraConfig(target_modules=lora_targets(model), init_lora_weights=False)
    adapted = get_peft_model(model, settings)
    assert isinstance(adapted, PeftModel)
    save(adapted, words, tmp_path / "adapter", layout="adapter", base=base)
    return tmp_path / "adapter"


def test_lora_is_not_lost_silently(with_lora: Path) -> None:
    file = with_lora / "lora" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, file)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: lacks .*lora_B"):
        load(with_lora)
    save_file(tensors | {"strange": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="strange of shape"):
        load(with_lora)
    shutil.rmtree(file.parent)
    with pytest.raises(CheckpointError, match=r"lora/adapter_config\.json: missing"):
        load(with_lora)


def test_lora_under_another_name_is_refused(base: Path, tmp_path: Path) -> None:
    model, words = make_mixture(base)
    settings = LoraConfig(target_modules=lora_targets(model))
    adapted = get_peft_model(model, settings, adapter_name="rag")
    assert isinstance(adapted, PeftModel)
    with pytest.raises(CheckpointError, match=r'LoRA adapters rag: .*named "default"'):
        save(adapted, words, tmp_path / "adapter", layout="adapter", base=base)


def test_a_mixture_may_have_other_numbers_than_its_base(tmp_path: Path) -> None:
    base: Any = dense()
    base.bfloat16().save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    model, words = load_dense(tmp_path / "base", dtype="float32")
    mixture = upcycle(model, num_experts=4, adapter_dim=3)
    wake(mixture)
    add_reflection_tokens(mixture, words)
    mixture.generation_config.eos_token_id = [2, 7]
    save(mixture, words, tmp_path / "adapter", layout="adapter", base=tmp_path / "base")
    again = load(tmp_path / "adapter", dtype="auto")[0]
    assert_equal(again, mixture)
    assert again.generation_config.eos_token_id == [2, 7]


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", ["down_proj", "gate_proj", "up_proj", "k_proj", "o_proj", "q_proj", "v_proj"]),
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        ("phi", ["fc1", "fc2", "dense", "k_proj", "q_proj", "v_proj"]),
    ],
)
def test_lora_targets_are_named_per_family(family: str, names: list[str]) -> None:
    targets = lora_targets(upcycle(dense(family), num_experts=2, adapter_dim=3))
    assert [target.rpartition(".")[2] for target in targets] == names


def test_base_and_adapter_move_together(base: Path, adapter: Path, tmp_path: Path) -> None:
    expected = load(adapter, dtype="float32")[0]
    (tmp_path / "elsewhere").mkdir()
    for folder in (base, adapter):
        shutil.move(folder, tmp_path / "elsewhere" / folder.name)
    moved = tmp_path / "elsewhere" / "adapter"
    assert_equal(load(moved, dtype="float32")[0], expected)
    shutil.move(tmp_path / "elsewhere" / "base", tmp_path / "far")
    with pytest.raises(CheckpointError, match=r"base '.*base', which is not to be had.*--base"):
        load(moved)
    assert_equal(load(moved, base=tmp_path / "far", dtype="float32")[0], expected)


def test_a_fingerprint_knows_a_model_and_not_its_files(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert fingerprint(tmp_path / "shards") == fingerprint(base)
    (tmp_path / "pickle").mkdir()
    tensors = load_file(base / "model.safetensors")
    torch.save(tensors, tmp_path / "pickle" / "pytorch_model.bin")
    assert fingerprint(tmp_path / "pickle") == fingerprint(base)
    tied = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    (tmp_path / "twice").mkdir()
    save_file(tied, tmp_path / "twice" / "model.safetensors")
    del tied["lm_head.weight"]
    (tmp_path / "once").mkdir()
    save_file(tied, tmp_path / "once" / "model.safetensors")
    assert fingerprint(tmp_path / "twice") == fingerprint(tmp_path / "once")
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    assert fingerprint(tmp_path / "other") != fingerprint(base)


def test_another_base_is_refused(base: Path, adapter: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(base)
    nn.init.normal_(other.model.norm.weight)
    other.save_pretrained(base)
    with pytest.raises(CheckpointError, match=r"is not the base that .*adapter was trained on"):
        load(adapter)


def test_dense_weights_that_changed_are_not_lost(base: Path, tmp_path: Path) -> None:
    model, words = make_mixture(base)
    with torch.no_grad():
        model.get_parameter("base.model.layers.1.mlp.dense.down_proj.weight")[3, 4] += 1
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down_proj\.weight is not that of"):
        save(model, words, tmp_path / "adapter", layout="adapter", base=base)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(EXPERT),
            r"adapter\.safetensors: lacks .*experts\.up of shape \(4, 3, 32\)",
        ),
        (lambda t: t.update(strange=torch.ones(2)), r"strange of shape \(2,\) belongs to no layer"),
        (
            lambda t: t.update({EXPERT: torch.ones(3, 3, 32)}),
            r"experts\.up has shape \(3, 3, 32\); expected \(4, 3, 32\)",
        ),
        (
            lambda t: t.pop("input_embeddings.values"),
            r"lacks input_embeddings\.values of shape \(15, 32\)",
        ),
        (
            lambda t: t.update({"output_embeddings.rows": torch.arange(120, 135)}),
            r"output_embeddings\.rows must be in \[0, 128\)",
        ),
    ],
)
def test_a_foreign_or_missing_tensor_is_named(
    adapter: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    tensors = load_file(adapter / "adapter.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load(adapter)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter.safetensors", "{", r"adapter\.safetensors: damaged"),
        ("base.json", "{", r"base\.json: cannot be read"),
        ("base.json", json.dumps({"name_or_path": "x", "lora": False}), "lacks fingerprint"),
        ("config.json", "{", r"config\.json: cannot be loaded"),
        ("config.json", json.dumps({"model_type": "llama"}), "not of an Open-RAG model"),
        ("tokenizer.json", "{}", "cannot be loaded"),
    ],
)
def test_a_damaged_file_is_named(adapter: Path, file: str, content: str, message: str) -> None:
    (adapter / file).parent.mkdir(exist_ok=True)
    (adapter / file).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load(adapter)


def test_a_lost_base_file_is_named(adapter: Path) -> None:
    (adapter / "base.json").unlink()
    with pytest.raises(CheckpointError, match=r"base\.json: missing"):
        load(adapter)


def test_others_may_read_what_is_saved(adapter: Path) -> None:
    mode = adapter.stat().st_mode & 0o666
    assert {file.stat().st_mode & 0o777 for file in adapter.iterdir()} == {mode}


def test_impossible_requests_are_refused(base: Path, tmp_path: Path) -> None:
    model, words = make_mixture(base)
    with pytest.raises(ConfigError, match="needs a base"):
        save(model, words, tmp_path / "x", layout="adapter")
    with pytest.raises(ConfigError, match="merged, adapter, published; got 'zip'"):
        save(model, words, tmp_path / "x", layout="zip")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="LlamaForCausalLM has no experts"):
        save(dense(), words, tmp_path / "x", layout="adapter", base=base)
    with pytest.raises(CheckpointError, match="is there already"):
        save(model, words, base)
    save(model, words, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="a mixture of experts already"):
        save(model, words, tmp_path / "x", layout="adapter", base=tmp_path / "merged")
    other = make_base(tmp_path / "other", "qwen3")
    with pytest.raises(CheckpointError, match=r"other is not the base of this model: .*norm"):
        save(model, words, tmp_path / "x", layout="adapter", base=other)
    with pytest.raises(ConfigError, match="takes no base"):
        load(tmp_path / "merged", base=base)
    with pytest.raises(CheckpointError, match="a mixture of experts already"):
        upcycle(model)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".x.*"))
