"""Everything that decides what a training run computes, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from openrag_core.errors import ConfigError
from openrag_core.weights import BUNDLED

_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, lt=1)]
Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup", "warmup_stable_decay"]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Mixture(_Part):
    """What is put behind every feed-forward block, and trained in full."""

    num_experts: _Count = 8
    top_k: _Count = 2
    """Experts that serve a token."""
    adapter_dim: _Count = 512
    """Width of an expert."""
    scaling: float = Field(default=0.25, gt=0)
    """Factor on the experts' sum."""
    balance: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss; 0 leaves it out."""


class LoRA(_Part):
    """How the dense weights are adapted, by peft."""

    rank: _Count = 16
    alpha: _Count = 16
    """The update is scaled by alpha / rank."""
    dropout: _Share = 0.0
    dora: bool = False
    """Whether magnitudes are learned apart from directions."""
    targets: list[str] | None = None
    """Names of modules; by default every linear module of attention and of the dense blocks."""


class Recipe(_Part):
    """A training run. Two runs of one recipe on one machine learn the same."""

    base: str = BUNDLED
    """Dense model: "bundled", a folder, or a name on a hub."""
    start: str | None = None
    """Trained mixture over that base to go on from: "bundled", or an adapter-only checkpoint. The
    sizes of experts and LoRA must be its own."""
    rows: list[str] = Field(min_length=1)
    """Files of training rows, or datasets on a hub as NAME or NAME:SUBSET."""
    validation: list[str] = []
    """The same, not to learn from: the loss on them is logged wherever a checkpoint is saved."""

    mixture: Mixture | None = Mixture()
    """Without (null), the dense model alone is adapted."""
    lora: LoRA = LoRA()
    load_in_4bit: bool = False
    """Keep the dense weights in NF4 while training (QLoRA); needs CUDA to be fast."""

    max_length: _Count = 1024
    """Longest row, in tokens."""
    too_long: Literal["cut", "drop"] = "cut"
    """Cut the end of the passages, or leave the row out."""
    epochs: float = Field(default=1, gt=0)
    """How often each row is seen."""
    max_tokens: _Count | None = None
    """Stop after about so many tokens, padding left out, however often rows were seen by then."""
    batch_size: _Count = 16
    """Rows per device and forward pass."""
    accumulate: _Count = 1
    """Forward passes per step."""

    relevance: float = Field(default=1, ge=0)
    """Weight of the judgements of relevance that rows have beside their responses; 0 leaves them
    out."""
    learning_rate: float = Field(default=2e-4, gt=0)
    schedule: Schedule = "linear"
    warmup: _Share = 0.03
    """Share of the steps in which the learning rate rises."""
    decay: _Share = 0.2
    """Share of the steps in which it falls, for the schedule warmup_stable_decay."""
    weight_decay: float = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1, gt=0)
    bf16: bool | None = None
    """Multiply in bfloat16; what is trained is kept in float32. By default where the device does so
    natively: a processor without is fifty times slower at it than in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice, and keep fewer."""
    fsdp: bool = False
    """Shard the model over the processes of torchrun; otherwise each holds all of it."""
    seed: int = Field(default=0, ge=0, lt=2**32)

    log_every: _Count = 10
    """Steps."""
    save_every: _Count = 200
    """Steps between checkpoints."""
    keep_checkpoints: _Count = 2


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; paths in it are relative to its folder.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown, missing or out of range.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        hint = ": rows are named in a recipe" if file.suffix in {".jsonl", ".gz"} else ""
        raise ConfigError(f"{file}: cannot be read as YAML ({error}){hint}") from error
    try:
        recipe = Recipe.model_validate({} if content is None else content)  # of an empty file
    except ValidationError as error:
        faults = "; ".join(map(_told, error.errors()))
        raise ConfigError(
            f"{file}: {faults}. Fields of a recipe: {', '.join(Recipe.model_fields)}"
        ) from error
    return located(recipe, file.parent)


def located(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the paths in it made absolute; other names are those on a hub.

    Args:
        recipe: What to compute.
        folder: What paths are relative to.
    """
    return recipe.model_copy(
        update={
            "rows": [_beside(folder, source) for source in recipe.rows],
            "validation": [_beside(folder, source) for source in recipe.validation],
            "base": _beside(folder, recipe.base),
            "start": recipe.start and _beside(folder, recipe.start),
        }
    )


def write_recipe(recipe: Recipe, file: Path) -> None:
    """Write a recipe so that `read_recipe` gives it back, where its paths are absolute."""
    content = yaml.safe_dump(recipe.model_dump(), sort_keys=False)
    file.write_text(content, encoding="utf-8")


def _told(fault: ErrorDetails) -> str:
    where = ".".join(map(str, fault["loc"])) or "the file"
    match fault["type"]:
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            return f"there is no field {where}"
        case _:
            return f"{where}: {fault['msg']}, got {fault['input']!r:.80}"


def _beside(folder: Path, name: str) -> str:
    is_file = name.endswith((".jsonl", ".gz"))
    if name != BUNDLED and (is_file or (folder / name).exists()):
        return str((folder / name).resolve())
    return name
