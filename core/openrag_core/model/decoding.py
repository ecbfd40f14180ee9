"""Greedy decoding in batches that keeps of each step only what the pipeline reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote after one prompt: T tokens, the end token included where it came."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Of the chosen tokens; length T."""
    watched: list[list[float]] = field(default_factory=list)
    """Log-probabilities of the watched ids at each position; shape (T, len(watch))."""


class GreedyDecoder:
    """Writes the likeliest continuation of each prompt.

    The beginning that all prompts of a batch share is computed once; rows that end leave the
    batch. A checkpoint's own generation settings (penalties, beams, sampling) are not applied.

    Args:
        model: A causal language model.
        pad_id: Fills the shorter rows of a batch.
        watch: Ids whose log-probability is kept at every position.
        banned: Ids that are never written, as if they were not in the vocabulary.
        max_batch_tokens: Most tokens, padding and new ones included, in one batch; a single
            longer row runs alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_id: int,
        watch: Sequence[int] = (),
        banned: Sequence[int] = (),
        max_batch_tokens: int = 8192,
    ) -> None:
        self._model: Any = model
        self._config = model.config.get_text_config()
        self._pad_id = pad_id
        self._watch = list(watch)
        self._banned = list(banned)
        self._max_batch_tokens = max_batch_tokens
        ends = model.generation_config.eos_token_id if model.generation_config else None
        self._ends = {
            end for end in (ends if isinstance(ends, list) else [ends]) if end is not None
        }

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Continuation]:
        """Continue each prompt, until an end token or the limit; the order is kept."""
        results = [Continuation() for _ in prompts]
        for rows in self._batches(prompts, max_new_tokens):
            batch = [results[row] for row in rows]
            self._continue([prompts[row] for row in rows], batch, max_new_tokens)
        return results

    def _batches(self, prompts: Sequence[list[int]], max_new_tokens: int) -> Iterator[list[int]]:
        """Rows of like length together, so that little is padded."""
        batch: list[int] = []
        for row in sorted(range(len(prompts)), key=lambda row: len(prompts[row])):
            tokens = (len(batch) + 1) * (len(prompts[row]) + max_new_tokens)
            if batch and tokens > self._max_batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _continue(
        self, prompts: list[list[int]], batch: list[Continuation], max_new_tokens: int
    ) -> None:
        cache = DynamicCache(config=self._config)
        shared = self._prefill_shared(prompts, cache)
        ids, mask = self._padded([prompt[shared:] for prompt in prompts])
        positions = (shared + mask.cumsum(dim=-1) - 1).clamp(min=0)
        mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=-1)
        for _ in range(max_new_tokens):
            logprobs = self._step(ids, mask, positions, cache)
            chosen, best = logprobs.max(dim=-1)
            self._record(batch, best.tolist(), chosen.tolist(), logprobs[:, self._watch].tolist())
            alive = [n for n, row in enumerate(batch) if row.ids[-1] not in self._ends]
            if not alive:
                return
            if len(alive) < len(batch):
                batch = [batch[n] for n in alive]
                cache.batch_select_indices(torch.tensor(alive, device=mask.device))
                best, mask, positions = best[alive], mask[alive], positions[alive]
            ids = best.unsqueeze(-1)
            mask = torch.cat([mask, mask.new_ones(len(batch), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def _prefill_shared(self, prompts: list[list[int]], cache: DynamicCache) -> int:
        """Compute what all prompts begin with, once; the length of it.

        Rows of unlike length get padding between this and their own part. A sliding window counts
        that as text, so with one only rows of equal length share.
        """
        equal = len({len(prompt) for prompt in prompts}) == 1
        if len(prompts) == 1 or not (equal or self._sees_everything):
            return 0
        columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        if shared:
            ids, mask = self._padded([prompts[0][:shared]])
            self._step(ids, mask, mask.cumsum(dim=-1) - 1, cache)
            cache.batch_repeat_interleave(len(prompts))
        return shared

    @property
    def _sees_everything(self) -> bool:
        kinds = getattr(self._config, "layer_types", None) or []
        window = getattr(self._config, "sliding_window", None) if not kinds else None
        return window is None and all(kind == "full_attention" for kind in kinds)

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids, padded on the left, and their mask; each of shape (rows, longest)."""
        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        filled = [[self._pad_id] * n + row for n, row in zip(padding, rows, strict=True)]
        mask = [[0] * n + [1] * (width - n) for n in padding]
        device = self._model.device
        return torch.tensor(filled, device=device), torch.tensor(mask, device=device)

    def _step(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Log-probabilities of the next token; shape (rows, vocabulary)."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        logits[:, self._banned] = -torch.inf
        return logits.log_softmax(dim=-1)

    @staticmethod
    def _record(
        batch: list[Continuation],
        ids: list[int],
        logprobs: list[float],
        watched: list[list[float]],
    ) -> None:
        for row, id_, logprob, step in zip(batch, ids, logprobs, watched, strict=True):
            row.ids.append(id_)
            row.logprobs.append(logprob)
            row.watched.append(step)
