"""Which experts of the bundled model serve which task and which kind of tokens.

OPENRAG_TEST_DATA=... python benchmarks/routing.py [PICTURE]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from squad import rows

from openrag_core.evaluation.plots import png, routing_map
from openrag_core.evaluation.routing import Usage, balance, expert_usage
from openrag_core.model import OpenRAGForCausalLM, TransformersGenerator, load
from openrag_core.prompts import encode, opening, paragraph, token_id
from openrag_core.reflection import END_PARAGRAPH, PARAGRAPH, RETRIEVAL

QUESTIONS = 64
TASKS = {"squad_v11_dev": "one passage", "hotpotqa_distractor_devB": "chain"}
Stretches = Sequence[tuple[str, Sequence[int]]]


def main() -> None:
    """Count, and draw."""
    model, tokenizer = load("bundled")
    assert isinstance(model, OpenRAGForCausalLM)
    generator = TransformersGenerator(model, tokenizer, max_new_tokens=32)
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}

    def texts(task: str, name: str) -> Iterator[Stretches]:
        for row in rows(task)[:QUESTIONS]:
            asked = encode(tokenizer, opening(tokenizer, row["question"]))
            marks = [token_id(tokenizer, one) for one in (RETRIEVAL, PARAGRAPH, END_PARAGRAPH)]
            read = encode(tokenizer, [paragraph(row["gold"])])
            prompt = [*asked, *marks[:2], *read, marks[2]]
            written = _continued(generator, prompt)
            yield [
                (f"{name}: question", asked),
                (f"{name}: marks", marks[:2]),
                (f"{name}: passage", read),
                (f"{name}: marks", marks[2:]),
                *((f"{name}: {_kind(id_, special)}", [id_]) for id_ in written),
            ]

    usage: dict[str, Usage] = {}
    for task, name in TASKS.items():
        usage |= expert_usage(model, texts(task, name))
    print(json.dumps({name: round(value, 3) for name, value in balance(usage).items()}, indent=1))
    if sys.argv[1:]:
        Path(sys.argv[1]).write_bytes(png(routing_map(usage)))


def _kind(id_: int, special: set[int]) -> str:
    return "reflection" if id_ in special else "answer"


def _continued(generator: TransformersGenerator, prompt: list[int]) -> list[int]:
    from openrag_core.model.decoding import Prompt  # noqa: PLC0415  (an internal of the package)

    (written,) = generator.submit([Prompt(prompt, 32)]).result()
    return written.ids


if __name__ == "__main__":
    main()
