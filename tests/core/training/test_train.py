"""core/openrag_core/training/train.py: a small run, from the recipe to answers, and its faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from openrag_core import CheckpointError, ConfigError, Passage, TrainingDataError
from openrag_core.model import (
    OpenRAGForCausalLM,
    TransformersGenerator,
    add_reflection_tokens,
    load,
    load_dense,
)
from openrag_core.model.upcycle import embedding_weights
from openrag_core.reflection import RELEVANCE
from openrag_core.training import (
    LoRA,
    Mixture,
    Trained,
    read_recipe,
    read_rows,
    train,
    write_recipe,
)
from openrag_core.training.encoding import IGNORED, encode_rows
from openrag_core.training.losses import batch_losses
from openrag_core.training.trainer import Collate
from tests.core.training.tiny import make_base, make_rows, recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("dense") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture(scope="module")
def run(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(base, rows, tmp_path_factory.mktemp("runs") / "run", validation=[str(rows)])


def trained(base: Path, rows: Path, output: Path, **changed: object) -> Trained:
    done = train(recipe(base, rows, **changed), output, device="cpu")
    assert done is not None
    return done


def log(run: Path, field: str) -> list[float]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line[field] for line in map(json.loads, lines) if field in line]


class StopAt(TrainerCallback):
    """As if the machine had stopped after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self.step:
            raise InterruptedError


def test_the_loss_falls_and_everything_is_kept(run: Trained, base: Path) -> None:
    folder = run.model.parent
    losses = log(folder, "loss")
    assert run.plan.steps == len(losses) == 30
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert run.plan.padding < 0.1
    assert all(1 <= balance < 2 for balance in log(folder, "balance"))
    assert len(log(folder, "eval_loss")) == 3
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "order.sha256",
        "log.jsonl",
        "loss.png",
        "checkpoints",
        "model",
    }
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        "checkpoint-20",
        "checkpoint-30",
    ]
    assert json.loads((run.model / "base.json").read_text("utf-8"))["name_or_path"] == str(base)


def test_the_trained_model_answers(run: Trained) -> None:
    model, tokenizer = load(run.model, dtype="float32", device="cpu")
    assert isinstance(model, OpenRAGForCausalLM)
    assert model.config.reflection_trained
    generator = TransformersGenerator(model, tokenizer, max_new_tokens=8)
    who, greeting = (
        asked["[Retrieval]"] - asked["[No Retrieval]"]
        for asked in generator.request(["Who?", "Hi"])
    )
    assert who > max(0, greeting)
    (written,) = generator.write(["Who?"], [[[Passage("p", "Ana did.", "T")]]])
    assert RELEVANCE.mean_worth(written[0].tokens[0].reflections) > 0.5


def test_only_what_should_be_was_trained(run: Trained, base: Path) -> None:
    checkpoint = load_file(run.model.parent / "checkpoints" / "checkpoint-30/trained.safetensors")
    kinds = {name.rpartition("layers.")[2].partition(".")[2] or name for name in checkpoint}
    assert {kind for kind in kinds if "lora" not in kind and "tokens" not in kind} == {
        "mlp.router.weight",
        "mlp.experts.down",
        "mlp.experts.up",
    }
    (tokens,) = [tensor for name, tensor in checkpoint.items() if "trainable_tokens" in name]
    assert tokens.shape == (15, 32)
    assert_new_rows_were_trained(run.model, base)


def test_an_output_head_of_its_own_is_trained_too(rows: Path, tmp_path: Path) -> None:
    untied = make_base(tmp_path / "base", tied=False)
    done = trained(untied, rows, tmp_path / "run", epochs=0.5)
    assert_new_rows_were_trained(done.model, untied)


def assert_new_rows_were_trained(trained: Path, base: Path) -> None:
    """And no others, of the embedding and of the output head."""
    before, tokenizer = load_dense(base)
    add_reflection_tokens(before, tokenizer)
    after, _ = load(trained, dtype="float32", device="cpu")
    for old, new in zip(embedding_weights(before), embedding_weights(after), strict=True):
        assert torch.equal(new[:-15], old[:-15])
        assert not torch.equal(new[-15:], old[-15:])
    assert all((new[-15:] != old[-15:]).any(dim=1))  # the head, where each is a wrong answer


