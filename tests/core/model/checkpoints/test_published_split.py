"""model/checkpoints/published_split.py: what the released training leaves, put together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from openrag_core import CheckpointError, ConfigError
from openrag_core.model import OpenRAGForCausalLM, load, load_split, upcycle
from openrag_core.model.checkpoints.published import published_tensors
from openrag_core.model.layer import OpenRAGMLP
from tests.core.model.tiny import SIZES, wake

PREFIX = "base_model.model."
LAYER = f"{PREFIX}model.layers.1."
ROUTER = f"{LAYER}mlp.moe_adapter.router.weight"
UP = f"{LAYER}mlp.moe_adapter.experts.expert_2.adapter_up.weight"
LORA = f"{LAYER}self_attn.q_proj.lora_B.weight"
ROWS = f"{PREFIX}lm_head.base_layer.weight"
TARGETS = ["embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj"]
TARGETS += ["gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[5, 9, 17, 33, 440, 455]])  # the last two are of the sixteen added tokens
Change = Callable[[Any], Any]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
]


def train(folder: Path, tokenizer: PreTrainedTokenizerBase, *, tied: bool) -> OpenRAGForCausalLM:
    """Write a base and what training it leaves; returns the model with its LoRA unmerged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = SIZES | {"vocab_size": len(tokenizer) - 16, "tie_word_embeddings": tied}
        dense = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
        dense.save_pretrained(folder / "base")
        dense.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        lora: Any = get_peft_model(dense, LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS))
        for name, tensor in lora.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(tensor, std=0.2)
    lora.save_pretrained(folder / "split" / "adapter_model")
    file = folder / "split" / "adapter_model" / "adapter_config.json"
    edit_json(file, lambda c: c.update(base_model_name_or_path=str(folder / "base")))
    model = upcycle(dense, num_experts=4, top_k=2, adapter_dim=3)
    wake(model)
    experts = {f"{PREFIX}{k}": v for k, v in published_tensors(model).items() if "adapter" in k}
    torch.save(experts, folder / "split" / "moe_model.bin")
    tokenizer.save_pretrained(folder / "split")
    return model


def edit_json(file: Path, change: Change) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(file: Path, change: Change) -> None:
    pickled = file.suffix == ".bin"
    tensors: dict[str, Tensor] = torch.load(file) if pickled else load_file(file)
    change(tensors)
    if pickled:
        torch.save(tensors, file)
    else:
        save_file(tensors, file)


@pytest.fixture
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    words: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return words


@pytest.fixture
def trained(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> OpenRAGForCausalLM:
    return train(tmp_path, tokenizer, tied=False)


@pytest.mark.parametrize("tied", [False, True])
def test_it_computes_what_was_trained(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, tied: bool
) -> None:
    expected = train(tmp_path, tokenizer, tied=tied)(IDS).logits
    model, words = load(tmp_path / "split", dtype="float32")
    assert isinstance(model, OpenRAGForCausalLM)
    torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=1e-5)
    assert model.config.reflection_trained
    assert not model.config.tie_word_embeddings
    assert not model.training
    assert words.get_vocab() == tokenizer.get_vocab()
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_what_no_file_says_can_be_given(tmp_path: Path, trained: OpenRAGForCausalLM) -> None:
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    model, _ = load_split(tmp_path / "split", tmp_path / "elsewhere", top_k=1, scaling=1.0)
    for module in trained.modules():
        if isinstance(module, OpenRAGMLP):
            module.top_k, module.scaling = 1, 1.0
    torch.testing.assert_close(model(IDS).logits, trained(IDS).logits, atol=1e-5, rtol=1e-5)
    assert (model.config.num_experts, model.config.adapter_dim) == (4, 3)
    with pytest.raises(ConfigError, match=r"\[1, 4\].*got 5"):
        load_split(tmp_path / "split", tmp_path / "elsewhere", top_k=5)


