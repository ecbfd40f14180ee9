"""core/openrag_core/model/upcycle.py: any dense decoder, the same function, then its own format."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, add_reflection_tokens, upcycle
from openrag_core.reflection import TOKENS
from tests.core.model.tiny import FAMILIES, SIZES, dense, wake
from tests.core.model.words import tokenizer

IDS = torch.tensor([[5, 9, 17, 33, 65, 100], [7, 3, 90, 12, 44, 20]])
SMALL = {"num_experts": 4, "top_k": 2, "adapter_dim": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_upcycled_model_computes_what_the_dense_one_does(family: str) -> None:
    model = dense(family)
    expected = model(IDS).logits
    upcycled = upcycle(model, **SMALL)
    assert torch.equal(upcycled(IDS).logits, expected)
    wake(upcycled)
    assert not torch.equal(upcycled(IDS).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_saved_and_loaded_without_loss(family: str, tmp_path: Path) -> None:
    model = upcycle(dense(family), **SMALL)
    wake(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, OpenRAGForCausalLM)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert (loaded.config.num_experts, loaded.config.num_experts_per_tok) == (4, 2)
    assert not loaded.config.reflection_trained
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied == FAMILIES[family].tie_word_embeddings


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_and_beams_change_nothing(family: str) -> None:
    model = upcycle(dense(family), **SMALL)
    wake(model)
    mask = torch.ones_like(IDS)
    generate = cast("Any", model).generate
    cached = generate(IDS, attention_mask=mask, max_new_tokens=6, do_sample=False)
    plain = IDS
    for _ in range(6):
        step = model(plain, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
        plain = torch.cat([plain, step], dim=1)
    length = min(cached.shape[1], plain.shape[1])
    ended = (plain[:, :length] == 2).cummax(dim=1).values.roll(1, dims=1)
    ended[:, 0] = False
    assert torch.equal(cached[:, :length][~ended], plain[:, :length][~ended])
    beams = generate(IDS, attention_mask=mask, max_new_tokens=3, num_beams=3)
    assert beams.shape[0] == 2


def test_router_logits_come_on_request() -> None:
    model = upcycle(dense(), **SMALL)
    output = model(IDS, output_router_logits=True)
    assert [logits.shape for logits in output.router_logits] == [(12, 4)] * 2
    assert torch.equal(output.logits, model(IDS).logits)
    as_tuple = model(IDS, output_router_logits=True, return_dict=False)
    assert len(as_tuple[-1]) == 2


def test_gradients_reach_routers_and_experts_with_checkpointing() -> None:
    model = upcycle(dense(), **SMALL)
    wake(model)
    model.activation_checkpointing_enable()
    model.train()
    model(IDS, labels=IDS).loss.backward()
    layer = model.base.model.layers[0].mlp
    for weight in (layer.router.weight, layer.experts.down, layer.experts.up):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_after_its_vocabulary_has_grown(family: str) -> None:
    model = upcycle(dense(family), **SMALL)
    model.resize_token_embeddings(140, mean_resizing=False)
    model.train()
    model(IDS, labels=IDS).loss.backward()
    assert model.get_decoder().layers[0].mlp.experts.up.grad.abs().sum() > 0


def test_transformers_own_trainer_finds_its_way(tmp_path: Path) -> None:
    model = upcycle(dense(), **SMALL)
    rows = [{"input_ids": row, "labels": row, "attention_mask": [1] * 6} for row in IDS.tolist()]
    settings = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(model, settings, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_padding_is_found_without_a_mask_as_in_the_dense_model(family: str) -> None:
    padded = torch.tensor([[0, 0, 5, 9, 17], [7, 3, 90, 12, 44]])
    base: Any = dense(family)
    expected = base.generate(padded, max_new_tokens=4, do_sample=False)
    upcycled: Any = upcycle(base, **SMALL)
    assert torch.equal(upcycled.generate(padded, max_new_tokens=4, do_sample=False), expected)


def test_a_model_without_a_dense_mlp_is_refused() -> None:
    with pytest.raises(CheckpointError, match="GPT2LMHeadModel"):
        upcycle(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 2, "top_k": 3}, r"\[1, 2\].*got 3"),
        ({"top_k": 0}, "got 0"),
        ({"num_experts": 0}, "got 0, 512"),
        ({"adapter_dim": 0}, "got 8, 0"),
        ({"scaling": float("nan")}, "above 0; got nan"),
        ({"scaling": 0.0}, "above 0; got 0.0"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        upcycle(dense(), **settings)


def embedding(model: OpenRAGForCausalLM) -> Tensor:
    weight: Any = model.get_input_embeddings().weight
    return cast("Tensor", weight)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma2"])
def test_reflection_tokens_are_added_once(family: str) -> None:
    model, words = upcycle(dense(family), **SMALL), tokenizer()
    ids = IDS + 20  # none of the rows that the new tokens take
    before = model(ids).logits
    pieces = words("[Fully supported]")["input_ids"]
    mean = embedding(model)[pieces].mean(dim=0)
    add_reflection_tokens(model, words)
    add_reflection_tokens(model, words)
    assert words.pad_token == "<pad>"
    assert len({words.get_added_vocab()[token] for token in TOKENS}) == 15
    assert all(len(words(token)["input_ids"]) == 1 for token in TOKENS)
    row = words.convert_tokens_to_ids("[Fully supported]")
    torch.testing.assert_close(embedding(model)[row], mean)
    assert model.config.get_text_config().vocab_size == len(embedding(model)) == 128
    torch.testing.assert_close(model(ids).logits[..., 30:], before[..., 30:])


def test_what_the_tokenizer_drops_leaves_no_holes() -> None:
    model = upcycle(dense(), **SMALL)
    backend = Tokenizer(models.BPE({"s": 2}, []))  # unknown pieces are dropped
    words = PreTrainedTokenizerFast(tokenizer_object=backend)
    add_reflection_tokens(model, words)
    assert not embedding(model).isnan().any()


def test_a_tokenizer_that_has_the_tokens_already_still_gets_its_rows() -> None:
    words = tokenizer()
    add_reflection_tokens(upcycle(dense(), **SMALL), words)
    small = LlamaConfig(**SIZES | {"vocab_size": 3})
    model = upcycle(AutoModelForCausalLM.from_config(small), **SMALL)
    add_reflection_tokens(model, words)
    assert len(embedding(model)) == len(words) == 19


def test_a_full_vocabulary_grows() -> None:
    model = upcycle(AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | {"vocab_size": 3})))
    words = tokenizer()
    add_reflection_tokens(model, words)
    assert len(embedding(model)) == len(words) == 19
    assert model(torch.tensor([[len(words) - 1]])).logits.shape[-1] == len(words)
