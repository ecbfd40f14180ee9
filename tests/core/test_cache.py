"""core/openrag_core/cache.py: nothing that was put is lost."""

from pathlib import Path

import pytest

from openrag_core.cache import JsonCache


@pytest.mark.parametrize(
    "text",
    ["plain", "é", "line\nbreak", "a\u2028b", "a\u2029b", "a\x85b", "\x0c", "half \ud83d"],
)
def test_every_text_is_there_after_opening_again(tmp_path: Path, text: str) -> None:
    file = tmp_path / "folder" / "cache.jsonl"
    JsonCache(file).put({"said": text}, "model", text)
    JsonCache(file).put(2, "another")
    again = JsonCache(file)
    assert again.get("model", text) == {"said": text}
    assert again.get("another") == 2
    assert again.get("nothing") is None


@pytest.mark.parametrize("line", ["5", "null", "[[1], 2]", '["key"]', "{", "{}"])
def test_a_line_of_somebody_else_costs_itself_alone(tmp_path: Path, line: str) -> None:
    file = tmp_path / "cache.jsonl"
    JsonCache(file).put("one", "a")
    with file.open("a", encoding="utf-8") as out:
        out.write(f"\n{line}\n")
    JsonCache(file).put("two", "b")
    again = JsonCache(file)
    assert [again.get(part) for part in "ab"] == ["one", "two"]


def test_a_line_that_was_cut_within_a_character_costs_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "cache.jsonl"
    cache = JsonCache(file)
    cache.put("one", "a")
    cache.put("zw\u00f6lf", "b")
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index("\u00f6".encode()) + 1])
    JsonCache(file).put("three", "c")
    again = JsonCache(file)
    assert [again.get(part) for part in "abc"] == ["one", None, "three"]
