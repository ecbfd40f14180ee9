"""core/openrag_core/cli/models.py: openrag upcycle | convert, as typed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    MixtralConfig,
    PreTrainedConfig,
    T5Config,
)

from openrag_core.model import load
from openrag_core.model.checkpoints.bundled import bundled_base
from tests.conftest import DOCUMENTS
from tests.core.model.checkpoints.test_adapter import make_base
from tests.core.model.tiny import SIZES, assert_equal
from tests.core.test_cli import Run, openrag

__all__ = ["openrag"]  # a fixture

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = ("--experts", "4", "--adapter-dim", "3")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


def test_upcycled_bundled_weights_answer(openrag: Run) -> None:
    made = openrag("upcycle", "bundled", "mixture", "--adapter-dim", "16", "--adapter-only")
    assert made.code == 0
    assert "8 experts of width 16, 2 per token; reflection tokens not trained yet" in made.out
    assert "next: openrag ask QUESTION --model mixture" in made.out
    openrag("index", str(DOCUMENTS))
    question = "Who opened the Velora Bridge?"
    asked = openrag("ask", question, "--model", "mixture", "--top-k", "1")
    assert "Ana Tolvik" in asked.out
    dense = openrag("ask", question, "--top-k", "1", "--model", str(bundled_base()))
    assert dense.out == asked.out


def test_a_whole_checkpoint_is_the_default(openrag: Run, base: Path) -> None:
    assert openrag("upcycle", str(base), "out", *SMALL, "--top-k", "1").code == 0
    model, words = load("out", dtype="auto")
    config = model.config
    assert (config.num_experts, config.num_experts_per_tok, config.adapter_dim) == (4, 1, 3)
    assert (config.scaling, model.dtype) == (0.25, torch.float32)
    assert "[Fully supported]" in words.get_added_vocab()
    again = openrag("upcycle", str(base), "out")
    assert again.code == 1
    assert "error: out is there already: remove it, or choose another name" in again.err


def test_the_bundled_model_becomes_a_whole_one(openrag: Run) -> None:
    made = openrag("convert", "bundled", "out")
    assert made.code == 0
    assert "8 experts of width 32, 2 per token; reflection tokens trained" in made.out
    assert_equal(load("out", dtype="auto")[0], load("bundled", dtype="auto")[0])


def test_a_merged_lora_is_not_lost_in_an_adapter(openrag: Run) -> None:
    made = openrag("convert", "bundled", "out", "--layout", "adapter")
    assert made.code == 1
    assert "an adapter-only checkpoint would lose it" in " ".join(made.err.split())


def test_an_interrupted_command_says_so_and_leaves_nothing(
    openrag: Run, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", interrupt)
    result = openrag("upcycle", str(base), "out", *SMALL)
    assert (result.code, result.err.strip()) == (130, "interrupted")
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_a_moved_base_is_found_for_reading_and_writing(openrag: Run, base: Path) -> None:
    openrag("upcycle", str(base), "one", *SMALL, "--adapter-only")
    base.rename(base.with_name("moved"))
    assert openrag("convert", "one", "two", "--layout", "adapter").code == 1
    moved = ("--base", "moved")
    assert openrag("convert", "one", "two", "--layout", "adapter", *moved).code == 0
    assert_equal(load("two", dtype="auto")[0], load("one", base="moved", dtype="auto")[0])


def test_layouts_are_converted_without_loss(openrag: Run, base: Path) -> None:
    openrag("upcycle", str(base), "whole", *SMALL)
    assert (
        openrag("convert", "whole", "adapter", "--layout", "adapter", "--base", str(base)).code == 0
    )
    assert openrag("convert", "adapter", "again", "--base", str(base)).code == 0
    assert openrag("convert", "whole", "published", "--layout", "published").code == 0
    whole = load("whole", dtype="auto")[0]
    for folder in ("adapter", "again", "published"):
        assert_equal(load(folder, dtype="auto")[0], whole)
    converted = openrag("convert", str(FIXTURES / "tiny-a"), "native")
    assert "8 experts of width 16, 2 per token; reflection tokens trained" in converted.out
    native, published = (load(name, dtype="auto")[0] for name in ("native", FIXTURES / "tiny-a"))
    assert_equal(native, published)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upcycle", "base", "out", "--top-k", "9"), "top_k must be in [1, 8]"),
        (("upcycle", str(FIXTURES / "tiny-a"), "out"), "is a mixture of experts already"),
        (("upcycle", "nowhere/none", "out"), "no checkpoint 'nowhere/none'"),
        (("convert", "base", "out"), "LlamaForCausalLM is no mixture of experts"),
        (
            ("convert", str(FIXTURES / "tiny-a"), "out", "--layout", "adapter"),
            "needs a base (--base)",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    openrag: Run,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = openrag(*arguments)
    assert result.code == 1
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert [path.name for path in base.parent.iterdir()] == ["base"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (T5Config(vocab_size=8, d_model=8, num_layers=1, num_heads=1), "'t5' is no decoder"),
        (
            BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1),
            "no decoder layers",
        ),
        (MixtralConfig(**SIZES, num_local_experts=2), "is a mixture of experts already"),
    ],
)
def test_a_base_that_is_no_dense_decoder_is_refused(
    openrag: Run, base: Path, config: PreTrainedConfig, message: str
) -> None:
    kind: Any = AutoModel if config.is_encoder_decoder else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(base)
    result = openrag("upcycle", str(base), "out")
    assert result.code == 1
    assert message in " ".join(result.err.split())
