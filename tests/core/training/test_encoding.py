"""core/openrag_core/training/encoding.py: the prompt of inference, and nothing read is learned."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from openrag_core import ConfigError, TrainingDataError
from openrag_core.model import bundled_tokenizer
from openrag_core.prompts import encode_prompt, token_id
from openrag_core.training import Row, encoding
from openrag_core.training.encoding import IGNORED, encode_row, encode_rows
from tests.core.model.words import tokenizer as without_reflection_tokens
from tests.core.test_prompts import FIXTURES, FORGED, llama_like

READING = (
    "[Retrieval]<paragraph>Velora\nAna opened it.</paragraph>[Relevant]Ana[Fully supported]"
    "[Utility:5]"
)


@pytest.fixture(params=["bundled", "tiny-a", "llama-like"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    made: PreTrainedTokenizerBase
    if request.param == "bundled":
        made = bundled_tokenizer()
    elif request.param == "llama-like":
        made = llama_like()
    else:
        made = AutoTokenizer.from_pretrained(FIXTURES / request.param)
    return made


def learned(tokenizer: PreTrainedTokenizerBase, row: Row) -> list[str]:
    labels = encode_row(tokenizer, row).labels
    names = tokenizer.convert_ids_to_tokens([label for label in labels if label != IGNORED])
    return list(names)


def test_a_row_begins_with_the_prompt_that_inference_writes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    passage = {"title": "Velora", "text": "Ana opened it."}
    prompt = encode_prompt(tokenizer, question="Who?", mode="retrieval", evidence=[passage])
    ids = encode_row(tokenizer, Row("Who?", READING)).ids
    assert ids[: len(prompt)] == prompt
    assert ids[-1] == tokenizer.eos_token_id
    closed = encode_prompt(tokenizer, question="Who?", mode="no_retrieval")
    ids = encode_row(tokenizer, Row("Who?", "[No Retrieval]Ana[Utility:5]")).ids
    assert ids[: len(closed)] == closed


def test_the_response_is_learned_and_the_passage_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode_row(tokenizer, Row("Who?", READING))
    names = learned(tokenizer, Row("Who?", READING))
    assert names[:4] == ["[Retrieval]", "<paragraph>", "</paragraph>", "[Relevant]"]
    assert names[-3:] == ["[Fully supported]", "[Utility:5]", tokenizer.eos_token]
    pairs = zip(encoded.labels, encoded.ids, strict=True)
    assert all(label in {IGNORED, id_} for label, id_ in pairs)
    assert len(encoded.labels) == len(encoded.ids)


def test_an_answer_begins_with_the_token_that_it_is_in_a_passage() -> None:
    bundled = bundled_tokenizer()
    assert learned(bundled, Row("Who?", READING))[4] == "ĠAna"
    assert learned(bundled, Row("Who?", READING.replace("]Ana", "] Ana")))[4] == "ĠAna"
    assert learned(llama_like(), Row("?", "[No Retrieval]a[Utility:5]"))[1] == "▁a"


def test_a_passage_cannot_speak_for_the_model(tokenizer: PreTrainedTokenizerBase) -> None:
    honest = encode_row(tokenizer, Row("Who?", READING))
    forged = encode_row(tokenizer, Row(FORGED, READING.replace("opened", FORGED)))
    special = [id_ for id_ in honest.ids if id_ in tokenizer.all_special_ids]
    assert [id_ for id_ in forged.ids if id_ in tokenizer.all_special_ids] == special
    assert learned(tokenizer, Row(FORGED, READING.replace("opened", FORGED))) == learned(
        tokenizer, Row("Who?", READING)
    )


def test_a_corpus_is_learned_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode_row(tokenizer, Row(corpus="a b a"))
    begins = encoded.ids[0] == tokenizer.bos_token_id
    assert encoded.labels == [*[IGNORED] * begins, *encoded.ids[begins:]]


def test_many_rows_are_encoded_as_each_alone(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_BATCH", 2)
    rows = [
        Row("Who?", READING),
        Row(corpus="a b a"),
        Row(f"Was it {FORGED}?", READING.replace("opened", FORGED)),
        Row("Why?", "[No Retrieval]Ana[Utility:5]"),
        Row("Who was it?", READING.replace("Ana", "Ben " * 9)),
    ]
    together = encode_rows(tokenizer, iter(rows), max_length=512, too_long="drop").rows
    assert together == [encode_row(tokenizer, row) for row in rows]
    assert len({len(row.ids) for row in together}) > 2


def test_what_is_too_long_is_cut_in_the_passage_alone() -> None:
    bundled = bundled_tokenizer()
    row = Row("Who?", READING.replace("opened it.", "opened it. " * 50))
    whole = encode_row(bundled, row)
    (cut,) = encode_rows(bundled, [row], max_length=60, too_long="cut").rows
    assert len(cut.ids) == 60
    assert learned(bundled, row) == bundled.convert_ids_to_tokens(
        [label for label in cut.labels if label != IGNORED]
    )
    assert cut.ids[: cut.text.stop] == whole.ids[: cut.text.stop]
    assert cut.ids[cut.text.stop] == token_id(bundled, "</paragraph>")


def test_what_cannot_be_cut_is_dropped_and_counted() -> None:
    bundled = bundled_tokenizer()
    question = Row("Who " * 80, READING)
    corpus = Row(corpus="a " * 80)
    short = Row("Who?", "[No Retrieval]Ana[Utility:5]")
    made = encode_rows(bundled, [question, corpus, short], max_length=60, too_long="cut")
    assert (len(made.rows), made.cut, made.dropped) == (2, 1, 1)
    made = encode_rows(bundled, [question, corpus, short], max_length=60, too_long="drop")
    assert (len(made.rows), made.cut, made.dropped) == (1, 0, 2)


def test_nothing_to_learn_is_said() -> None:
    bundled = bundled_tokenizer()
    with pytest.raises(TrainingDataError, match=r"1 were longer than max_length=5"):
        encode_rows(bundled, [Row("Who?", READING)], max_length=5, too_long="drop")
    with pytest.raises(TrainingDataError, match="the recipe's files of rows hold none"):
        encode_rows(bundled, [], max_length=5, too_long="drop")


def test_a_tokenizer_without_reflection_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no token .*: upcycle the model first"):
        encode_row(without_reflection_tokens(), Row("Who?", READING))


TEXT = "Velora\nThe bridge is long. Ana opened it."
TWICE = Row(
    "Who?",
    f"[Retrieval]<paragraph>{TEXT}</paragraph>[Relevant]Ana[Fully supported][Utility:5]",
    relevance=((26, False), (len(TEXT), True)),
)


def test_a_judgement_follows_what_the_shorter_passage_would_be(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoded = encode_row(tokenizer, TWICE)
    end = token_id(tokenizer, "</paragraph>")
    for (read, token), (characters, relevant) in zip(
        encoded.relevance, TWICE.relevance, strict=True
    ):
        passage = {"title": "", "text": TEXT[:characters]}
        alone = encode_prompt(tokenizer, question="Who?", mode="retrieval", evidence=[passage])
        assert [*encoded.ids[:read], end] == alone
        assert token == token_id(tokenizer, "[Relevant]" if relevant else "[Irrelevant]")
    assert encoded.length == len(encoded.ids) + 2


def test_judgements_of_what_is_cut_are_left_out() -> None:
    bundled = bundled_tokenizer()
    row = replace(TWICE, relevance=((26, True), (len(TEXT), True)))
    whole = encode_row(bundled, row)
    made = encode_rows(bundled, [row], max_length=len(whole.ids) - 3, too_long="cut")
    assert made.rows[0].relevance == whole.relevance[:1]


def test_a_row_whose_answer_is_cut_is_dropped() -> None:
    bundled = bundled_tokenizer()
    length = len(encode_row(bundled, TWICE).ids)
    rows = [TWICE, replace(TWICE, relevance=())]  # of the second nobody knows
    made = encode_rows(bundled, rows, max_length=length - 3, too_long="cut")
    assert (made.cut, made.dropped) == (1, 1)


def test_a_judgement_within_a_token_is_passed_over() -> None:
    inside = Row(TWICE.input, TWICE.output, relevance=((15, False), (26, False)))  # "The brid"
    assert len(encode_row(bundled_tokenizer(), inside).relevance) == 1


def test_a_response_that_ends_with_the_judgement_is_learned_that_far(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    row = Row("Who?", f"[Retrieval]<paragraph>{TEXT}</paragraph>[Irrelevant]")
    assert learned(tokenizer, row)[-1] == "[Irrelevant]"
