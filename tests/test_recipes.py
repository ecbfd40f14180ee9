"""recipes/: the scripts that the bundled model is made with."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from openrag_core import CheckpointError

RECIPES = Path(__file__).parents[1] / "recipes"
FILES = ("adapter.safetensors", "lora/adapter_model.safetensors")


@pytest.fixture(scope="module")
def average() -> ModuleType:
    spec = importlib.util.spec_from_file_location("average", RECIPES / "average.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkpoint(folder: Path, value: float, *, row: int = 49152, size: int = 4) -> Path:
    (folder / "lora").mkdir(parents=True)
    tensors = {"weight": torch.full((2, size), value, dtype=torch.bfloat16)}
    rows = {"input_embeddings.rows": torch.tensor([row])}
    save_file({**tensors, **rows}, folder / FILES[0])
    save_file(tensors, folder / FILES[1])
    (folder / "config.json").write_text(f'{{"of": {value}}}', encoding="utf-8")
    return folder


def test_every_tensor_is_the_mean_of_the_models(average: ModuleType, tmp_path: Path) -> None:
    models = [checkpoint(tmp_path / f"{value}", value) for value in (1.0, 2.0, 6.0)]
    average.main(models, tmp_path / "out")
    for name in FILES:
        weight = load_file(tmp_path / "out" / name)["weight"]
        assert weight.dtype is torch.bfloat16
        assert weight.eq(3).all()
    assert load_file(tmp_path / "out" / FILES[0])["input_embeddings.rows"].tolist() == [49152]
    assert (tmp_path / "out/config.json").read_text("utf-8") == '{"of": 6.0}'


@pytest.mark.parametrize("other", [{"size": 5}, {"row": 49153}])
def test_models_of_another_shape_are_refused(
    average: ModuleType, tmp_path: Path, other: dict[str, int]
) -> None:
    models = [checkpoint(tmp_path / "one", 1), checkpoint(tmp_path / "two", 2, **other)]
    with pytest.raises(SystemExit, match="not one mixture"):
        average.main(models, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mean_that_cannot_be_written_leaves_nothing(
    average: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a folder with the last model's weights would pass for the mean."""
    models = [checkpoint(tmp_path / "one", 1), checkpoint(tmp_path / "two", 2)]

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(average, "save_file", full)
    with pytest.raises(CheckpointError, match="no space left"):
        average.main(models, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
