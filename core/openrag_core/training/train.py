"""A recipe -> a trained checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, PrinterCallback, TrainerCallback, TrainingArguments, set_seed
from transformers import PreTrainedTokenizerBase as Tokenizer

from openrag_core.compute import choose_device, choose_dtype
from openrag_core.errors import ConfigError
from openrag_core.model.attention import has_full_attention
from openrag_core.model.checkpoints.adapter import LORA, WEIGHTS, put_added
from openrag_core.model.checkpoints.dense import dense_folder, load_dense
from openrag_core.model.checkpoints.files import new_folder
from openrag_core.model.checkpoints.lora import put_lora_weights
from openrag_core.model.checkpoints.saving import save
from openrag_core.model.modeling import OpenRAGForCausalLM
from openrag_core.model.upcycle import add_reflection_tokens, embedding_weights, upcycle
from openrag_core.training.curve import CurveCallback, read_log
from openrag_core.training.encoding import EncodedRows, encode_rows
from openrag_core.training.losses import reply_weights
from openrag_core.training.modules import make_trainable
from openrag_core.training.plan import Plan, plan
from openrag_core.training.recipe import Recipe, located, read_recipe, write_recipe
from openrag_core.training.rows import Row, read_rows
from openrag_core.training.start import find_start
from openrag_core.training.trainer import (
    Collate,
    OpenRAGTrainer,
    checkpoints,
    put_trained_state,
)

RECIPE, ORDER, CHECKPOINTS, MODEL = "recipe.yaml", "order.sha256", "checkpoints", "model"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run made."""

    model: Path
    """The checkpoint folder, for `load`."""
    rows: EncodedRows
    plan: Plan
    loss: float
    """Mean over the whole run, in nats: of the labels, with the weighted judgements and balance;
    NaN where its log could not be written."""
    seconds: float
    """Spent on steps, before a resumption too; NaN likewise."""


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained | None:
    """Train a model.

    The folder gets recipe.yaml, log.jsonl, loss.png, the checkpoints to resume from, and at the
    end the trained model: adapter-only for a mixture, whole for a dense model.

    Args:
        recipe: What to compute; paths in it are relative to the current folder.
        output: Folder to make; with `resume`, the one of the run to go on with.
        resume: Whether to go on from the latest checkpoint.
        device: "cpu" or "cuda"; by default the GPU where there is one, under torchrun each process
            its own.
        callbacks: More of transformers' callbacks, such as a progress bar.

    Returns:
        What was made; None in all processes of torchrun but the first.

    Raises:
        ConfigError: The recipe asks for what cannot be, or is another than the run began with.
        TrainingDataError: Rows cannot be read.
        CheckpointError: The base cannot be loaded, or a checkpoint not be saved.
    """
    recipe = located(recipe, Path())
    latest = _check(recipe, output, resume=resume)
    set_seed(recipe.seed)
    where = _device(device)
    model, tokenizer = make_model(recipe, where)
    rows = encode_sources(recipe, tokenizer, recipe.rows)
    held_out = encode_sources(recipe, tokenizer, recipe.validation) if recipe.validation else None
    judged = any(row.relevance for row in chain(rows.rows, held_out.rows if held_out else ()))
    if judged and not has_full_attention(model.config.get_text_config()):
        raise ConfigError(
            f"rows with `relevance` close a paragraph several times, which {recipe.base} cannot be "
            "shown: it does not attend to everything in every layer. Make them without "
            "--sentences, or set relevance: 0 in the recipe"
        )
    order = plan(
        [row.length for row in rows.rows],
        batch_size=recipe.batch_size,
        batches_per_step=recipe.accumulate * int(os.environ.get("WORLD_SIZE", "1")),
        epochs=recipe.epochs,
        max_tokens=recipe.max_tokens,
        seed=recipe.seed,
    )
    _begin(recipe, output, rows, order, resume=resume)
    mixture = recipe.mixture
    learned = [rows.rows[n] for n in order.order]
    trainer = OpenRAGTrainer(
        model=model,
        args=_arguments(recipe, output, where, order.steps),
        data_collator=Collate(_pad(tokenizer)),
        train_dataset=learned,
        eval_dataset=held_out.rows if held_out else None,
        callbacks=[CurveCallback(output, order.tokens / order.steps), *callbacks],
        balance=mixture.balance if mixture else 0.0,
        relevance={
            reply: recipe.relevance * weight for reply, weight in reply_weights(learned).items()
        },
        top_k=mixture.top_k if mixture else 0,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=latest)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the device is too small ({error}): lower batch_size (and raise accumulate), lower "
            "max_length, or set gradient_checkpointing or load_in_4bit"
        ) from error
    changed = recipe.fsdp or recipe.load_in_4bit
    state = trainer.accelerator.get_state_dict(trainer.model) if changed else None
    if not trainer.args.should_save:
        return None
    if state is not None:  # what was learned, on dense weights that were never cut or rounded
        numbers = {"load_in_4bit": False, "bf16": _numbers(recipe, where) == torch.bfloat16}
        whole = recipe.model_copy(update=numbers)
        model, tokenizer = make_model(whole, torch.device("cpu"))
        put_trained_state(model, state)
    _save(model, tokenizer, recipe, output / MODEL)
    log = [line for line in read_log(output) if "loss" in line]
    if not log:  # it could not be written, which is no reason to lose the model
        return Trained(output / MODEL, rows, order, nan, nan)
    return Trained(
        output / MODEL, rows, order, fmean(line["loss"] for line in log), log[-1]["seconds"]
    )


