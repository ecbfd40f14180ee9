"""core/openrag_core/json_lines.py: what JSON can hold and a file cannot, and too much of it."""

from pathlib import Path

import pytest

from openrag_core import EvaluationError
from openrag_core.json_lines import read_json_lines, write_json_lines


def test_half_a_character_is_written_as_one_that_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert write_json_lines([{"text": "caf\ud83d"}], file, error=EvaluationError) == 1
    ((_, row),) = read_json_lines(file, error=EvaluationError)
    assert row == {"text": "caf\ufffd"}


def test_a_line_that_is_nested_too_deeply_is_refused_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n" + "[" * 100_000)
    with pytest.raises(EvaluationError, match=r"rows\.jsonl, line 2: no JSON"):
        list(read_json_lines(file, error=EvaluationError))
