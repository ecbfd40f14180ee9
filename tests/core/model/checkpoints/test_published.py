"""model/checkpoints/published.py: the published layout, in and out, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, load, upcycle
from openrag_core.model.checkpoints.published import save_published
from tests.core.model.checkpoints.conftest import FIXTURES
from tests.core.model.tiny import SIZES, dense, wake

IDS = torch.tensor([[5, 9, 17, 33]])
EXPERT = "model.layers.1.mlp.moe_adapter.experts.expert_2.adapter_up.weight"


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_the_published_layout_is_never_plain_llama(folder: Path) -> None:
    model, _ = load(folder, dtype="float32")
    assert isinstance(model, OpenRAGForCausalLM)
    assert model.config.reflection_trained
    assert not model.training


def test_pickles_and_shards_are_read_alike(folder: Path) -> None:
    expected = load(folder, dtype="float32")[0](IDS).logits
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch.equal(load(folder, dtype="float32")[0](IDS).logits, expected)

    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, folder / shard)
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert torch.equal(load(folder, dtype="float32")[0](IDS).logits, expected)


def test_a_pickle_runs_no_code(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("code of the checkpoint was run",))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: damaged"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(EXPERT),
            r"lacks model\.layers\.1.*expert_2\.adapter_up.* shape \(48, ",
        ),
        (lambda t: t.pop("model.norm.weight"), r"lacks model\.norm\.weight of shape \(48,\)$"),
        (lambda t: t.update(strange=torch.ones(2)), r"strange of shape \(2,\) belongs to no layer"),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(3, 3)}),
            r"lm_head\.weight has shape \(3, 3\); expected \(456, 48\)",
        ),
    ],
)
def test_a_foreign_or_missing_tensor_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {message}"):
        load(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load(folder)


def test_a_damaged_index_of_shards_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"index\.json: not an index"):
        load(folder)
    index.write_text('{"weight_map": {"x": "model-1.safetensors"}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors: damaged"):
        load(folder)


@pytest.mark.parametrize("field", ["num_experts", "topk", "moe_scaling", "adapter_dim"])
def test_a_published_config_that_lacks_a_setting_is_not_plain_llama(
    folder: Path, field: str
) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[field]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"lacks {field}"):
        load(folder)


def test_experts_without_any_setting_are_not_lost_either(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for field in ("num_experts", "topk", "moe_scaling", "adapter_dim"):
        del config[field]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"moe_adapter.* belongs to no layer"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": "eight"}, "cannot be loaded"),
        ({"model_type": "mistral"}, "'mistral'"),
        ({"topk": 9}, r"\[1, 4\].*got 9"),
    ],
)
def test_an_impossible_config_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | change
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model[.]safetensors and no pytorch_model"):
        load(folder)


@pytest.mark.parametrize("name", ["tiny-a", "tiny-b"])
def test_what_the_released_code_wrote_is_written_again(name: str, tmp_path: Path) -> None:
    model, tokenizer = load(FIXTURES / name, dtype="float32")
    assert isinstance(model, OpenRAGForCausalLM)
    save_published(model, tokenizer, tmp_path / "ours")
    theirs, ours = (
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for folder in (FIXTURES / name, tmp_path / "ours")
    )
    absent = {key: value for key, value in theirs.items() if key not in ours}
    assert absent.keys() == {"auto_map", "transformers_version"}
    assert ours == {k: theirs[k] for k in theirs if k not in absent} | {"reflection_trained": True}
    written = load_file(tmp_path / "ours" / "model.safetensors")
    expected = load_file(FIXTURES / name / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reflection_trained", [True, False])
def test_a_model_comes_back_bit_for_bit(
    folder: Path, tmp_path: Path, family: str, dtype: torch.dtype, reflection_trained: bool
) -> None:
    model: Any = upcycle(dense(family), num_experts=4, top_k=3, adapter_dim=5, scaling=0.5)
    wake(model)
    model.to(dtype)
    model.config.reflection_trained = reflection_trained
    model.generation_config.eos_token_id = [2, 7]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    save_published(model, tokenizer, tmp_path / "ours")
    again, words = load(tmp_path / "ours", dtype=dtype)
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    for name, tensor in again.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, state[name])
    # In float32: products in bfloat16 depend on where in memory a tensor lies.
    torch.testing.assert_close(again.float()(IDS).logits, model.float()(IDS).logits)
    for setting in ("num_experts_per_tok", "scaling", "reflection_trained", "eos_token_id"):
        assert getattr(again.config, setting) == getattr(model.config, setting)
    assert again.generation_config is not None
    assert again.generation_config.eos_token_id == [2, 7]
    assert words.get_vocab() == tokenizer.get_vocab()
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tied == (family == "llama-tied")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_theta": 5e5}, r"rope_parameters is .*500000\.0.* only .*10000\.0"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters is .*linear"),
        ({"attention_bias": True}, "attention_bias is True.* only False"),
        ({"mlp_bias": True}, "mlp_bias is True.* only False"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'.* only 'silu'"),
        ({"head_dim": 16}, "head_dim is 16.* only 8"),
    ],
)
def test_a_llama_that_the_released_code_computes_otherwise_is_not_written(
    folder: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    model = upcycle(LlamaForCausalLM(LlamaConfig(**SIZES | settings)), adapter_dim=2)
    with pytest.raises(CheckpointError, match=message):
        save_published(model, AutoTokenizer.from_pretrained(folder), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma"])
def test_another_family_is_not_written(folder: Path, tmp_path: Path, family: str) -> None:
    model = upcycle(dense(family), adapter_dim=2)
    with pytest.raises(CheckpointError, match=f"model_type is '{family}'.* only 'llama'"):
        save_published(model, AutoTokenizer.from_pretrained(folder), tmp_path / "ours")


def test_the_tokenizer_is_what_its_file_says(folder: Path, tmp_path: Path) -> None:
    """As of Llama 2: transformers 5 would rebuild it, and number other pieces after a token."""
    file = folder / "tokenizer.json"
    backend = json.loads(file.read_text(encoding="utf-8"))
    backend["normalizer"] = {"type": "Prepend", "prepend": "Ġ"}
    file.write_text(json.dumps(backend), encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8")) | {
        "tokenizer_class": "LlamaTokenizer"
    }
    settings.write_text(json.dumps(config), encoding="utf-8")
    model, words = load(folder)
    assert json.loads(words.backend_tokenizer.to_str())["normalizer"] == backend["normalizer"]
    assert isinstance(model, OpenRAGForCausalLM)
    save_published(model, words, tmp_path / "ours")  # in fields that transformers 4.36.2 knows
    config = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert len(config["additional_special_tokens"]) == 15
    assert "extra_special_tokens" not in config
    written = json.loads((tmp_path / "ours" / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["normalizer"] == backend["normalizer"]
    assert all(isinstance(merge, str) for merge in written["model"]["merges"])
    again = load(tmp_path / "ours")[1]
    text = "a[Retrieval]b [Fully supported]  c"
    assert again(text)["input_ids"] == words(text)["input_ids"]


def test_a_tokenizer_that_the_released_code_cannot_express_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    model, words = load(folder)
    backend = words.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert isinstance(model, OpenRAGForCausalLM)
    with pytest.raises(CheckpointError, match=r"marks the beginning of a text \(first\)"):
        save_published(model, words, tmp_path / "ours")


def test_a_rotation_that_the_released_code_does_not_know_is_not_read_either(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_theta"] = 500_000.0
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: rope_parameters is .*500000"):
        load(folder)


@pytest.mark.parametrize("content", ['{"weight_map": {"a": 5}}', '{"weight_map": {"a": "../b"}}'])
def test_an_index_that_leads_elsewhere_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"index\.json: "):
        load(folder)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_pickle_is_named_whatever_is_wrong_with_it(folder: Path, seed: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    content, dice = bytearray(file.read_bytes()), Random(seed)
    for _ in range(6):
        content[dice.randrange(300)] = dice.randrange(256)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load(folder)