def _check(recipe: Recipe, output: Path, *, resume: bool) -> str | None:
    """Check the folder, and find what to go on from."""
    file = output / RECIPE
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file: name a folder")
    if recipe.fsdp and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "fsdp shards a model over several processes: run it under torchrun, or leave it out"
        )
    if not resume:
        first = os.environ.get("RANK", "0") == "0"  # process of torchrun: it looks for all
        if first and output.exists() and any(output.iterdir()):
            raise ConfigError(
                f"{output} is not empty: choose another folder, or go on with its run (--resume)"
            )
        return None
    if (output / MODEL).exists():
        raise ConfigError(f"{output} holds a run that is finished: its model is {output / MODEL}")
    if not file.is_file():
        raise ConfigError(f"{output} holds no run to go on with: it has no {RECIPE}")
    before = read_recipe(file)
    if changed := [
        f"{name} was {getattr(before, name)!r} and is {getattr(recipe, name)!r}"
        for name in Recipe.model_fields
        if getattr(before, name) != getattr(recipe, name)
    ]:
        raise ConfigError(
            f"{file} is another recipe than the one given ({'; '.join(changed)}): "
            "resume with that file, or begin a new run in another folder"
        )
    found = checkpoints(output / CHECKPOINTS)
    return str(found[-1]) if found else None  # it was stopped before the first: from the start


def _begin(recipe: Recipe, output: Path, rows: EncodedRows, order: Plan, *, resume: bool) -> None:
    """Keep what the run depends on, or make sure that it still is what it was.

    Raises:
        ConfigError: The rows, or the number of processes, are others than the run began with.
    """
    found = sha256(json.dumps([order.steps, order.order]).encode())
    for row in rows.rows:
        found.update(json.dumps([row.ids, row.labels, row.relevance]).encode())
    digest = found.hexdigest()
    if resume and (output / ORDER).read_text(encoding="utf-8") != digest:
        raise ConfigError(
            f"{output} was begun with other rows, or with another number of processes than "
            f"{os.environ.get('WORLD_SIZE', '1')}: resume with the same, or begin a new run"
        )
    if not resume and os.environ.get("RANK", "0") == "0":
        output.mkdir(parents=True, exist_ok=True)
        (output / ORDER).write_text(digest, encoding="utf-8")
        write_recipe(recipe, output / RECIPE)


def _device(name: str | None) -> torch.device:
    where = choose_device(name)
    if where.type != "cuda":
        return where
    if "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if torch.cuda.device_count() > 1:
        raise ConfigError(
            f"there are {torch.cuda.device_count()} GPUs: choose one with CUDA_VISIBLE_DEVICES, or "
            "train on all of them with torchrun --nproc-per-node N --no-python openrag train ..."
        )
    return where


def _numbers(recipe: Recipe, where: torch.device) -> torch.dtype:
    """What is multiplied in."""
    if recipe.bf16 is None:
        return choose_dtype(None, where)
    return torch.bfloat16 if recipe.bf16 else torch.float32


