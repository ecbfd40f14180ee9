"""The embedded default generator: SmolLM2-135M-Instruct, upcycled once and kept in the cache."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from platformdirs import user_cache_dir
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from openrag_core.errors import CheckpointError
from openrag_core.model.upcycle import add_reflection_tokens, upcycle
from openrag_core.weights import GENERATOR

_NAME = f"{GENERATOR.module}-{GENERATOR.version}-experts8x32-v1"  # a new layout takes a new name


def cache_folder() -> Path:
    """Where converted weights are kept: $OPENRAG_CACHE, or the user's cache folder."""
    return Path(os.environ.get("OPENRAG_CACHE") or user_cache_dir("openrag"))


def bundled_folder() -> Path:
    """The checkpoint folder of the embedded default, converted on first use (about 15 s).

    Two processes may convert at the same time: each does so under a temporary name, and the first
    to finish wins.

    Raises:
        WeightsNotInstalledError: The package that holds the weights is not installed.
        CheckpointError: It cannot be converted, or the cache cannot be written.
    """
    folder = cache_folder() / _NAME
    if folder.is_dir():
        return folder
    gguf = GENERATOR.locate()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f"{_NAME}.") as temporary:
            _convert(gguf, Path(temporary) / _NAME)
            (Path(temporary) / _NAME).rename(folder)
    except Exception as error:  # a full disk makes the libraries raise anything
        if not folder.is_dir():
            raise CheckpointError(
                f"the bundled model cannot be kept in {folder.parent} ({error}): make room there, "
                "or set OPENRAG_CACHE to another folder"
            ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    dense = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = dense.config.to_dict()
    for stale in ("quantization_config", "_name_or_path", "dtype", "model_type"):
        settings.pop(stale, None)
    plain = LlamaForCausalLM(LlamaConfig(**settings))  # one read from GGUF refuses to be saved
    plain.load_state_dict(dense.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = upcycle(plain, num_experts=8, top_k=2, adapter_dim=32, scaling=0.25)
    add_reflection_tokens(model, tokenizer)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
