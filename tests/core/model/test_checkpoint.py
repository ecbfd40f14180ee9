"""core/openrag_core/model/{checkpoint,published}.py: what can be loaded, and what is said else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, load
from tests.core.model.tiny import dense

FIXTURES = Path(__file__).parents[2] / "fixtures"
IDS = torch.tensor([[5, 9, 17, 33]])
EXPERT = "model.layers.1.mlp.moe_adapter.experts.expert_2.adapter_up.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published checkpoint that may be damaged."""
    return Path(shutil.copytree(FIXTURES / "tiny-b", tmp_path / "published"))


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


def test_our_own_format_comes_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load(folder, dtype="float32")
    model.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    again, _ = load(tmp_path / "ours", dtype="float32")
    assert isinstance(again, OpenRAGForCausalLM)
    assert again.config.reflection_trained
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_a_dense_model_loads_as_it_is(folder: Path, tmp_path: Path) -> None:
    dense().save_pretrained(tmp_path / "dense")
    load(folder)[1].save_pretrained(tmp_path / "dense")
    model, _ = load(tmp_path / "dense")
    assert type(model) is LlamaForCausalLM
    assert not hasattr(model.config, "reflection_trained")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(EXPERT), r"layers\.1\.mlp\.experts\.up of shape \(3, .* of \(4, "),
        (lambda t: t.pop("model.norm.weight"), r"1 missing tensors, such as .*norm\.weight"),
        (lambda t: t.update(strange=torch.ones(2)), "1 unexpected tensors, such as .*strange"),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(3, 3)}),
            r"lm_head\.weight of shape \(3, 3\) instead of \(456, 48\)",
        ),
    ],
)
def test_a_foreign_or_missing_tensor_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
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
    with pytest.raises(CheckpointError, match=r"unexpected tensors, such as .*moe_adapter"):
        load(folder)


def test_our_own_format_is_checked_as_well(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load(folder, dtype="float32")
    model.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    kept = load_file(tmp_path / "ours" / "model.safetensors")
    experts = [name for name in kept if ".experts." in name]
    for name in experts:
        del kept[name]
    save_file(kept, tmp_path / "ours" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{len(experts)} missing tensors, such as .*experts"):
        load(tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="SafetensorError"):
        load(tmp_path / "ours")


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot load it"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": "eight"}, "cannot load it"),
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


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


def test_a_name_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"no checkpoint 'nobody/nothing'.*'bundled'"):
        load("nobody/nothing")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "nothing")


def test_an_unknown_dtype_or_device_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="float32, float16, bfloat16; got 'int4'"):
        load(folder, dtype="int4")
    for device in ("quantum", "mps"):
        with pytest.raises(ConfigError, match=f"no device '{device}'"):
            load(folder, device=device)
