"""core/openrag_core/training/plan.py: every row in its turn, and little padding."""

from collections import Counter
from itertools import pairwise
from random import Random
from statistics import fmean

import pytest

from openrag_core.training.plan import Plan, plan

LENGTHS = [Random(number).randint(30, 400) for number in range(2000)]


def made(**changed: float | None) -> Plan:
    settings = {"batch_size": 10, "batches_per_step": 1, "epochs": 1, "max_tokens": None, "seed": 0}
    return plan(LENGTHS, **settings | changed)  # type: ignore[arg-type]


def test_every_row_is_seen_once_an_epoch() -> None:
    twice = made(epochs=2)
    assert Counter(twice.order) == Counter(dict.fromkeys(range(2000), 2))
    assert (twice.steps, twice.tokens) == (400, 2 * sum(LENGTHS))
    assert twice.order[:2000] != twice.order[2000:]


def test_a_rest_is_filled_by_the_next_epoch() -> None:
    lengths = LENGTHS[:1003]
    once = plan(lengths, batch_size=10, batches_per_step=1, epochs=1, max_tokens=None, seed=0)
    assert set(once.order) == set(range(1003))
    assert len(once.order) == 1010
    many = plan(lengths, batch_size=10, batches_per_step=1, epochs=10, max_tokens=None, seed=0)
    assert Counter(many.order) == Counter(dict.fromkeys(range(1003), 10))


def test_padding_is_counted_and_little() -> None:
    order = made().order
    batches = [order[start : start + 10] for start in range(0, len(order), 10)]
    computed = sum(10 * max(LENGTHS[n] for n in batch) for batch in batches)
    assert made().padding == pytest.approx(1 - sum(LENGTHS) / computed)
    assert made().padding < 0.1


def test_batches_are_in_no_order_of_length() -> None:
    order = made().order
    means = [fmean(LENGTHS[n] for n in order[start : start + 10]) for start in range(0, 2000, 10)]
    rising = sum(first < second for first, second in pairwise(means))
    assert 70 < rising < 130


def test_the_order_depends_on_the_seed_alone() -> None:
    assert made() == made()
    assert made(seed=1).order != made().order


def test_tokens_end_a_run_in_the_middle_of_an_epoch_or_after_many() -> None:
    short, long = made(max_tokens=50_000), made(max_tokens=2_000_000)
    assert 50_000 <= short.tokens < 50_000 + 10 * 400
    assert short.order == long.order[: len(short.order)]
    assert max(Counter(long.order).values()) == -(-2_000_000 // sum(LENGTHS))


def test_steps_are_whole() -> None:
    grouped = made(batches_per_step=3)
    assert len(grouped.order) == grouped.steps * 30


def test_fewer_rows_than_a_batch_are_enough() -> None:
    few = plan([3, 5], batch_size=4, batches_per_step=1, epochs=2, max_tokens=None, seed=0)
    assert sorted(few.order) == [0, 0, 1, 1]
    one = plan([3], batch_size=4, batches_per_step=2, epochs=1, max_tokens=None, seed=0)
    assert (one.order, one.steps) == ([0] * 8, 1)
