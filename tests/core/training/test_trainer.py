"""core/openrag_core/training/losses.py, trainer.py: the loss, the balance, what is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import (
    FalconConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    TrainingArguments,
)

from openrag_core import CheckpointError
from openrag_core.model import upcycle
from openrag_core.model.attention import has_full_attention
from openrag_core.training.encoding import IGNORED, Encoded
from openrag_core.training.losses import balance_loss, batch_losses, reply_weights
from openrag_core.training.trainer import (
    Collate,
    OpenRAGTrainer,
    put_trained_state,
    trained_state,
)
from tests.core.model.tiny import dense, wake

ROWS = [
    Encoded([1, 5, 6, 7, 8, 9], [IGNORED, IGNORED, 6, IGNORED, 8, 9]),
    Encoded([1, 5, 6, 7], [IGNORED, IGNORED, IGNORED, 7]),
]


def test_shorter_rows_are_padded_and_neither_seen_nor_learned() -> None:
    batch = Collate(pad_id=0)(ROWS)
    assert batch["input_ids"][1].tolist() == [1, 5, 6, 7, 0, 0]
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 4]
    assert batch["labels"][1].tolist() == [IGNORED] * 3 + [7] + [IGNORED] * 2


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_the_loss_is_that_over_every_position(family: str) -> None:
    model = upcycle(dense(family), num_experts=4, adapter_dim=3)
    wake(model)
    batch = Collate(pad_id=0)(ROWS)
    loss, _, router_logits = batch_losses(model, batch, router_logits=True)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(loss, expected)
    assert [tuple(one.shape) for one in router_logits] == [(12, 4)] * 2


CLOSED_TWICE = [
    Encoded([1, 5, 6, 7, 8, 9], [IGNORED] * 4 + [8, 9], range(2, 4), ((3, 11), (4, 12))),
    Encoded([1, 5, 6, 7], [IGNORED, IGNORED, IGNORED, 7], range(2, 3), ((3, 11),)),
    ROWS[0],
]
"""Token 8 of the first row, and 7 of the second, close the paragraph."""


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_what_is_said_of_a_part_is_what_is_said_of_it_alone(family: str, autocast: bool) -> None:
    model = upcycle(dense(family), num_experts=4, adapter_dim=3)
    wake(model)
    batch = Collate(pad_id=0)(CLOSED_TWICE)
    plain = Collate(pad_id=0)([replace(row, relevance=()) for row in CLOSED_TWICE])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
        made = batch_losses(model, batch, router_logits=False)
        without = batch_losses(model, plain, router_logits=False)
        alone = [
            functional.cross_entropy(
                model(input_ids=torch.tensor([[*row.ids[:read], row.ids[row.text.stop]]]))
                .logits[0, -1:]
                .float(),
                torch.tensor([token]),
            ).item()
            for row in CLOSED_TWICE
            for read, token in row.relevance
        ]
    first, second, third = alone
    near = 2e-2 if autocast else 1e-5
    assert made.relevance == pytest.approx({11: first + third, 12: second}, rel=near)
    torch.testing.assert_close(made.response, without.response, rtol=near, atol=near)
    assert without.relevance == {}


def test_judgements_are_learned() -> None:
    model = upcycle(dense(), num_experts=4, adapter_dim=3)
    losses = batch_losses(model, Collate(pad_id=0)(CLOSED_TWICE), router_logits=False)
    losses.relevance[11].backward()
    moved = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    assert {"base.model.layers.0.self_attn.q_proj.weight", "base.lm_head.weight"} <= moved


def test_both_replies_weigh_alike_over_the_rows() -> None:
    weights = reply_weights(CLOSED_TWICE)
    assert weights == pytest.approx({11: 3 / (2 * 2), 12: 3 / 2})
    assert reply_weights(ROWS) == {}


def test_a_step_is_the_same_however_it_is_split(tmp_path: Path) -> None:
    model = upcycle(dense(), num_experts=4, adapter_dim=3).train()
    wake(model)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    weights = {11: 5.0, 12: 0.5}

    def loss(rows: list[Encoded], passes: int) -> float:
        trainer = OpenRAGTrainer(model=model, args=arguments, balance=0, relevance=weights, top_k=2)
        trainer.current_gradient_accumulation_steps = passes  # as Trainer does before each step
        batch = Collate(pad_id=0)(rows)
        made = trainer.compute_loss(model, batch, num_items_in_batch=labels)
        assert isinstance(made, torch.Tensor)
        return made.item()

    rows = [*CLOSED_TWICE, ROWS[1]]
    labels = sum(label != IGNORED for row in rows for label in row.labels)
    whole = loss(rows, 1)
    assert loss(rows[:2], 2) + loss(rows[2:], 2) == pytest.approx(whole, rel=1e-5)
    made = batch_losses(model, Collate(pad_id=0)(rows), router_logits=False)
    judged = (5.0 * made.relevance[11] + 0.5 * made.relevance[12]) / len(rows)
    assert whole == pytest.approx((made.response / labels + judged).item(), rel=1e-5)
    model.eval()
    assert loss(rows, 2) == pytest.approx(whole, rel=1e-5)


def test_a_corpus_may_end_without_an_end_token() -> None:
    batch = Collate(pad_id=0)([Encoded([1, 5, 6], [IGNORED, 5, 6], range(1, 3)), *CLOSED_TWICE])
    assert batch["input_ids"][0].tolist() == [1, 5, 6, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("config", "full"),
    [
        (LlamaConfig(), True),
        (FalconConfig(), True),
        (FalconConfig(alibi=True), False),
        (MistralConfig(sliding_window=8), False),
    ],
)
def test_bases_that_count_places_do_not_see_by_mask_alone(
    config: PreTrainedConfig, full: bool
) -> None:
    assert has_full_attention(config) is full


def test_marks_have_no_part_in_the_balance() -> None:
    batch = Collate(pad_id=0)(CLOSED_TWICE)
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 4, 6]
    assert batch["input_ids"].shape[1] == 8


def test_even_routing_costs_least() -> None:
    mask = torch.ones(2, 4)
    even = torch.zeros(8, 4)
    even[range(8), [n % 4 for n in range(8)]] = 9.0
    even[range(8), [(n + 1) % 4 for n in range(8)]] = 9.0
    collapsed = torch.tensor([9.0, 9.0, 0.0, 0.0]).expand(8, 4)
    assert balance_loss([even], 2, mask).item() == pytest.approx(2.0, abs=1e-2)
    assert balance_loss([collapsed], 2, mask).item() == pytest.approx(4.0, abs=1e-2)
    both = balance_loss([even, collapsed], 2, mask)
    assert both.item() == pytest.approx(3.0, abs=1e-2)


def test_layers_that_collapse_apart_do_not_hide_each_other() -> None:
    one = torch.tensor([9.0, 9.0, 0.0, 0.0]).expand(8, 4)
    other = torch.tensor([0.0, 0.0, 9.0, 9.0]).expand(8, 4)
    assert balance_loss([one, other], 2, torch.ones(2, 4)).item() == pytest.approx(4.0, abs=1e-2)


def test_padding_is_not_counted() -> None:
    logits = torch.tensor([[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0]] * 2)
    mask = torch.tensor([[1, 0], [1, 0]])
    assert balance_loss([logits], 2, mask).item() == pytest.approx(4.0, abs=1e-2)


def test_the_balance_moves_the_routers() -> None:
    torch.manual_seed(0)
    model = upcycle(dense(), num_experts=4, adapter_dim=3)
    wake(model)
    batch = Collate(pad_id=0)(ROWS)
    *_, router_logits = batch_losses(model, batch, router_logits=True)
    balance_loss(router_logits, 2, batch["attention_mask"]).backward()
    routers = [p for name, p in model.named_parameters() if "router" in name]
    assert all(p.grad is not None and p.grad.abs().max() > 1e-4 for p in routers)


def test_what_is_trained_comes_back() -> None:
    model = upcycle(dense(), num_experts=4, adapter_dim=3)
    model.requires_grad_(requires_grad=False)
    router = model.base.model.layers[0].mlp.router.weight.requires_grad_(True)
    state = {name: tensor.clone() for name, tensor in trained_state(model).items()}
    assert [tuple(tensor.shape) for tensor in state.values()] == [(4, 32)]
    with torch.no_grad():
        router.zero_()
    put_trained_state(model, state)
    assert torch.equal(router, next(iter(state.values())))
    with pytest.raises(CheckpointError, match=r"holds no .*layers\.0\.mlp\.router\.weight"):
        put_trained_state(model, {})
