"""core/openrag_core/model/checkpoint.py: what can be loaded, and what is said else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, load
from tests.core.model.tiny import dense


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
    with pytest.raises(CheckpointError, match="cannot be loaded"):
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
