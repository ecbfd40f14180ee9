"""model/checkpoints/loading.py: what can be loaded, and what is said else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, load, save
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.model.checkpoints.dense import dense_folder
from openrag_core.model.checkpoints.loading import base_of
from tests.core.model.tiny import assert_equal, dense


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


@pytest.fixture(params=["ours", "dense"])
def whole(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """A complete checkpoint in transformers' own layout, that may be damaged."""
    model, tokenizer = load(folder, dtype="float32")
    (model if request.param == "ours" else dense()).save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, last: t.pop(last), r"model\.safetensors: lacks {last} of shape \("),
        (
            lambda t, _: t.update(strange=torch.ones(2)),
            "model\\.safetensors: strange belongs to no",
        ),
        (
            lambda t, last: t.update({last: torch.ones(3, 3)}),
            r"model\.safetensors: {last} has shape \(3, 3\); expected \(",
        ),
    ],
)
def test_transformers_own_layout_is_checked_as_well(
    whole: Path, change: Callable[[dict[str, Tensor], str], Any], message: str
) -> None:
    file = whole / "model.safetensors"
    tensors = load_file(file)
    last = max(name for name in tensors if "layers.1" in name)
    change(tensors, last)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message.format(last=last.replace(".", "[.]"))):
        load(whole)


def test_a_truncated_shard_is_named(whole: Path) -> None:
    model = load(whole, dtype="float32")[0]
    (whole / "model.safetensors").unlink()
    model.save_pretrained(whole, max_shard_size="40KB")
    shard = sorted(whole.glob("*-of-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"{shard.name}: damaged"):
        load(whole)


def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load(folder)

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot be written .*No space left"):
        save(model, tokenizer, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_the_current_folder_can_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model, tokenizer = load(folder, dtype="auto")
    save(model, tokenizer, ".")
    assert_equal(load(tmp_path / "here", dtype="auto")[0], model)


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
    with pytest.raises(CheckpointError, match=r"no checkpoint 'nobody/nothing'.*, or bundled"):
        load("nobody/nothing")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint '.*nothing': there is no such folder"
    ):
        load(tmp_path / "nothing")


def test_the_folder_of_a_run_tells_where_its_model_is(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError, match=r"is .* a checkpoint\?$"):
        load(tmp_path)
    (tmp_path / "model" / "config.json").touch()
    with pytest.raises(CheckpointError, match=r"a checkpoint\?: its model is .*model$"):
        load(tmp_path)


def test_a_base_is_refused_by_what_has_its_own(folder: Path) -> None:
    with pytest.raises(ConfigError, match="bundled has its own base and takes no other, got '/no'"):
        load("bundled", base="/no")
    with pytest.raises(ConfigError, match="is a whole model and takes no base"):
        load(folder, base="/no")


def test_the_embedded_default_may_be_named_by_a_path() -> None:
    assert dense_folder(Path("bundled")) == base_of(Path("bundled")) == bundled_base()
    model, _ = load(Path("bundled"), dtype="bfloat16")
    assert model.config.reflection_trained


def test_an_unknown_dtype_or_device_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="float32, float16, bfloat16 or auto; got 'int4'"):
        load(folder, dtype="int4")
    for device in ("quantum", "mps"):
        with pytest.raises(ConfigError, match=f"no device '{device}'"):
            load(folder, device=device)
