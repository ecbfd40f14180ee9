"""Peak memory of what the other scripts time, each in a process of its own (Linux).

python benchmarks/memory.py
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from passages import NEW_TOKENS, one_by_one, prompts
from timing import save

from openrag_core.model import TransformersGenerator, load
from openrag_core.model.decoding import GreedyDecoder, Prompt

PASSAGES = 10
BATCHES = (1, 32)
LENGTH = 190


def main() -> None:
    """Print the table and save it, or measure what the argument names."""
    if len(sys.argv) > 1:
        _measure(sys.argv[1])
        return
    names = [f"{way} prefill {batch}" for batch in BATCHES for way in ("dense", "mixture")]
    names += [f"plain {PASSAGES} passages", f"ours {PASSAGES} passages", "draft 64 tokens"]
    rows: list[dict[str, Any]] = []
    for name in names:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded, peak = map(float, done.stdout.split())
        rows.append({"what": name, "loaded_mb": loaded, "peak_mb": peak})
        print(f"{name:20}  loaded {loaded:6.0f} MB  peak {peak:6.0f} MB  + {peak - loaded:5.0f}")
    save(__file__, rows, dtype="torch.bfloat16")


def _measure(name: str) -> None:
    model: Any
    model, tokenizer = load("bundled", dtype="bfloat16")
    model.generation_config.eos_token_id = None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    loaded = _peak_mb()
    match name.split():
        case ["plain", *_]:
            one_by_one(model, prompts(PASSAGES))
        case ["ours", *_]:
            watch = range(len(tokenizer) - 15, len(tokenizer))
            decode = GreedyDecoder(model, pad_id=0, watch=watch)
            decode([Prompt(ids, NEW_TOKENS) for ids in prompts(PASSAGES)])
        case ["draft", *_]:
            TransformersGenerator(model, tokenizer).draft(["Who wrote the Iliad?"])
        case [way, _, batch]:
            ids = torch.randint(20, 40_000, (int(batch), LENGTH))
            if way == "dense":
                for layer in model.get_decoder().layers:
                    layer.mlp = layer.mlp.dense
            with torch.inference_mode():
                model(input_ids=ids, logits_to_keep=1)
    print(loaded, _peak_mb())


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
