"""core/openrag_core/settings.py: what fails late, or means something else, is refused at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openrag_core import ConfigError
from openrag_core.settings import Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard_number": -1}, "shard_number must be a whole number, at least 1; got -1"),
        ({"top_k": None}, "top_k must be a whole number; got None"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number; got True"),
        ({"chunk_size": "160"}, "chunk_size must be a whole number; got '160'"),
        ({"min_relevance": True}, "min_relevance must be a number; got True"),
        ({"speculative": "no"}, "speculative must be True or False; got 'no'"),
        ({"load_in_4bit": "false"}, "load_in_4bit must be True or False; got 'false'"),
        ({"encoder_backend": "openvimo"}, "must be one of torch, openvino; got 'openvimo'"),
        ({"question_prefix": None}, "question_prefix must be a text; got None"),
        ({"language": 3}, "language must be a text; got 3"),
        ({"search": {"mode": "dense"}}, r"search must be SearchOptions\(\.\.\.\); got"),
        ({"index": " "}, "index must be a path, got ' '"),
        ({"encoder_cache": ""}, "encoder_cache must be a path, got ''"),
        ({"base": ""}, "base must be a name or a folder, got ''"),
        ({"qdrant_url": ""}, "qdrant_url must not be empty: name one, or leave it out"),
        ({"tenant": ""}, "tenant must not be empty"),
    ],
)
def test_what_is_of_another_type_or_names_nothing_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)


def test_numbers_of_numpy_are_numbers() -> None:
    Settings(top_k=np.int64(5), min_support=np.float32(0.5))  # type: ignore[arg-type]


def test_what_torch_calls_a_device_and_a_map_of_them_will_do() -> None:
    settings = Settings(device=torch.device("cpu"), device_map={"": 0})  # type: ignore[arg-type]
    assert (settings.device, settings.device_map) == ("cpu", {"": 0})


def test_settings_may_be_added_to() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class More(Settings):
        stop_words: list[str] | None = None
        extra: Any = None

    assert More(stop_words=["a"], extra=1).stop_words == ["a"]
    with pytest.raises(ConfigError, match=r"stop_words must be list\(\.\.\.\); got 'a'"):
        More(stop_words="a")  # type: ignore[arg-type]


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    settings = Settings(
        index=Path("~/index"),
        encoder_cache="~/vectors.db",  # type: ignore[arg-type]
        model="~/model",
        base="~/base",
        reranker="maxsim + ~/ranker",
    )
    assert settings.index == Path("/home/ana/index")
    assert settings.encoder_cache == Path("/home/ana/vectors.db")
    assert (settings.model, settings.base) == ("/home/ana/model", "/home/ana/base")
    assert settings.reranker == "maxsim+/home/ana/ranker"