def test_the_model_that_is_saved_is_the_one_that_was_trained(run: Trained) -> None:
    """Merged LoRA included: its loss on the rows is the last one of the validation."""
    last = log(run.model.parent, "eval_loss")[-1]
    model, tokenizer = load(run.model, dtype="float32", device="cpu")
    (source,) = read_recipe(run.model.parent / "recipe.yaml").rows
    rows = encode_rows(tokenizer, read_rows(source), max_length=256, too_long="drop").rows
    batches = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    losses = []
    for batch in map(Collate(0), batches):
        with torch.no_grad():
            loss, *_ = batch_losses(model, batch, router_logits=False)
        losses.append(float(loss) / int((batch["labels"] != IGNORED).sum()))
    assert sum(losses) / len(losses) == pytest.approx(last, rel=1e-3)


def test_a_resumed_run_learns_exactly_the_same(base: Path, rows: Path, tmp_path: Path) -> None:
    """With dropout, so that the random numbers must go on too, and accumulated batches."""
    settings = recipe(base, rows, batch_size=4, accumulate=2, lora=LoRA(rank=8, dropout=0.2))
    whole = train(settings, tmp_path / "whole", device="cpu")
    with pytest.raises(InterruptedError):
        train(settings, tmp_path / "run", device="cpu", callbacks=[StopAt(17)])
    with (tmp_path / "run" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1')  # as a machine leaves it that was switched off
    done = train(settings, tmp_path / "run", resume=True, device="cpu")
    assert done is not None
    assert whole is not None
    assert log(tmp_path / "run", "loss") == log(tmp_path / "whole", "loss")
    assert done.loss == whole.loss
    for name in ("adapter.safetensors", "lora/adapter_model.safetensors"):
        resumed, expected = load_file(done.model / name), load_file(whole.model / name)
        assert resumed.keys() == expected.keys()
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_a_run_is_resumed_by_its_own_recipe_alone(base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        train(recipe(base, rows), tmp_path / "run", device="cpu", callbacks=[StopAt(12)])
    other = recipe(base, rows, learning_rate=0.5)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.02 and is 0\.5"):
        train(other, tmp_path / "run", resume=True)


def test_a_run_with_relative_paths_is_resumed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rows(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    settings = recipe(Path(os.path.relpath(base)), Path("rows.jsonl"), epochs=0.5)
    with pytest.raises(InterruptedError):
        train(settings, Path("run"), device="cpu", callbacks=[StopAt(2)])
    assert read_recipe(Path("run/recipe.yaml")).rows == [str(tmp_path / "rows.jsonl")]
    assert train(settings, Path("run"), resume=True, device="cpu") is not None


def test_a_finished_run_is_not_resumed(run: Trained, base: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"a run that is finished: its model is .*model"):
        train(recipe(base, rows), run.model.parent, resume=True)


def test_several_gpus_are_not_mixed_up(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["openrag_core.training.train"]  # whose name the function has taken
    monkeypatch.setattr(module, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"there are 4 GPUs: .*CUDA_VISIBLE_DEVICES.*torchrun"):
        train(recipe(base, rows), tmp_path / "run")


def test_what_is_there_is_not_overwritten(run: Trained, base: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not empty: .*--resume"):
        train(recipe(base, rows), run.model.parent)


def test_there_must_be_something_to_resume(base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run to go on with"):
        train(recipe(base, rows), tmp_path / "none", resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is a file: name a folder"):
        train(recipe(base, rows), tmp_path / "file")


def test_a_run_that_was_stopped_at_once_begins_anew(base: Path, rows: Path, tmp_path: Path) -> None:
    settings = recipe(base, rows, epochs=0.5)
    with pytest.raises(InterruptedError):
        train(settings, tmp_path / "run", device="cpu", callbacks=[StopAt(3)])
    done = train(settings, tmp_path / "run", resume=True, device="cpu")
    assert done is not None
    assert len(log(tmp_path / "run", "loss")) == done.plan.steps


def test_other_rows_or_processes_are_not_resumed_with(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(tmp_path / "rows.jsonl")
    settings = recipe(base, rows)
    with pytest.raises(InterruptedError):
        train(settings, tmp_path / "run", device="cpu", callbacks=[StopAt(12)])
    make_rows(rows, 95)
    with pytest.raises(ConfigError, match=r"begun with other rows, or with another number"):
        train(settings, tmp_path / "run", resume=True, device="cpu")
    make_rows(rows)
    same = rows.read_text("utf-8")
    rows.write_text(same.replace("It rained.", "It hailed."), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"begun with other rows"):
        train(settings, tmp_path / "run", resume=True, device="cpu")
    rows.write_text(same, encoding="utf-8")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"another number of processes than 2"):
        train(settings, tmp_path / "run", resume=True, device="cpu")


def test_sharding_is_refused_where_it_cannot_be(base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run it under torchrun"):
        trained(base, rows, tmp_path / "run", fsdp=True)


@pytest.mark.parametrize(
    ("writer", "error"),
    [
        ("torch.save", OSError(28, "No space left on device")),
        ("openrag_core.training.trainer.save_file", SafetensorError("No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_checkpoint_before(
    base: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
    error: Exception,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    class Fill(TrainerCallback):
        def on_step_end(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **kwargs: Any,
        ) -> None:
            if state.global_step == 15:
                monkeypatch.setattr(writer, full)

    settings = recipe(base, rows)
    with pytest.raises(CheckpointError, match=r"checkpoint-20: cannot be saved .*No space left"):
        train(settings, tmp_path / "run", device="cpu", callbacks=[Fill()])
    monkeypatch.undo()
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert kept == ["checkpoint-10"]
    done = train(settings, tmp_path / "run", resume=True, device="cpu")
    assert done is not None
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "checkpoint-20",
        "checkpoint-30",
    ]


def test_a_dense_model_is_adapted_and_saved_whole(base: Path, rows: Path, tmp_path: Path) -> None:
    done = trained(base, rows, tmp_path / "run", mixture=None)
    model, tokenizer = load(done.model, dtype="float32", device="cpu")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert TransformersGenerator(model, tokenizer).reflection_trained
    losses = log(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize(
    "changed",
    [
        {"bf16": True},
        {"accumulate": 2},
        {"gradient_checkpointing": True},
        {"lora": LoRA(rank=2, dora=True, dropout=0.1)},
        {"load_in_4bit": True},
        {"lora": LoRA(rank=2, targets=["self_attn.q_proj"])},
        {"schedule": "warmup_stable_decay"},
        {"mixture": Mixture(num_experts=4, adapter_dim=4, balance=0)},
    ],
    ids=" ".join,
)
def test_every_way_of_training_runs(
    base: Path, rows: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    done = trained(base, rows, tmp_path / "run", **changed | {"epochs": 0.5})
    losses = log(tmp_path / "run", "loss")
    assert losses[-1] < losses[0]
    load(done.model, device="cpu")


def test_what_cannot_be_trained_is_said(base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets: the model has no x; it has mlp\.dense"):
        trained(base, rows, tmp_path / "a", lora=LoRA(targets=["x"]))
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(TrainingDataError, match="no row to learn from"):
        trained(base, empty, tmp_path / "b")
    with pytest.raises(CheckpointError, match="no checkpoint 'nowhere/none'"):
        trained(Path("nowhere/none"), rows, tmp_path / "c")
    assert list(tmp_path.iterdir()) == [empty]  # the folders are free for the next attempt


def torchrun(folder: Path, *command: str) -> str:
    """What a command prints in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "--standalone", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENRAG_DEBUG": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_learn_what_one_does(base: Path, rows: Path, tmp_path: Path) -> None:
    """Two batches a step, one in each process or one after the other: the same losses."""
    settings = {"batch_size": 4, "epochs": 0.5}
    write_recipe(recipe(base, rows, **settings), tmp_path / "recipe.yaml")
    openrag = str(Path(sys.executable).with_name("openrag"))
    command = (openrag, "train", "recipe.yaml", "two", "--device", "cpu")
    assert torchrun(tmp_path, "--no-python", *command).count("next: openrag ask") == 1
    trained(base, rows, tmp_path / "one", accumulate=2, **settings)
    assert log(tmp_path / "two", "loss") == pytest.approx(log(tmp_path / "one", "loss"), rel=1e-4)
    models = [load(tmp_path / name / "model", device="cpu")[0] for name in ("one", "two")]
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-2)


def test_sharded_over_two_processes_it_has_the_same_gradients(
    base: Path, rows: Path, tmp_path: Path
) -> None:
    """In float32, by torch itself: the Trainer shards on GPUs alone."""
    write_recipe(recipe(base, rows), tmp_path / "recipe.yaml")
    script = str(Path(__file__).with_name("sharded.py"))
    assert torchrun(tmp_path, script, "recipe.yaml").count("equal") == 2


def test_a_run_shorter_than_its_log_ends_well(base: Path, rows: Path, tmp_path: Path) -> None:
    """Three steps, where the default logs every ten."""
    done = train(recipe(base, rows, epochs=0.25, log_every=10), tmp_path / "run", device="cpu")
    assert done is not None
    assert done.plan.steps < 10
    assert done.loss == pytest.approx(log(tmp_path / "run", "loss")[0])
