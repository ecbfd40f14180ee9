"""transformers' Trainer, taught what an Open-RAG model needs.

Checkpoints hold what is trained and nothing else, and take their name when they are whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from openrag_core.errors import CheckpointError
from openrag_core.training.encoding import IGNORED, Encoded
from openrag_core.training.losses import balance_loss, response_loss

TRAINED = "trained.safetensors"


class Collate:
    """Rows -> a batch, padded on the right.

    Args:
        pad_id: What is put behind shorter rows; never attended to, never learned.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Each of shape (rows, longest row)."""
        ids = [torch.tensor(row.ids) for row in rows]
        labels = [torch.tensor(row.labels) for row in rows]
        ones = [torch.ones(len(row.ids), dtype=torch.long) for row in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad_sequence(ones, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }


class OpenRAGTrainer(Trainer):
    """A Trainer over planned rows.

    Args:
        *args: As of `Trainer`.
        balance: Weight of the load-balancing loss.
        top_k: Experts that serve a token; 0 for a dense model.
        **kwargs: As of `Trainer`.
    """

    def __init__(self, *args: Any, balance: float, top_k: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the number of labels in a whole step, for the mean
        self._balance, self._top_k = balance, top_k
        self._balance_sum = self._balance_count = 0.0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Mean over the labels of the whole step, and the balance of the experts."""
        loss, router_logits = response_loss(model, inputs, router_logits=self._top_k > 0)
        count = (inputs["labels"][:, 1:] != IGNORED).sum()
        share = 1.0
        if num_items_in_batch is not None:
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
            share = 1 / self.current_gradient_accumulation_steps
            count = num_items_in_batch
        loss = loss / count
        if router_logits:
            balance = balance_loss(router_logits, self._top_k, inputs["attention_mask"])
            if model.training:
                self._balance_sum += float(balance.detach())
                self._balance_count += 1
                loss = loss + self._balance * share * balance
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in `Trainer`; `balance` is added: 1 where the experts are served alike."""
        if "loss" in logs and self._balance_count:
            logs["balance"] = self._balance_sum / self._balance_count / self._top_k
            self._balance_sum = self._balance_count = 0.0
        super().log(logs, *args, **kwargs)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if not self.args.should_save:  # another process does
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_state(cast("nn.Module", self.model), state_dict), folder / TRAINED)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Under another name first: a full disk or a stop leaves those before it whole."""
        folder = Path(str(self.args.output_dir))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        unfinished = folder / f".{name}.unfinished"
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self.args.output_dir = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # each writer has its own
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise CheckpointError(
                f"{folder / name}: cannot be saved ({error}); the checkpoints before it are whole: "
                "make room, and resume"
            ) from error
        finally:
            self.args.output_dir, self.args.save_total_limit = str(folder), limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(folder / name, ignore_errors=True)
            (unfinished / name).rename(folder / name)
            shutil.rmtree(unfinished)
            for old in checkpoints(folder)[: -(limit or 1)]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        file = Path(resume_from_checkpoint) / TRAINED
        try:
            tensors = load_file(file)
        except Exception as error:  # safetensors has errors of its own
            raise CheckpointError(f"{file}: cannot be read ({error})") from error
        put_trained_state(cast("nn.Module", model or self.model), tensors)


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, oldest first."""
    found = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def trained_state(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Everything that is trained, by name.

    Args:
        model: With `requires_grad` set where something is.
        state: The model's tensors, where they had to be gathered.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    tensors = dict(model.named_parameters()) if state is None else state
    return {name: tensors[name].detach().cpu().contiguous() for name in names}


@torch.no_grad()
def put_trained_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `trained_state` gave; what is not trained is passed over.

    Raises:
        CheckpointError: A tensor is missing.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            if name not in tensors:
                raise CheckpointError(f"the checkpoint holds no {name}, which this recipe trains")
            tensor = tensors[name]
            if isinstance(parameter, DTensor):  # a shard of it
                tensor = distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
            parameter.copy_(tensor)
