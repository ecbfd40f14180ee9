"""core/openrag_core/retrieval/encoders.py: the real dense encoder, and what remembers for it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from openrag_core import CheckpointError, ConfigError
from openrag_core.retrieval import CachedEncoder, SentenceTransformerEncoder
from openrag_core.weights import ENCODER
from tests.core.retrieval.conftest import LetterEncoder


@pytest.fixture(scope="module")
def dense() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(ENCODER.locate())


def test_dense_vectors_are_near_where_meanings_are(dense: SentenceTransformerEncoder) -> None:
    texts = ["Who built the bridge?", "The constructor of the viaduct", "Cakes are not taken back"]
    vectors = torch.tensor(dense.encode_passages(texts))
    assert vectors.shape == (3, dense.dimension) == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3), atol=1e-5, rtol=0)
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]


def test_bfloat16_keeps_the_directions() -> None:
    texts = ["Who built the bridge?", "Cakes are not taken back", "word " * 100]
    exact = SentenceTransformerEncoder(ENCODER.locate(), dtype="float32", device="cpu")
    small = SentenceTransformerEncoder(ENCODER.locate(), dtype="bfloat16", device="cpu")
    cosines = (
        torch.tensor(exact.encode_passages(texts)) * torch.tensor(small.encode_passages(texts))
    ).sum(dim=-1)
    assert cosines.min() > 0.999


def test_token_vectors_are_unit_vectors(dense: SentenceTransformerEncoder) -> None:
    short, long = dense.encode_tokens(["bridge", "the bridge was opened"])
    assert short.shape == (3, 384)  # with the two special tokens
    assert len(long) > len(short)
    torch.testing.assert_close(long.norm(dim=-1), torch.ones(len(long)))


def test_half_a_character_is_an_unknown_one(dense: SentenceTransformerEncoder) -> None:
    half, whole = dense.encode_tokens(["bridge \ud83d", "bridge \ufffd"])
    torch.testing.assert_close(half, whole)
    for encode in (dense.encode_passages, dense.encode_questions):
        (half_vector,), (vector,) = encode(["bridge \ud83d"]), encode(["bridge \ufffd"])
        assert half_vector == pytest.approx(vector)


def test_nothing_in_nothing_out(dense: SentenceTransformerEncoder) -> None:
    assert dense.encode_passages([]) == []
    assert dense.encode_tokens([]) == []


def test_the_name_tells_weights_apart(dense: SentenceTransformerEncoder, tmp_path: Path) -> None:
    assert dense.name.startswith("model@")
    for file in ENCODER.locate().iterdir():
        target = tmp_path / "model" / file.name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(file)
    weights = tmp_path / "model" / "model.safetensors"
    assert SentenceTransformerEncoder(tmp_path / "model").name == dense.name
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.unlink()
    weights.write_bytes(changed)
    assert SentenceTransformerEncoder(tmp_path / "model").name != dense.name


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no dense encoder"):
        SentenceTransformerEncoder(tmp_path)


def test_prefixes_are_encoded_and_told_by_the_name(dense: SentenceTransformerEncoder) -> None:
    prefixed = SentenceTransformerEncoder(
        ENCODER.locate(), question_prefix="query: ", passage_prefix="passage: "
    )
    assert prefixed.name == f"{dense.name} 'query: ' 'passage: '"
    alone = [{"question_prefix": "x"}, {"passage_prefix": "x"}]
    names = {SentenceTransformerEncoder(ENCODER.locate(), **one).name for one in alone}  # type: ignore[arg-type]
    assert len(names) == 2
    assert prefixed.encode_questions(["ferry"]) == dense.encode_questions(["query: ferry"])
    assert prefixed.encode_passages(["ferry"]) == dense.encode_passages(["passage: ferry"])


def test_openvino_gives_the_same_vectors() -> None:
    pytest.importorskip("openvino", reason="extra: fast")
    texts = ["Who built the bridge?", "word " * 90, "Cakes are not taken back"]
    exact = SentenceTransformerEncoder(ENCODER.locate(), dtype="float32", device="cpu")
    fast = SentenceTransformerEncoder(ENCODER.locate(), backend="openvino")
    assert fast.name == exact.name
    ours, theirs = (torch.tensor(one.encode_passages(texts)) for one in (fast, exact))
    assert (ours * theirs).sum(dim=-1).min() > 0.9999


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="torch, openvino"):
        SentenceTransformerEncoder(ENCODER.locate(), backend="jax")  # type: ignore[arg-type]


def test_what_was_encoded_is_remembered(tmp_path: Path, encoder: LetterEncoder) -> None:
    file = tmp_path / "cache" / "vectors.db"
    cached = CachedEncoder(encoder, file)
    first = cached.encode_passages(["a", "half a character \ud83d", "a"])
    assert encoder.encoded == 2
    assert first[0] == first[2] == pytest.approx(encoder.encode_passages(["a"])[0])
    encoder.encoded = 0
    again = CachedEncoder(encoder, file)
    assert (again.name, again.dimension) == (encoder.name, encoder.dimension)
    assert again.encode_passages(["half a character \ud83d", "a"]) == [first[1], first[0]]
    assert encoder.encoded == 0
    again.encode_questions(["a"])  # a question may be encoded otherwise
    CachedEncoder(LetterEncoder("others"), file).encode_passages(["a"])
    assert encoder.encoded == 1
    assert len(again.encode_passages([str(n) for n in range(1200)])) == 1200


def test_a_cache_that_somebody_else_holds_is_named(tmp_path: Path, encoder: LetterEncoder) -> None:
    file = tmp_path / "vectors.db"
    cached = CachedEncoder(encoder, file)
    cached.encode_passages(["a"])
    with closing(sqlite3.connect(file)) as other:
        other.execute("DROP TABLE vectors")
        other.commit()
    with pytest.raises(ConfigError, match=r"vectors\.db cannot be used as a cache of vectors"):
        cached.encode_passages(["b"])


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path, encoder: LetterEncoder) -> None:
    (tmp_path / "file").write_text("no database" * 100, encoding="utf-8")
    with pytest.raises(ConfigError, match="name another file"):
        CachedEncoder(encoder, tmp_path / "file")
