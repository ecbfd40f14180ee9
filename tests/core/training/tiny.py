"""A tiny dense model that can read letters, and rows to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from openrag_core.training import LoRA, Mixture, Recipe, Row, write_rows

NAMES = ("Ana", "Ben", "Eva", "Tom", "Ida")


def make_base(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """A dense checkpoint over bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {c: n for n, c in enumerate(letters, 3)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    words.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
        model.to(dtype).save_pretrained(folder)
    return folder


def make_rows(file: Path, number: int = 96) -> Path:
    """Rows of different lengths."""
    write_rows(
        (
            Row(
                "Who?",
                f"[Retrieval]<paragraph>T\n{'It rained. ' * (n % 5)}{NAMES[n % 5]} did.</paragraph>"
                f"[Relevant]{NAMES[n % 5]}[Fully supported][Utility:5]",
            )
            if n % 4
            else Row("Hi", f"[No Retrieval]{NAMES[n % 5]}[Utility:5]")
            for n in range(number)
        ),
        file,
    )
    return file


def recipe(base: Path, rows: Path, **changed: object) -> Recipe:
    """Thirty steps of a small mixture."""
    settings: dict[str, object] = {
        "base": str(base),
        "rows": [str(rows)],
        "mixture": Mixture(num_experts=4, adapter_dim=8, scaling=1.0),
        "lora": LoRA(rank=16),
        "epochs": 2.5,
        "batch_size": 8,
        "learning_rate": 2e-2,
        "bf16": False,
        "log_every": 1,
        "save_every": 10,
    }
    return Recipe.model_validate(settings | changed)
