"""core/openrag_core/model/decoding.py: batches equal single rows, and nothing is made up."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from openrag_core import GenerationError
from openrag_core.model import upcycle
from openrag_core.model.decoding import MIN_SAVED, Continuation, GreedyDecoder, Prompt
from tests.core.model.tiny import FAMILIES, dense, wake

PROMPTS = [[5, 9, 17], [7, 3, 90, 12, 44, 20, 8], [33], [60, 61, 62, 63, 64]]
WATCH = [40, 41, 2]
BEGINNING = [50 + n % 9 for n in range(MIN_SAVED)]
OTHER = [*reversed(BEGINNING[:40])]


def mixture(family: str) -> PreTrainedModel:
    upcycled = upcycle(dense(family), num_experts=4, adapter_dim=3)
    wake(upcycled)
    return upcycled


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return mixture("llama")


@pytest.fixture
def shapes(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the ids that go through the model."""
    seen: list[tuple[int, ...]] = []
    forward = model.forward

    def spy(**inputs: Any) -> Any:  # noqa: ANN401
        seen.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", spy)
    return seen


def ask(ids: Sequence[Sequence[int]], limit: int = 9, group: object = None) -> list[Prompt]:
    return [Prompt(list(row), limit, group) for row in ids]


def by_the_book(model: PreTrainedModel, prompt: Prompt, banned: Sequence[int] = ()) -> Continuation:
    """One row, one step at a time, the whole sequence again each time."""
    ids: list[int] = []
    logprobs, watched = [], []
    while len(ids) < prompt.max_new_tokens and 2 not in ids:
        with torch.no_grad():
            logits = model(torch.tensor([prompt.ids + ids]), use_cache=False).logits[0, -1]
        logits[list(banned)] = -torch.inf
        steps = logits.log_softmax(dim=-1)
        ids.append(int(steps.argmax()))
        logprobs.append(steps.max().item())
        watched.append([steps[id_].item() for id_ in WATCH])
    return Continuation(ids, logprobs, watched)


def assert_alike(got: Continuation, expected: Continuation) -> None:
    assert got.ids == expected.ids
    assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    for step, expected_step in zip(got.watched, expected.watched, strict=True):
        assert step == pytest.approx(expected_step, abs=1e-4)


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 8192])
@pytest.mark.parametrize("banned", [[], [77, 40]])
def test_every_row_is_what_it_would_be_alone(
    model: PreTrainedModel, max_batch_tokens: int, banned: list[int]
) -> None:
    decode = GreedyDecoder(
        model, pad_id=0, watch=WATCH, banned=banned, max_batch_tokens=max_batch_tokens
    )
    prompts = ask(PROMPTS)
    for prompt, continuation in zip(prompts, decode(prompts), strict=True):
        assert_alike(continuation, by_the_book(model, prompt, banned))


def mixed() -> Iterator[Prompt]:
    """Three questions, of which two have several passages, with limits of their own."""
    yield from ask([BEGINNING + own for own in PROMPTS], 7, "a")
    yield from ask([OTHER + own for own in PROMPTS[:3]], 4, "b")
    yield Prompt([9, 8, 7], 5, "c")


