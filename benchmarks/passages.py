"""One question, K passages: all at once against the plain way, one `generate` after the other.

Both use the bundled model in the same dtype and write the same number of new tokens; the plain
way reads the scores of every step, as the released code does. Ratios are of medians in one run.

    python benchmarks/passages.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timing import save, side_by_side

from openrag_core.model import load
from openrag_core.model.decoding import GreedyDecoder, Prompt

PASSAGES = (1, 5, 10, 20)
LENGTH = 150
BEGINNING = 40  # of every prompt: the question and the template
NEW_TOKENS = 20


def main() -> None:
    """Print the table and save it."""
    model, tokenizer = load("bundled")
    model.generation_config.eos_token_id = None  # every row writes to the end
    decode = GreedyDecoder(model, pad_id=0, watch=range(len(tokenizer) - 15, len(tokenizer)))
    rows = []
    for passages in PASSAGES:
        asked = prompts(passages)
        plain, ours = side_by_side(
            partial(one_by_one, model, asked),
            partial(decode, [Prompt(ids, NEW_TOKENS) for ids in asked]),
        )
        rows.append({"passages": passages, "plain_s": plain, "ours_s": ours, "ratio": plain / ours})
        print(f"K={passages:2}  plain {plain:6.2f} s  ours {ours:5.2f} s  {plain / ours:.1f} times")
    save(__file__, rows, dtype=str(model.dtype))


def prompts(passages: int) -> list[list[int]]:
    """Random ids that begin alike."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(20, 40_000, (passages, BEGINNING + LENGTH), generator=generator)
    ids[:, :BEGINNING] = ids[0, :BEGINNING].clone()
    return [list(map(int, row)) for row in ids]


def one_by_one(model: Any, asked: list[list[int]]) -> None:  # noqa: ANN401
    """The plain way: the whole prompt each time, and the scores of every step."""
    for prompt in asked:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        for scores in output.scores:
            scores[0].float().log_softmax(dim=0)


if __name__ == "__main__":
    main()
