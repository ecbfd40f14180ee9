"""core/openrag_core/reranking/cross_encoder.py, on a tiny random model in a local folder."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from openrag_core import CheckpointError, Passage, Reranker
from openrag_core.reranking.cross_encoder import CrossEncoderReranker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cross-encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bridge", "ferry", "when", "opened"]
    tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(words)})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=1.0,
    )
    config.num_labels = 1
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_passages_are_ordered_by_their_probability(folder: Path) -> None:
    reranker = CrossEncoderReranker(folder, device="cpu")
    assert isinstance(reranker, Reranker)
    passages = [Passage(id=word, text=word) for word in ("bridge", "ferry", "opened bridge")]
    one, none, other = reranker.rerank(["when"] * 3, [passages, [], passages[:1]], 2)
    scores = [passage.rerank_score or 0.0 for passage in one]
    assert len(one) == 2
    assert none == []
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    alone = {p.id: p.rerank_score for p in reranker.rerank(["when"], [passages], 3)[0]}
    assert other[0].rerank_score == pytest.approx(alone["bridge"])


def test_half_a_character_fails_no_question(folder: Path) -> None:
    passages = [Passage(id="half", text="bridge \ud83d"), Passage(id="whole", text="bridge \ufffd")]
    (ranked,) = CrossEncoderReranker(folder, device="cpu").rerank(["when"], [passages], 2)
    assert ranked[0].rerank_score == pytest.approx(ranked[1].rerank_score)


def test_a_folder_that_is_no_cross_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no cross-encoder"):
        CrossEncoderReranker(tmp_path)
