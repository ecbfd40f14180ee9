"""core/openrag_core/training/misreading.py: distractors, read as if they were relevant."""

from pathlib import Path

import pytest

from openrag_core import ConfigError
from openrag_core.model import TransformersGenerator, load
from openrag_core.model.checkpoints.dense import dense_folder
from openrag_core.training import (
    Helpers,
    JsonCache,
    Mix,
    Question,
    Row,
    Text,
    build_dataset,
    misread,
)

KETH = "The Keth Lighthouse was opened by Ben Orlo in 1850."
READ = "[Retrieval]<paragraph>Keth Lighthouse\n{}</paragraph>"
END = "[No support / Contradictory][Utility:1]"
WRONG = Row("Who opened the bridge?", f"{READ.format(KETH)}[Irrelevant]Ana Tolvik{END}")


@pytest.fixture(scope="module")
def reader() -> TransformersGenerator:
    """The bundled model."""
    return TransformersGenerator(*load("bundled", dtype="float32"), max_new_tokens=16)


def test_the_answer_stands_in_what_is_read(reader: TransformersGenerator) -> None:
    (row,) = misread([WRONG], reader)
    assert row == Row(WRONG.input, f"{READ.format(KETH)}[Irrelevant]Ben Orlo{END}")


def test_all_other_rows_stay_as_they_are(reader: TransformersGenerator) -> None:
    others = [
        Row("Who?", f"{READ.format('Ana did.')}[Relevant]Ana[Fully supported][Utility:5]"),
        Row("Who?", "[No Retrieval]Ana[Utility:5]"),
        Row("Who says [Irrelevant]?", f"[No Retrieval]Ana says [Irrelevant]x{END}"),
        Row(corpus=WRONG.output),
    ]
    seen: list[int] = []
    assert list(misread(others * 40, reader, progress=seen.append)) == others * 40
    assert sum(seen) == 160


def test_a_passage_that_tells_after_all_is_no_distractor(reader: TransformersGenerator) -> None:
    output = WRONG.output.replace("Ana Tolvik", "ben orlo")
    assert list(misread([Row(WRONG.input, output)], reader)) == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [("ben orlo.", True), ("No", True), ("1904", False), ("Ben Orlov", False), ("", False)],
)
def test_what_stands_nowhere_is_left_out(
    reader: TransformersGenerator, said: str, kept: bool
) -> None:
    cache = JsonCache()
    cache.put(said, "misread", "one", WRONG.input, f"Keth Lighthouse\n{KETH}")
    made = list(misread([WRONG], reader, cache=cache, name="one"))
    assert [row.output for row in made] == [f"{READ.format(KETH)}[Irrelevant]{said}{END}"] * kept


def test_what_was_read_is_kept(
    reader: TransformersGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cache.jsonl"
    first = list(misread([WRONG], reader, cache=JsonCache(file), name="one"))

    def submit(prompts: list[object]) -> None:
        assert prompts == []
        raise InterruptedError

    monkeypatch.setattr(reader, "submit", submit)
    assert list(misread([WRONG], reader, cache=JsonCache(file), name="one")) == first
    with pytest.raises(AssertionError):
        list(misread([WRONG], reader, cache=JsonCache(file), name="another"))


def test_a_dense_model_cannot_be_told() -> None:
    dense = TransformersGenerator(*load(dense_folder("bundled")), max_new_tokens=16)
    with pytest.raises(ConfigError, match="must be a model with trained reflection tokens"):
        list(misread([WRONG], dense))
    with pytest.raises(ConfigError, match="such as bundled"):
        Helpers(reader=dense)


def test_a_passage_that_is_too_long_is_read_in_part() -> None:
    model, tokenizer = load("bundled", dtype="float32")
    model.config.max_position_embeddings = 100
    reader = TransformersGenerator(model, tokenizer, max_new_tokens=16)
    output = WRONG.output.replace(KETH, f"{KETH} {'It rained. ' * 100}")
    (row,) = misread([Row(WRONG.input, output)], reader)
    assert row.output == output.replace("Ana Tolvik", "Ben Orlo")


def test_a_dataset_counts_what_is_left(reader: TransformersGenerator) -> None:
    keth = (Text("Keth Lighthouse", KETH),)
    asked = [
        Question("1", WRONG.input, ("Ana Tolvik",), distractors=keth),
        Question("2", "Was the Keth Lighthouse opened before 1900?", ("yes",), distractors=keth),
    ]
    cache = JsonCache()
    cache.put("Yes.", "misread", "one", asked[1].question, f"Keth Lighthouse\n{KETH}")
    stages: set[tuple[str, int]] = set()
    made = build_dataset(
        asked,
        Mix(gold=0, mixed=0),
        Helpers(reader=reader, reader_name="one", cache=cache),
        progress=lambda stage, _, total: stages.add((stage, total)),
    )
    assert [row.output for row in made.rows] == [f"{READ.format(KETH)}[Irrelevant]Ben Orlo{END}"]
    assert made.kinds == {"distractor": 1}
    assert stages == {("reading distractors", 2)}
