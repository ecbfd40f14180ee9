"""The order in which rows are learned, fixed before the first step.

Rows of like length share a batch, so that little is padding; which rows meet, and the order of the
batches, is drawn. A run that is resumed needs only its step to go on exactly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

_POOL = 64  # batches that are sorted together: enough to pad little, few enough to mix


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows, in which order."""

    order: list[int]
    """Numbers of rows; consecutive ones make a batch."""
    steps: int
    """Of the optimiser."""
    tokens: int
    """In all those rows, padding left out."""
    padding: float
    """Share of the tokens computed that is padding, in [0, 1)."""


def plan(
    lengths: Sequence[int],
    *,
    batch_size: int,
    batches_per_step: int,
    epochs: float,
    max_tokens: int | None,
    seed: int,
) -> Plan:
    """Draw the order.

    Args:
        lengths: Of the rows, in tokens; not empty.
        batch_size: Rows that are padded to the same length.
        batches_per_step: Over all devices and accumulated passes.
        epochs: How often each row is seen.
        max_tokens: Ends the run earlier or later than `epochs` would, after the first step that
            reaches it.
        seed: Of the draw.
    """
    per_step = batch_size * batches_per_step
    order: list[int] = []
    tokens = computed = 0
    batches = _batches(lengths, batch_size, seed)
    while len(order) < epochs * len(lengths) if max_tokens is None else tokens < max_tokens:
        for _ in range(batches_per_step):
            batch = next(batches)
            order += batch
            tokens += sum(lengths[n] for n in batch)
            computed += len(batch) * max(lengths[n] for n in batch)
    return Plan(order, len(order) // per_step, tokens, 1 - tokens / computed)


def _batches(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Full batches without end; where an epoch leaves a rest, the next one's first rows fill it."""
    rng = random.Random(seed)
    rows = _epochs(len(lengths), rng)
    remaining = len(lengths)
    while True:
        full = -(-remaining // size) * size
        pool = list(islice(rows, min(full, size * _POOL)))
        remaining -= len(pool)
        while remaining <= 0:
            remaining += len(lengths)
        pool.sort(key=lengths.__getitem__)
        batches = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


def _epochs(rows: int, rng: random.Random) -> Iterator[int]:
    """Every row once, then every row once in another order, and so on."""
    while True:
        drawn = list(range(rows))
        rng.shuffle(drawn)
        yield from drawn