def test_other_tensors_beside_the_experts_are_taken(
    tmp_path: Path, trained: OpenRAGForCausalLM
) -> None:
    norm = trained.base.model.norm.weight.data
    norm.fill_(0.5)
    edit_tensors(
        tmp_path / "split" / "moe_model.bin",
        lambda t: t.update({f"{PREFIX}model.norm.weight": norm}),
    )
    model, _ = load_split(tmp_path / "split")
    torch.testing.assert_close(model(IDS).logits, trained(IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_pickled_lora_is_read_alike(tmp_path: Path, trained: OpenRAGForCausalLM) -> None:
    file = tmp_path / "split" / "adapter_model" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    model, _ = load_split(tmp_path / "split")
    torch.testing.assert_close(model(IDS).logits, trained(IDS).logits, atol=1e-5, rtol=1e-5)


def test_ids_are_never_guessed(
    tmp_path: Path, trained: OpenRAGForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "split" / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer_config\.json"):
        load(tmp_path / "split")
    model, words = load_split(tmp_path / "split", tokenizer=tokenizer)
    assert words is tokenizer
    torch.testing.assert_close(model(IDS).logits, trained(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("split/moe_model.bin", lambda t: t.pop(UP), r"lacks model.*expert_2\.adapter_up.*\(32, 3"),
        ("split/moe_model.bin", lambda t: t.clear(), r"no tensor \*\.mlp\.moe_adapter\.router"),
        (
            "split/moe_model.bin",
            lambda t: t.update({ROUTER: torch.ones(5, 32)}),
            r"model\.layers\.1.*router\.weight has shape \(5, 32\); expected \(4, 32\)",
        ),
        (
            "split/moe_model.bin",
            lambda t: t.update(strange=torch.ones(2)),
            r"strange of shape \(2,\) belongs to no layer",
        ),
        ("split/moe_model.bin", lambda t: t.update(step=7), "'step' is a int, not a tensor"),
        (
            "split/adapter_model/adapter_model.safetensors",
            lambda t: t.pop(LORA),
            r"lacks .*q_proj\.lora_B\.weight of shape \(32, 2\)",
        ),
        (
            "split/adapter_model/adapter_model.safetensors",
            lambda t: t.pop(ROWS),  # sixteen of them are nowhere else
            r"lacks .*lm_head\.base_layer\.weight of shape \(456, 32\)",
        ),
        (
            "split/adapter_model/adapter_model.safetensors",
            lambda t: t.update({LORA: torch.ones(32, 3)}),
            r".*q_proj\.lora_B\.weight has shape \(32, 3\); expected \(32, 2\)",
        ),
        ("base/model.safetensors", lambda t: t.pop("model.norm.weight"), r"lacks model\.norm\.w"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_file(
    tmp_path: Path, where: str, change: Change, message: str
) -> None:
    edit_tensors(tmp_path / where, change)
    with pytest.raises(CheckpointError, match=f"{where}: {message}"):
        load(tmp_path / "split")


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        (
            "split/adapter_model/adapter_config.json",
            lambda c: [c.clear(), c.update(peft_type="IA3")],
            "peft_type is .*IA3.*expected 'LORA'",
        ),
        (
            "split/adapter_model/adapter_config.json",
            lambda c: c.update(target_modules=["query"]),
            "does not fit the model .*query",
        ),
        (
            "split/adapter_model/adapter_config.json",
            lambda c: c.update(base_model_name_or_path=None),
            "names no base_model_name_or_path",
        ),
        ("base/config.json", lambda c: c.update(model_type="mistral"), "model_type is 'mistral'"),
        (
            "base/config.json",
            lambda c: c["rope_parameters"].update(rope_theta=5e5),
            r"rope_parameters is .*500000\.0.* computes only .*10000\.0",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_its_file(
    tmp_path: Path, where: str, change: Change, message: str
) -> None:
    edit_json(tmp_path / where, change)
    with pytest.raises(CheckpointError, match=f"{where}: {message}"):
        load(tmp_path / "split")


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    "where",
    [
        "split/moe_model.bin",
        "split/adapter_model/adapter_model.safetensors",
        "split/adapter_model/adapter_config.json",
        "base/config.json",
        "base/model.safetensors",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / where).write_bytes((tmp_path / where).read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=f"{where}: (damaged|no configuration)"):
        load(tmp_path / "split")
    if "split/adapter" in where:
        (tmp_path / where).unlink()
        with pytest.raises(CheckpointError, match=f"{where}: (damaged|missing)"):
            load(tmp_path / "split")


@pytest.mark.usefixtures("trained")
def test_a_pickle_of_something_else_is_refused_and_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("code of the checkpoint was run",))

    for content, message in ((Evil(), "damaged"), ([torch.ones(2)], "holds a list")):
        torch.save(content, tmp_path / "split" / "moe_model.bin")
        with pytest.raises(CheckpointError, match=rf"moe_model\.bin: {message}"):
            load(tmp_path / "split")