CASES = {
    "one group": ask([BEGINNING + own for own in PROMPTS], 7),
    "equal lengths": ask([[*BEGINNING, 7, 3], [*BEGINNING, 9, 4]], 7),
    "equal rows": ask([BEGINNING] * 3, 7),
    "several groups": list(mixed()),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_beginning_changes_nothing(family: str, case: str) -> None:
    """Also where the attention sees only a window, or is linear, and the prompts are longer."""
    own = mixture(family)
    prompts = CASES[case]
    decode = GreedyDecoder(own, pad_id=0, watch=WATCH)
    for prompt, continuation in zip(prompts, decode(prompts), strict=True):
        assert_alike(continuation, by_the_book(own, prompt))


def test_what_a_group_begins_with_is_computed_once(
    model: PreTrainedModel, shapes: list[tuple[int, ...]]
) -> None:
    decode = GreedyDecoder(model, pad_id=0)
    decode(ask([BEGINNING + own for own in PROMPTS], 1))
    assert shapes == [(1, 64), (4, 7)]
    shapes.clear()
    decode([Prompt(prompt.ids, 1, prompt.group) for prompt in mixed()])
    assert shapes == [(3, 64), (8, 7)]  # "c" waits with all but its last token
    shapes.clear()
    decode(ask([BEGINNING[:20] + own for own in PROMPTS], 1))
    assert shapes == [(4, 27)]  # too little to be worth a pass of its own


def test_unlike_lengths_meet_in_a_window_only_where_nothing_is_padded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for family, expected in {
        "gemma3-window": [(4, 71)],
        "qwen3.5-linear": [(1, 65), (1, 67), (1, 69), (1, 71)],
        "phi3-longrope": [(1, 65), (1, 67), (1, 69), (1, 71)],
    }.items():
        own = mixture(family)
        seen: list[tuple[int, ...]] = []
        forward = own.forward

        def spy(
            forward: Any = forward,  # noqa: ANN401
            seen: list[tuple[int, ...]] = seen,
            **inputs: Any,
        ) -> Any:  # noqa: ANN401
            seen.append(tuple(inputs["input_ids"].shape))
            return forward(**inputs)

        monkeypatch.setattr(own, "forward", spy)
        GreedyDecoder(own, pad_id=0)(ask([BEGINNING + row for row in PROMPTS], 1))
        assert seen == expected


def test_a_checkpoints_own_generation_settings_are_not_applied(model: PreTrainedModel) -> None:
    plain = GreedyDecoder(model, pad_id=0)(ask(PROMPTS))
    settings = model.generation_config
    poisoned = {"repetition_penalty": 9.0, "num_beams": 3, "min_new_tokens": 9, "do_sample": True}
    model.generation_config = GenerationConfig(**poisoned, eos_token_id=2)
    try:
        assert GreedyDecoder(model, pad_id=0)(ask(PROMPTS)) == plain
    finally:
        model.generation_config = settings


def test_a_row_stops_at_its_end_token(model: PreTrainedModel) -> None:
    end = GreedyDecoder(model, pad_id=0)(ask(PROMPTS[:1], 6))[0].ids[3]
    model.generation_config.eos_token_id = [2, end]
    try:
        rows = GreedyDecoder(model, pad_id=0)(ask(PROMPTS, 6))
    finally:
        model.generation_config.eos_token_id = 2
    assert rows[0].ids.index(end) == len(rows[0].ids) - 1
    assert all(len(row.ids) == len(row.logprobs) for row in rows)


def test_rows_that_end_leave_the_batch(
    model: PreTrainedModel, shapes: list[tuple[int, ...]]
) -> None:
    limits = [3, 1, 2, 3]
    prompts = [Prompt(row, limit) for row, limit in zip(PROMPTS, limits, strict=True)]
    whole = GreedyDecoder(model, pad_id=0)(ask(PROMPTS, 3))
    shapes.clear()
    got = GreedyDecoder(model, pad_id=0)(prompts)
    assert shapes == [(4, 7), (3, 1), (2, 1)]
    assert [row.ids for row in got] == [
        row.ids[:limit] for row, limit in zip(whole, limits, strict=True)
    ]


def test_a_row_stops_where_its_caller_says(model: PreTrainedModel) -> None:
    whole = GreedyDecoder(model, pad_id=0)(ask(PROMPTS))
    prompts = [Prompt(row, 9, stop=lambda written: len(written.ids) == 2) for row in PROMPTS[:2]]
    got = GreedyDecoder(model, pad_id=0)([*prompts, *ask(PROMPTS[2:])])
    assert [row.ids for row in got[:2]] == [row.ids[:2] for row in whole[:2]]
    assert [row.ids for row in got[2:]] == [row.ids for row in whole[2:]]


def test_batches_honour_the_bound(model: PreTrainedModel, shapes: list[tuple[int, ...]]) -> None:
    GreedyDecoder(model, pad_id=0, max_batch_tokens=24)(ask(PROMPTS, 4))
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert prefills == [(2, 3), (2, 7)]  # a third row would make 3 x (5 + 4) in the first


def test_beginnings_of_unlike_length_are_not_shared_past_the_bound(
    model: PreTrainedModel, shapes: list[tuple[int, ...]]
) -> None:
    """Side by side, the longest beginning and the longest rest make rows that nobody asked for."""
    long, short = [5, 6] * 60, [7, 8] * 30
    prompts = ask([[*long, n] for n in range(9, 13)], 2, "a")
    prompts += ask([[*short, n, *[3, 4] * 25] for n in range(9, 13)], 2, "b")
    longest = max(len(prompt.ids) for prompt in prompts) + 2
    GreedyDecoder(model, pad_id=0, max_batch_tokens=8 * longest)(prompts)
    assert shapes[0] == (8, 121)
    shapes.clear()
    GreedyDecoder(model, pad_id=0)(prompts)
    assert shapes[:2] == [(2, 120), (8, 51)]


def test_a_rotation_that_depends_on_the_longest_row_is_given_rows_of_one_length() -> None:
    """Beyond 90 tokens this one rotates otherwise, for whatever is in the batch."""
    own = mixture("phi3-longrope")
    prompts = ask([[5, 9] * 20, [7, 3] * 60], 3)
    prompts += ask([[*[8, 4] * 40, n, *[6, 2] * 20] for n in (11, 12)], 3, "alike up to there")
    decode = GreedyDecoder(own, pad_id=0, watch=WATCH)
    for prompt, continuation in zip(prompts, decode(prompts), strict=True):
        assert_alike(continuation, by_the_book(own, prompt))


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("could not create a primitive"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_where_memory_runs_out_half_goes_on(
    model: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: RuntimeError,
) -> None:
    expected = GreedyDecoder(model, pad_id=0)(ask(PROMPTS))
    forward = model.forward
    sizes = []

    def cramped(**inputs: Any) -> Any:  # noqa: ANN401
        sizes.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 2 and len(sizes) > 3:  # in the middle of the answers
            raise error
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", cramped)
    decode = GreedyDecoder(model, pad_id=0)
    with caplog.at_level(logging.WARNING):
        got = decode(ask(PROMPTS))
    for one, other in zip(got, expected, strict=True):
        assert_alike(one, other)
    assert "out of memory with 4 rows of up to 16 tokens: going on with half" in caplog.text
    assert decode.max_batch_tokens == 32
    assert sum(size > 2 for size in sizes) == 4  # three that went well, and one that did not
    sizes.clear()
    decode(ask(PROMPTS))
    assert max(sizes) == 2  # nothing is tried twice


def test_a_single_prompt_that_memory_does_not_hold_is_refused(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(GenerationError, match=r"single prompt of 12 tokens.*smaller"):
        GreedyDecoder(model, pad_id=0)(ask(PROMPTS[:1]))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        GreedyDecoder(model, pad_id=0)(ask(PROMPTS))


def test_a_row_of_no_numbers_ends_and_hurts_no_other(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = GreedyDecoder(model, pad_id=0)(ask(PROMPTS))
    forward = model.forward

    def poisoned(**inputs: Any) -> Any:  # noqa: ANN401
        output = forward(**inputs)
        if len(inputs["input_ids"]) == len(PROMPTS):
            output.logits[0] = torch.nan
        return output

    monkeypatch.setattr(model, "forward", poisoned)
    got = GreedyDecoder(model, pad_id=0)(ask(PROMPTS))
    bad = [len(row.ids) == 1 and row.logprobs[0] != row.logprobs[0] for row in got]
    assert sum(bad) == 1
    for one, other, is_bad in zip(got, expected, bad, strict=True):
        if not is_bad:
            assert one.ids == other.ids


def test_nothing_in_nothing_out(model: PreTrainedModel) -> None:
    assert GreedyDecoder(model, pad_id=0)([]) == []
