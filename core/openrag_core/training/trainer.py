"""transformers' Trainer, taught what an Open-RAG model needs.

Checkpoints hold what is trained and nothing else, and take their name when they are whole.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
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
from openrag_core.training.losses import balance_loss, batch_losses

TRAINED = "trained.safetensors"


class Collate:
    """Rows -> a batch, padded on the right.

    Args:
        pad_id: What is put behind shorter rows; never attended to, never learned.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Each of shape (rows, longest row).

        Where a row has judgements beside its response, `position_ids` says how many ids come
        before each, and `relevance` what is to be said after it, `IGNORED` at all but the marks,
        which `attention_mask` counts as padding.
        """
        closing = [[row.ids[row.text.stop] for _ in row.relevance] for row in rows]
        batch = {
            "input_ids": _padded(
                [row.ids + more for row, more in zip(rows, closing, strict=True)], self.pad_id
            ),
            "attention_mask": _padded(
                [[1] * len(row.ids) + [0] * len(row.relevance) for row in rows], 0
            ),
            "labels": _padded(
                [row.labels + [IGNORED] * len(row.relevance) for row in rows], IGNORED
            ),
        }
        if any(closing):
            reads = [[read for read, _ in row.relevance] for row in rows]
            said = [[token for _, token in row.relevance] for row in rows]
            batch["position_ids"] = _padded(
                [[*range(len(row.ids)), *own] for row, own in zip(rows, reads, strict=True)], 0
            )
            batch["relevance"] = _padded(
                [[IGNORED] * len(row.ids) + own for row, own in zip(rows, said, strict=True)],
                IGNORED,
            )
        return batch


class OpenRAGTrainer(Trainer):
    """A Trainer over planned rows.

    Args:
        *args: As of `Trainer`.
        balance: Weight of the load-balancing loss.
        relevance: Weights of the judgements that rows have beside their responses, by reply.
        top_k: Experts that serve a token; 0 for a dense model.
        **kwargs: As of `Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        balance: float,
        relevance: Mapping[int, float],
        top_k: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the number of labels in a whole step, for the mean
        self._balance, self._relevance, self._top_k = balance, relevance, top_k
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._passes = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Mean over the labels of the whole step, the judgements, and the experts' balance."""
        loss, relevance, router_logits = batch_losses(model, inputs, router_logits=self._top_k > 0)
        rows, count = len(inputs["labels"]), (inputs["labels"][:, 1:] != IGNORED).sum()
        share = 1.0
        if num_items_in_batch is not None:
            if model.training:
                share = 1 / self.current_gradient_accumulation_steps
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
            count = num_items_in_batch
        loss = loss / count
        if model.training:
            self._passes += 1
        for reply, own in relevance.items():
            judged = self._relevance.get(reply, 0.0) * own / rows
            loss = loss + share * judged
            if model.training:
                self._sums["relevance"] += float(judged.detach())
        if router_logits and model.training:
            balance = balance_loss(router_logits, self._top_k, inputs["attention_mask"])
            loss = loss + self._balance * share * balance
            self._sums["balance"] += float(balance.detach()) / self._top_k
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in `Trainer`, with two parts of the loss.

        `relevance` is what the judgements beside the responses add to it, `balance` 1 where the
        experts are served alike.
        """
        if "loss" in logs and self._passes:
            logs |= {name: total / self._passes for name, total in self._sums.items()}
            self._sums.clear()
            self._passes = 0
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


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


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
