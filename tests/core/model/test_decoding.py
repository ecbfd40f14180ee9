"""core/openrag_core/model/decoding.py: batches equal single rows, and nothing is made up."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from openrag_core.model import upcycle
from openrag_core.model.decoding import Continuation, GreedyDecoder
from tests.core.model.tiny import FAMILIES, dense, wake

PROMPTS = [[5, 9, 17], [7, 3, 90, 12, 44, 20, 8], [33], [60, 61, 62, 63, 64]]
WATCH = [40, 41, 2]


BEGINNING = [50, 51, 52, 53, 54, 55]
SHARING = [BEGINNING + prompt for prompt in PROMPTS]


def mixture(family: str) -> PreTrainedModel:
    upcycled = upcycle(dense(family), num_experts=4, adapter_dim=3)
    wake(upcycled)
    return upcycled


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return mixture("llama")


def by_the_book(
    model: PreTrainedModel, prompt: list[int], limit: int, banned: list[int]
) -> Continuation:
    """One row, one step at a time, the whole sequence again each time."""
    ids: list[int] = []
    logprobs, watched = [], []
    while len(ids) < limit and 2 not in ids:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        logits[banned] = -torch.inf
        steps = logits.log_softmax(dim=-1)
        ids.append(int(steps.argmax()))
        logprobs.append(steps.max().item())
        watched.append([steps[id_].item() for id_ in WATCH])
    return Continuation(ids, logprobs, watched)


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 8192])
@pytest.mark.parametrize("banned", [[], [77, 40]])
def test_every_row_is_what_it_would_be_alone(
    model: PreTrainedModel, max_batch_tokens: int, banned: list[int]
) -> None:
    decode = GreedyDecoder(
        model, pad_id=0, watch=WATCH, banned=banned, max_batch_tokens=max_batch_tokens
    )
    got = decode(PROMPTS, 9)
    for prompt, continuation in zip(PROMPTS, got, strict=True):
        expected = by_the_book(model, prompt, 9, banned)
        assert continuation.ids == expected.ids
        assert continuation.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        for step, expected_step in zip(continuation.watched, expected.watched, strict=True):
            assert step == pytest.approx(expected_step, abs=1e-4)


@pytest.mark.parametrize(
    "prompts", [SHARING, [[*BEGINNING, 7, 3], [*BEGINNING, 9, 4]], [BEGINNING] * 3]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_beginning_changes_nothing(family: str, prompts: list[list[int]]) -> None:
    """Also where the attention sees only a window that is shorter than the prompts."""
    own = mixture(family)
    for prompt, continuation in zip(prompts, GreedyDecoder(own, pad_id=0)(prompts, 7), strict=True):
        expected = by_the_book(own, prompt, 7, [])
        assert continuation.ids == expected.ids
        assert continuation.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_the_shared_beginning_is_computed_once(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    forward = model.forward

    def spy(**inputs: Any) -> Any:  # noqa: ANN401
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", spy)
    GreedyDecoder(model, pad_id=0)(SHARING, 1)
    assert shapes == [(1, 6), (4, 7)]


def test_a_checkpoints_own_generation_settings_are_not_applied(model: PreTrainedModel) -> None:
    plain = GreedyDecoder(model, pad_id=0)(PROMPTS, 9)
    settings = model.generation_config
    poisoned = {"repetition_penalty": 9.0, "num_beams": 3, "min_new_tokens": 9, "do_sample": True}
    model.generation_config = GenerationConfig(**poisoned, eos_token_id=2)
    try:
        assert GreedyDecoder(model, pad_id=0)(PROMPTS, 9) == plain
    finally:
        model.generation_config = settings


def test_a_row_stops_at_its_end_token(model: PreTrainedModel) -> None:
    end = GreedyDecoder(model, pad_id=0)([PROMPTS[0]], 6)[0].ids[3]
    model.generation_config.eos_token_id = [2, end]
    try:
        rows = GreedyDecoder(model, pad_id=0)(PROMPTS, 6)
    finally:
        model.generation_config.eos_token_id = 2
    assert rows[0].ids.index(end) == len(rows[0].ids) - 1
    assert all(len(row.ids) == len(row.logprobs) for row in rows)


def test_batches_honour_the_bound(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = GreedyDecoder(model, pad_id=0, max_batch_tokens=24)
    original = decode._continue

    def spy(prompts: list[list[int]], batch: list[Continuation], limit: int) -> None:
        sizes.append(len(prompts) * (max(map(len, prompts)) + limit))
        original(prompts, batch, limit)

    monkeypatch.setattr(decode, "_continue", spy)
    decode(PROMPTS, 4)
    assert sizes == [2 * (3 + 4), 2 * (7 + 4)]  # a third row would make 27 in the first


def test_nothing_in_nothing_out(model: PreTrainedModel) -> None:
    assert GreedyDecoder(model, pad_id=0)([], 4) == []
