"""Greedy decoding in batches that keeps of each step only what the pipeline reads."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from math import isnan
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from openrag_core.errors import GenerationError
from openrag_core.model.attention import has_full_attention

logger = logging.getLogger(__name__)

_SIGNS_OF_NO_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a memory",  # oneDNN
    "could not create a primitive",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
MIN_SAVED = 64  # tokens; below it, a forward pass more costs as much as it saves (docs/log.md)


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote after one prompt: T tokens, the end token included where it came."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Of the chosen tokens; length T."""
    watched: list[list[float]] = field(default_factory=list)
    """Log-probabilities of the watched ids at each position; shape (T, len(watch))."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to be continued."""

    ids: list[int]
    max_new_tokens: int
    group: object = None
    """Prompts of one group begin alike, and that is computed once; such as all of one question."""
    stop: Callable[[Continuation], bool] | None = None
    """Asked after each token, the last one too, whether to leave it at that."""


class GreedyDecoder:
    """Writes the likeliest continuation of each prompt.

    Rows that end leave their batch. A checkpoint's own generation settings (penalties, beams,
    sampling) are not applied.

    Args:
        model: A causal language model.
        pad_id: Fills the shorter rows of a batch.
        watch: Ids whose log-probability is kept at every position.
        banned: Ids that are never written, as if they were not in the vocabulary.
        max_batch_tokens: Most tokens, padding and new ones included, in one batch; a single
            longer row runs alone. It is halved where memory runs out.
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
        self.max_batch_tokens = max_batch_tokens
        self._model: Any = model
        self._config = model.config.get_text_config()
        self._pad_id = pad_id
        self._watch = list(watch)
        self._banned = list(banned)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        self.ends = frozenset(
            end for end in (ends if isinstance(ends, list) else [ends]) if end is not None
        )

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """Continue each prompt until an end token, its limit, or its `stop`.

        Returns:
            In the order of the prompts.

        Raises:
            GenerationError: The memory does not hold a single prompt.
        """
        results = [Continuation() for _ in prompts]
        for rows in self.batches(prompts):
            done = self._batch([prompts[row] for row in rows])
            for row, continuation in zip(rows, done, strict=True):
                results[row] = continuation
        return results

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """What is run together: groups, and rows of like length, so that little is padded.

        Padding would run through the state of linear attention, and some rotary embeddings depend
        on the longest row, so there only equal lengths are batched.

        Yields:
            Places in `prompts`.
        """
        longest: dict[object, int] = {}
        for prompt in prompts:
            longest[prompt.group] = max(longest.get(prompt.group, 0), len(prompt.ids))
        number = {group: n for n, group in enumerate(longest)}

        def place(row: int) -> tuple[int, ...]:
            length, group = len(prompts[row].ids), prompts[row].group
            return (length,) if self._equal_lengths else (longest[group], number[group], length)

        batch: list[int] = []
        for row in sorted(range(len(prompts)), key=place):
            if batch and not self._fits([prompts[other] for other in (*batch, row)]):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _fits(self, rows: list[Prompt]) -> bool:
        lengths = {len(row.ids) for row in rows}
        tokens = len(rows) * (max(lengths) + max(row.max_new_tokens for row in rows))
        return tokens <= self.max_batch_tokens and not (self._equal_lengths and len(lengths) > 1)

    def _batch(self, rows: list[Prompt]) -> list[Continuation]:
        """Continue the rows; where memory runs out, in batches of at most half of them."""
        results = [Continuation() for _ in rows]
        try:
            self._continue(rows, results)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            message = str(error)
        else:
            return results
        gc.collect()  # outside the handler, whose traceback holds the tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = max(len(row.ids) + row.max_new_tokens for row in rows)
        if len(rows) == 1:
            raise GenerationError(
                f"no memory for a single prompt of {longest} tokens, new ones included "
                f"({message}): choose a smaller model or smaller passages, or load_in_4bit"
            )
        self.max_batch_tokens = min(self.max_batch_tokens, len(rows) // 2 * longest)
        logger.warning(
            "out of memory with %d rows of up to %d tokens: going on with half of them at a time; "
            "max_batch_tokens=%d avoids the attempt",
            len(rows),
            longest,
            self.max_batch_tokens,
        )
        return self(rows)

    def _continue(self, rows: list[Prompt], results: list[Continuation]) -> None:
        cache = DynamicCache(config=self._config)
        shared, mask = self._prefill_shared(rows, cache)
        ids, own = self._padded([row.ids[n:] for row, n in zip(rows, shared, strict=True)])
        mask = torch.cat([mask, own], dim=-1)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -own.shape[-1] :]
        alive = list(range(len(rows)))
        while alive:
            logprobs = self._step(ids, mask, positions, cache)
            chosen, best = logprobs.max(dim=-1)
            watched = logprobs[:, self._watch].tolist()
            for n, id_, logprob, step in zip(
                alive, best.tolist(), chosen.tolist(), watched, strict=True
            ):
                results[n].ids.append(id_)
                results[n].logprobs.append(logprob)
                results[n].watched.append(step)
            kept = [place for place, n in enumerate(alive) if not self._ended(rows[n], results[n])]
            if kept and len(kept) < len(alive):
                rest = torch.tensor(kept, device=mask.device)
                cache.reorder_cache(cast("torch.LongTensor", rest))
                best, mask, positions = best[rest], mask[rest], positions[rest]
            alive = [alive[place] for place in kept]
            ids = best.unsqueeze(-1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def _ended(self, row: Prompt, written: Continuation) -> bool:
        stopped = row.stop is not None and row.stop(written)  # asked of the last token too
        return stopped or complete(row, written, self.ends)

    def _prefill_shared(self, rows: list[Prompt], cache: DynamicCache) -> tuple[list[int], Tensor]:
        """Compute what the rows of each group begin with, once.

        Rows of unlike length get padding between this and their own part. Windows and recurrent
        states count that as text, so there only what needs no padding is shared. A rotation that
        depends on the longest row would be another one in the beginning: nothing is.

        Returns:
            How many tokens of each row are in the cache, and their mask; shape (rows, width).
        """
        groups = [[row.ids for row in own] for _, own in groupby(rows, key=lambda row: row.group)]
        shared = [_common(own) for own in groups]
        saved = sum(n * (len(own) - 1) for n, own in zip(shared, groups, strict=True))
        several = [n for n, own in zip(shared, groups, strict=True) if len(own) > 1]
        shared = [min(n, max(several, default=0)) for n in shared]
        of_rows = [n for n, own in zip(shared, groups, strict=True) for _ in own]
        own_lengths = {len(row.ids) - n for row, n in zip(rows, of_rows, strict=True)}
        padded = len(set(shared)) > 1 or len(own_lengths) > 1
        width = max(shared) + max(own_lengths) + max(row.max_new_tokens for row in rows)
        device = self._model.device
        if (
            saved < MIN_SAVED
            or min(shared) == 0
            or (padded and not has_full_attention(self._config))
            or self._rotation_varies
            or len(rows) * width > self.max_batch_tokens
        ):
            return [0] * len(rows), torch.empty(len(rows), 0, dtype=torch.long, device=device)
        ids, mask = self._padded([own[0][:n] for n, own in zip(shared, groups, strict=True)])
        self._step(ids, mask, (mask.cumsum(dim=-1) - 1).clamp(min=0), cache)
        place = [n for n, own in enumerate(groups) for _ in own]
        expanded = torch.tensor(place, device=device)
        cache.reorder_cache(cast("torch.LongTensor", expanded))
        return of_rows, mask[expanded]

    @property
    def _equal_lengths(self) -> bool:
        recurrent = not self._kinds <= {"full_attention", "sliding_attention", "chunked_attention"}
        return recurrent or self._rotation_varies

    @property
    def _rotation_varies(self) -> bool:
        rope = repr(getattr(self._config, "rope_parameters", None))  # one, or one per layer type
        return any(kind in rope for kind in ("'longrope'", "'dynamic'"))

    @property
    def _kinds(self) -> set[str]:
        return set(getattr(self._config, "layer_types", None) or ())

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


def complete(prompt: Prompt, written: Continuation, ends: frozenset[int]) -> bool:
    """Whether nothing follows any more, whatever the prompt's `stop` says."""
    return (
        written.ids[-1] in ends
        or len(written.ids) >= prompt.max_new_tokens
        or isnan(written.logprobs[-1])
    )


def _common(prompts: list[list[int]]) -> int:
    """How many tokens the prompts begin with alike, their last ones left out."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY)