def make_model(recipe: Recipe, where: torch.device) -> tuple[Any, Tokenizer]:
    """The model that a recipe trains, with everything else frozen, and its tokenizer.

    Args:
        recipe: Says what it is made of.
        where: The device that it will be trained on; the Trainer moves it there.
    """
    kwargs: dict[str, Any] = {}
    start = find_start(recipe)
    if recipe.load_in_4bit:
        from openrag_core.model.checkpoints.loading import four_bits  # noqa: PLC0415

        kwargs = four_bits(choose_dtype(None, where), {"": where})
    model, tokenizer = load_dense(recipe.base, dtype=_numbers(recipe, where), **kwargs)
    if recipe.mixture is not None:
        sizes = recipe.mixture
        model = upcycle(
            model,
            num_experts=sizes.num_experts,
            top_k=sizes.top_k,
            adapter_dim=sizes.adapter_dim,
            scaling=sizes.scaling,
        )
    add_reflection_tokens(model, tokenizer)
    tied = embedding_weights(model)[0] is embedding_weights(model)[1]
    if recipe.fsdp and tied:  # peft keeps the two together in a way that sharding cannot see
        raise ConfigError(f"fsdp: the embeddings of {recipe.base} are tied; train without")
    model.config.reflection_trained = True
    if where.type == "cpu" and _numbers(recipe, where) == torch.bfloat16:
        model.set_attn_implementation("eager")  # the fused kernel's backward pass is slow there
    if start is None:
        return make_trainable(model, tokenizer, recipe.lora), tokenizer
    assert isinstance(model, OpenRAGForCausalLM)
    put_added(start / WEIGHTS, model)
    adapted = make_trainable(model, tokenizer, recipe.lora)
    if (start / LORA).is_dir():
        put_lora_weights(adapted, start / LORA)
    return adapted, tokenizer


def encode_sources(recipe: Recipe, tokenizer: Tokenizer, sources: Sequence[str]) -> EncodedRows:
    """Rows of files and datasets, encoded as a recipe says."""
    rows: Iterable[Row] = chain.from_iterable(read_rows(source) for source in sources)
    if not recipe.relevance:
        rows = (replace(row, relevance=()) for row in rows)
    return encode_rows(tokenizer, rows, max_length=recipe.max_length, too_long=recipe.too_long)


def _arguments(recipe: Recipe, output: Path, where: torch.device, steps: int) -> TrainingArguments:
    scheduler: dict[str, Any] = {}
    if recipe.schedule == "warmup_stable_decay":
        scheduler["num_decay_steps"] = round(recipe.decay * steps)
    return TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulate,
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        lr_scheduler_kwargs=scheduler,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        train_sampling_strategy="sequential",  # the plan is the order
        bf16=_numbers(recipe, where) == torch.bfloat16,
        use_cpu=where.type == "cpu",
        fsdp="full_shard auto_wrap" if recipe.fsdp else None,
        ddp_find_unused_parameters=False,
        seed=recipe.seed,
        logging_steps=min(recipe.log_every, steps),
        save_steps=recipe.save_every,
        save_total_limit=recipe.keep_checkpoints,
        eval_strategy="steps" if recipe.validation else "no",
        eval_steps=recipe.save_every,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=where.type == "cuda",
        log_level="error",
    )


def _pad(tokenizer: Tokenizer) -> int:
    return next(
        id_ for id_ in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if id_ is not None
    )


def _save(model: PeftModel, tokenizer: Tokenizer, recipe: Recipe, folder: Path) -> None:
    """In the base's numbers: adapter-only for a mixture, whole for a dense model."""
    numbers = model.dtype
    if numbers == torch.float32:  # which holds those of the file exactly, where others may not
        config: Any = AutoConfig.from_pretrained(dense_folder(recipe.base))
        numbers = config.dtype or numbers
    model.eval().to(numbers)
    if recipe.mixture is not None:
        save(model, tokenizer, folder, layout="adapter", base=recipe.base)
        return
    adapted: Any = model
    with new_folder(folder) as made:
        adapted.merge_and_unload().save_pretrained(made)
        tokenizer.save_pretrained(made)
