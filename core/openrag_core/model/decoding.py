"""Greedy decoding in batches that keeps of each step only what the pipeline reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote after one prompt: T tokens, the end token included where it came."""

    ids: list[int]
    logprobs: list[float]
    """Of the chosen tokens; length T."""
    watched: list[list[float]]
    """Log-probabilities of the watched ids at each position; shape (T, len(watch))."""


class GreedyDecoder:
    """Writes the likeliest continuation of each prompt.

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
        self._model: Any = model  # its `generate` is typed as a module's attribute
        self._pad_id = pad_id
        self._watch = list(watch)
        self._banned = list(banned)
        self._max_batch_tokens = max_batch_tokens
        ends = model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) - {None}

    def __call__(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Continuation]:
        """Continue each prompt, until an end token or the limit; the order is kept."""
        results: dict[int, Continuation] = {}
        for rows in self._batches(prompts, max_new_tokens):
            continued = self._continue([prompts[row] for row in rows], max_new_tokens)
            results |= dict(zip(rows, continued, strict=True))
        return [results[row] for row in range(len(prompts))]

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

    def _continue(self, prompts: list[list[int]], max_new_tokens: int) -> list[Continuation]:
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        rows = [[self._pad_id] * n + prompt for n, prompt in zip(padding, prompts, strict=True)]
        mask = [[0] * n + [1] * (width - n) for n in padding]
        device = self._model.device
        recorder = _Recorder(self._watch, self._banned)
        sequences = self._model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=self._pad_id,
            ),
            logits_processor=LogitsProcessorList([recorder]),
        )
        chosen = torch.stack(recorder.chosen, dim=1).tolist()
        watched = torch.stack(recorder.watched, dim=1).tolist()
        new = sequences[:, width:].tolist()
        lengths = [self._length(ids) for ids in new]
        return [
            Continuation(ids[:n], logprobs[:n], steps[:n])
            for ids, logprobs, steps, n in zip(new, chosen, watched, lengths, strict=True)
        ]

    def _length(self, ids: list[int]) -> int:
        """Tokens up to the first end token, which counts; what follows it is padding."""
        return next((n for n, id_ in enumerate(ids, start=1) if id_ in self._ends), len(ids))


class _Recorder(LogitsProcessor):
    """Keeps T x watched and T numbers of each row, where the scores would be T x vocabulary."""

    def __init__(self, watch: list[int], banned: list[int]) -> None:
        self._watch, self._banned = watch, banned
        self.chosen: list[Tensor] = []
        self.watched: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        scores[:, self._banned] = -torch.inf
        logprobs = scores.float().log_softmax(dim=-1)
        self.chosen.append(logprobs.amax(dim=-1))
        self.watched.append(logprobs[:, self._watch])
        return scores
