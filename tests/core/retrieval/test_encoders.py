"""core/openrag_core/retrieval/encoders.py: BM25 worked by hand, and the real dense encoder."""

import json
from pathlib import Path

import pytest
import torch

from openrag_core import CheckpointError, ConfigError
from openrag_core.retrieval import SentenceTransformerEncoder
from openrag_core.retrieval.encoders import Bm25Encoder, average_length
from openrag_core.weights import ENCODER


def test_bm25_weights_are_those_of_the_formula() -> None:
    # "the" is a stop word; "bridges" and "bridge" share a stem: f = 2, 1; length 3.
    vector = Bm25Encoder(average_length=6.0).encode_passage("The bridge, bridges: opened")

    def weight(frequency: int) -> float:
        return frequency * 2.2 / (frequency + 1.2 * (1 - 0.75 + 0.75 * 3 / 6))

    assert sorted(vector.values) == pytest.approx([weight(1), weight(2)])


def test_questions_match_passages_term_by_term() -> None:
    bm25 = Bm25Encoder(average_length=6.0)
    passage = bm25.encode_passage("The bridge was opened in 1893.")
    question = bm25.encode_question("Who opened the bridges?")
    assert question.values == [1.0] * len(question.indices)
    assert len(set(question.indices) & set(passage.indices)) == 2


def test_the_average_length_counts_terms() -> None:
    assert average_length(["the bridge opened", "bridge bridge bridge bridge"]) == 3.0
    assert average_length(["the"]) == 1.0


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="BM25"):
        Bm25Encoder(6.0, language="klingon")


@pytest.fixture(scope="module")
def dense() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(ENCODER.locate())


def test_dense_vectors_are_near_where_meanings_are(dense: SentenceTransformerEncoder) -> None:
    texts = ["Who built the bridge?", "The constructor of the viaduct", "Cakes are not taken back"]
    vectors = torch.tensor(dense.encode(texts))
    assert vectors.shape == (3, dense.dimension) == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3), atol=1e-2, rtol=0)
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]


def test_bfloat16_keeps_the_directions() -> None:
    texts = ["Who built the bridge?", "Cakes are not taken back", "word " * 100]
    exact = SentenceTransformerEncoder(ENCODER.locate(), dtype="float32", device="cpu")
    small = SentenceTransformerEncoder(ENCODER.locate(), dtype="bfloat16", device="cpu")
    cosines = (torch.tensor(exact.encode(texts)) * torch.tensor(small.encode(texts))).sum(dim=-1)
    assert cosines.min() > 0.999


def test_token_vectors_are_unit_vectors(dense: SentenceTransformerEncoder) -> None:
    short, long = dense.encode_tokens(["bridge", "the bridge was opened"])
    assert short.shape == (3, 384)  # with the two special tokens
    assert len(long) > len(short)
    torch.testing.assert_close(long.norm(dim=-1), torch.ones(len(long)))


def test_nothing_in_nothing_out(dense: SentenceTransformerEncoder) -> None:
    assert dense.encode([]) == []
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
