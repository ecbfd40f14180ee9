"""core/openrag_core/retrieval/sparse.py: BM25 by hand, unspaced languages, a learned model."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from openrag_core import CheckpointError, ConfigError
from openrag_core.retrieval import Bm25Encoder, SpladeEncoder
from openrag_core.retrieval.store import SparseVector


def test_bm25_weights_are_those_of_the_formula() -> None:
    # "the" is a stop word; "bridges" and "bridge" share a stem: f = 2, 1; length 3.
    vector = Bm25Encoder(average_length=6.0).encode_passages(["The bridge, bridges: opened"])[0]

    def weight(frequency: int) -> float:
        return frequency * 2.2 / (frequency + 1.2 * (1 - 0.75 + 0.75 * 3 / 6))

    assert sorted(vector.values) == pytest.approx([weight(1), weight(2)])


def test_questions_match_passages_term_by_term() -> None:
    bm25 = Bm25Encoder(average_length=6.0)
    passage = bm25.encode_passages(["The bridge was opened in 1893."])[0]
    question = bm25.encode_questions(["Who opened the bridges?"])[0]
    assert question.values == [1.0] * len(question.indices)
    assert len(set(question.indices) & set(passage.indices)) == 2


def test_the_average_length_counts_terms() -> None:
    sample = ["the bridge opened", "bridge bridge bridge bridge"]
    assert Bm25Encoder().fit(sample) == {"average_length": 3.0}
    assert Bm25Encoder().fit(["the"]) == {"average_length": 1.0}
    assert Bm25Encoder(average_length=256).fit(sample) == {"average_length": 256}


def test_what_was_fitted_is_taken_up_again() -> None:
    fitted = Bm25Encoder()
    again = Bm25Encoder()
    texts = ["The bridge was opened in 1893.", "A ferry"]
    again.restore(fitted.fit(texts))
    assert again.encode_passages(texts) == fitted.encode_passages(texts)
    assert again.encode_passages(texts) != Bm25Encoder().encode_passages(texts)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="BM25"):
        Bm25Encoder("klingon")


@pytest.mark.parametrize(
    ("language", "passage", "question"),
    [
        ("korean", "라인강을 건너는 다리는 1893년에 개통되었다.", "다리가 언제 개통되었나?"),
        ("japanese", "橋は1893年に開通した。", "橋はいつ開通しましたか"),
        ("chinese", "这座桥于1893年通车。", "什么时候通车"),
    ],
)
def test_languages_without_spaces_match_by_pairs(
    language: str, passage: str, question: str
) -> None:
    def shared(encoder: Bm25Encoder) -> int:
        stored, asked = (
            encoder.encode_passages([passage])[0],
            encoder.encode_questions([question])[0],
        )
        return len(set(stored.indices) & set(asked.indices))

    pairs = Bm25Encoder(language)
    assert shared(pairs) >= 1
    assert shared(Bm25Encoder("english")) == 0
    ((year,),) = [pairs.encode_questions(["1893"])[0].indices]
    assert year in pairs.encode_passages([passage])[0].indices
    assert len(pairs.encode_questions(["橋"])[0].indices) == 1


@pytest.fixture
def splade(tmp_path: Path) -> Path:
    """A masked language model of random weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bridge", "ferry", "opened"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_learned_model_gives_its_terms(splade: Path) -> None:
    encoder = SpladeEncoder(splade, device="cpu")
    assert encoder.name.startswith(f"splade/{splade.name}@")
    assert not encoder.idf
    assert encoder.fit(["bridge"]) == {}
    encoder.restore({})
    one, other = encoder.encode_passages(["bridge opened", "ferry"])
    assert isinstance(one, SparseVector)
    assert one != other
    assert min(one.values) > 0
    assert max(one.indices) < 8
    (asked,) = encoder.encode_questions(["ferry"])
    assert asked.indices == other.indices
    assert asked.values == pytest.approx(other.values, rel=1e-5)
    assert encoder.encode_passages([]) == []


def test_a_folder_that_is_no_sparse_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no sparse encoder"):
        SpladeEncoder(tmp_path)
