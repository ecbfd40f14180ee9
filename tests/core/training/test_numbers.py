"""What is multiplied in, and what is kept: core/openrag_core/training/train.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openrag_core.model import load
from openrag_core.training import Mixture, train
from openrag_core.training.train import make_model
from tests.core.training.tiny import make_base, make_rows, recipe


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.mark.parametrize(
    ("wanted", "native", "dtype", "attention"),
    [
        (None, True, torch.bfloat16, "eager"),
        (None, False, torch.float32, "sdpa"),
        (True, False, torch.bfloat16, "eager"),
        (False, True, torch.float32, "sdpa"),
    ],
)
def test_numbers_are_those_that_the_device_multiplies_natively(
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool | None,
    native: bool,
    dtype: torch.dtype,
    attention: str,
) -> None:
    """And attention is the kind that is fast in them; see docs/log.md."""
    monkeypatch.setattr("openrag_core.compute._has_bf16", lambda _: native)
    base = make_base(tmp_path / "base")
    model, _ = make_model(recipe(base, rows, bf16=wanted), torch.device("cpu"))
    assert model.get_base_model().dtype == dtype
    assert model.get_base_model().config._attn_implementation == attention


@pytest.mark.parametrize("mixture", [Mixture(num_experts=4, adapter_dim=4), None])
def test_what_was_trained_in_float32_is_kept_in_the_numbers_of_the_base(
    rows: Path, tmp_path: Path, mixture: Mixture | None
) -> None:
    """A base in bfloat16, on a processor without: the checkpoint is no larger than elsewhere."""
    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    done = train(recipe(base, rows, mixture=mixture, epochs=0.2), tmp_path / "run", device="cpu")
    assert done is not None
    kept = [tensor for file in done.model.rglob("*.safetensors") for tensor in numbers(file)]
    assert kept == [torch.bfloat16] * len(kept)
    load(done.model, device="cpu")


def numbers(file: Path) -> list[torch.dtype]:
    """Of the tensors of a file, but for row numbers."""
    return [t.dtype for t in load_file(file).values() if t.is_floating_point()]
