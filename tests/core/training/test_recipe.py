"""core/openrag_core/training/recipe.py: one file decides a run."""

from pathlib import Path

import pytest

from openrag_core import ConfigError
from openrag_core.training import LoRA, Mixture, Recipe, read_recipe, write_recipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


def test_a_recipe_comes_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = Recipe(rows=["nobody/rows:moe"], mixture=None, lora=LoRA(rank=4, dora=True))
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_paths_are_those_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    file = tmp_path / "recipe.yaml"
    file.write_text("base: bundled\nrows: [rows.jsonl, nobody/rows]\n", encoding="utf-8")
    assert read_recipe(file).rows == [str(tmp_path / "rows.jsonl"), "nobody/rows"]
    assert read_recipe(file).base == "bundled"


def test_the_bundled_base_is_never_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bundled").mkdir()
    file = tmp_path / "recipe.yaml"
    file.write_text("rows: [missing.jsonl]\n", encoding="utf-8")
    assert read_recipe(file).base == "bundled"
    assert read_recipe(file).rows == [str(tmp_path / "missing.jsonl")]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_the_shipped_recipes_are_valid(file: Path) -> None:
    recipe = read_recipe(file)
    assert isinstance(recipe.mixture, Mixture) != file.stem.startswith("dense")


def test_recipes_are_shipped() -> None:
    bases = {read_recipe(file).base.partition("/")[0] for file in RECIPES}
    assert bases == {"bundled", "meta-llama", "Qwen"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [x]\nlearning_rte: 1", r"no field learning_rte\. Fields of a recipe: base"),
        ("base: bundled", r"rows is missing"),
        ("", r"rows is missing"),
        ("rows: []", r"rows: List should have at least 1 item"),
        ("rows: [x]\nmixture: {top_k: 0}", r"mixture\.top_k: .* greater than or equal to 1"),
        ("rows: [x]\nwarmup: 1", r"warmup: Input should be less than 1, got 1"),
        ("rows: [x]\nschedule: wild", r"schedule: Input should be 'linear'.*, got 'wild'"),
        ("rows: [x]\nseed: -1", r"seed: Input should be greater than or equal to 0, got -1"),
        ("rows: [x]\nseed: 4294967296", r"seed: Input should be less than 4294967296"),
        ("rows: [x]\nepochs: .inf", r"epochs: Input should be a finite number, got inf"),
        ("rows: [x]\nmixture: {scaling: .nan}", r"mixture\.scaling: Input should be a finite"),
        ("- rows", r"the file: Input should be a valid dictionary.*, got \['rows'\]"),
        ("rows: [", r"cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_recipe(file)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml")
