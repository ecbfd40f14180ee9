"""Relevance at the end of every sentence: small runs, and bases that cannot learn it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from openrag_core import ConfigError, Passage
from openrag_core.model import TransformersGenerator, load
from openrag_core.training import Row, train, write_rows
from openrag_core.training.curve import read_log
from tests.core.training.tiny import make_base, recipe


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_it_is_learned_as_much_as_it_weighs(tmp_path: Path, weight: float) -> None:
    texts = {True: "It rained. Ana did.", False: "It rained. Nobody did."}
    rows = [
        Row(
            "Who?",
            f"[Retrieval]<paragraph>{text}</paragraph>"
            + ("[Relevant]Ana[Fully supported][Utility:5]" if told else "[Irrelevant]"),
            relevance=((10, True), (len(text), told)),  # of which the responses say nothing
        )
        for told, text in [*texts.items()] * 16
    ]
    write_rows(rows, tmp_path / "rows.jsonl")
    base = make_base(tmp_path / "base")
    chosen = recipe(base, tmp_path / "rows.jsonl", epochs=12, relevance=weight)
    done = train(chosen, tmp_path / "run", device="cpu")
    assert done is not None
    assert done.plan.tokens == 12 * sum(len(row.ids) + 2 * weight for row in done.rows.rows)
    loaded, tokenizer = load(done.model, device="cpu")
    generator = TransformersGenerator(loaded, tokenizer)
    passages = [Passage("1", text) for text in ("It rained.", texts[True], texts[False])]
    ((before, gold, other),) = generator.judge(["Who?"], [passages])
    assert (before > 0.5) == bool(weight)
    assert other < 0.5 < gold
    losses = [line.get("relevance", 0.0) for line in read_log(tmp_path / "run") if "loss" in line]
    assert losses[-1] < 0.2 * losses[0] if weight else losses == [0.0] * len(losses)


def test_a_run_goes_on_with_the_same_judgements_alone(tmp_path: Path) -> None:
    def run(*, relevant: bool, resume: bool) -> None:
        output = "[Retrieval]<paragraph>It rained.</paragraph>[Irrelevant]"
        write_rows([Row("Who?", output, relevance=((10, relevant),))] * 8, tmp_path / "rows.jsonl")
        chosen = recipe(base, tmp_path / "rows.jsonl", epochs=1)
        train(chosen, tmp_path / "run", resume=resume, device="cpu")

    base = make_base(tmp_path / "base")
    run(relevant=False, resume=False)
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(ConfigError, match="begun with other rows"):
        run(relevant=True, resume=True)


def test_a_base_that_does_not_see_everything_cannot_close_a_paragraph_twice(
    tmp_path: Path,
) -> None:
    folder = make_base(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": 8,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    row = Row(
        "Who?", "[Retrieval]<paragraph>It rained.</paragraph>[Irrelevant]", "", ((10, False),)
    )
    write_rows([row], tmp_path / "rows.jsonl")
    plain = replace(row, relevance=())
    write_rows([plain], tmp_path / "plain.jsonl")
    for learned, held_out in (("rows", []), ("plain", [str(tmp_path / "rows.jsonl")])):
        chosen = recipe(folder, tmp_path / f"{learned}.jsonl", validation=held_out)
        with pytest.raises(ConfigError, match=r"close a paragraph several times.*relevance: 0"):
            train(chosen, tmp_path / "run", device="cpu")
