"""core/openrag_core/training/start.py: a run that goes on from a trained mixture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import load_dense, save, upcycle
from openrag_core.model.upcycle import add_reflection_tokens
from openrag_core.training import LoRA, Mixture, Trained, train
from openrag_core.training.start import find_start
from tests.core.training.tiny import make_base, make_rows, recipe

SIZES = Mixture(num_experts=4, adapter_dim=8, scaling=1.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("dense") / "base", tied=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture(scope="module")
def first(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    output = tmp_path_factory.mktemp("runs") / "first"
    done = train(recipe(base, rows, validation=[str(rows)]), output, device="cpu")
    assert done is not None
    return done


def validation(run: Path) -> list[float]:
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["eval_loss"] for line in lines if "eval_loss" in line]


def test_it_begins_where_the_first_run_ended(
    first: Trained, base: Path, rows: Path, tmp_path: Path
) -> None:
    """Learning next to nothing: experts, LoRA and token rows are all those of the first run."""
    still = recipe(
        base,
        rows,
        start=str(first.model),
        validation=[str(rows)],
        learning_rate=1e-12,
        epochs=0.9,
    )
    done = train(still, tmp_path / "second", device="cpu")
    assert done is not None
    before, after = validation(first.model.parent), validation(done.model.parent)
    assert before[0] > 1.1 * before[-1]  # so that a run from the base would be seen
    assert after[0] == pytest.approx(before[-1], rel=1e-4)


def test_it_learns_on(first: Trained, base: Path, rows: Path, tmp_path: Path) -> None:
    more = recipe(base, rows, start=str(first.model), validation=[str(rows)])
    done = train(more, tmp_path / "second", device="cpu")
    assert done is not None
    assert validation(done.model.parent)[-1] < validation(first.model.parent)[-1]


def test_experts_without_lora_are_gone_on_from_too(base: Path, rows: Path, tmp_path: Path) -> None:
    model, tokenizer = load_dense(base)
    mixture = upcycle(model, num_experts=4, top_k=2, adapter_dim=8, scaling=1.0)
    add_reflection_tokens(mixture, tokenizer)
    save(mixture, tokenizer, tmp_path / "upcycled", layout="adapter", base=base)
    settings = recipe(base, rows, start=str(tmp_path / "upcycled"), epochs=0.5)
    assert train(settings, tmp_path / "run", device="cpu") is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixture": None}, r"start: a run without a mixture has nothing to go on from"),
        (
            {"mixture": SIZES.model_copy(update={"adapter_dim": 4})},
            r"has other sizes \(adapter_dim is 8 there and 4 in the recipe\): take its own",
        ),
        ({"mixture": SIZES.model_copy(update={"scaling": 0.5})}, "scaling is 1.0 there and 0.5"),
        ({"lora": LoRA(rank=4)}, r"lora\.rank is 16 there and 4"),
        ({"lora": LoRA(rank=16, dora=True)}, r"lora\.dora is False there and True"),
    ],
)
def test_other_sizes_are_refused(
    first: Trained, base: Path, rows: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_start(recipe(base, rows, start=str(first.model), **changed))


def test_lora_of_other_modules_is_refused(
    first: Trained, base: Path, rows: Path, tmp_path: Path
) -> None:
    narrow = LoRA(rank=16, targets=["self_attn.q_proj"])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        train(recipe(base, rows, start=str(first.model), lora=narrow), tmp_path, device="cpu")


def test_other_folders_are_refused(first: Trained, base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no adapter-only checkpoint, as openrag train"):
        find_start(recipe(base, rows, start=str(base)))
    with pytest.raises(CheckpointError, match="no checkpoint 'nowhere/none'"):
        find_start(recipe(base, rows, start="nowhere/none"))
    other = make_base(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"is not the base that .* was trained on"):
        find_start(recipe(other, rows, start=str(first.model)))
