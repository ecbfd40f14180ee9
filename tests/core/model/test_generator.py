"""core/openrag_core/model/generator.py: the port on real small models, and the embedded default."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from openrag_core import (
    CheckpointError,
    ConfigError,
    Generator,
    Passage,
    QuestionError,
    WeightsNotInstalledError,
)
from openrag_core.model import OpenRAGForCausalLM, TransformersGenerator, load
from openrag_core.model.bundled import bundled_folder, cache_folder
from openrag_core.reflection import TOKENS
from openrag_core.weights import GENERATOR

FIXTURES = Path(__file__).parents[2] / "fixtures"
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def trained() -> Loaded:
    return load(FIXTURES / "tiny-a", dtype="float32")


@pytest.fixture(scope="module")
def bundled() -> Loaded:
    return load("bundled")


def test_it_satisfies_the_port(trained: Loaded) -> None:
    assert isinstance(TransformersGenerator(*trained), Generator)


def test_a_request_reads_every_reflection_token(trained: Loaded) -> None:
    request = TransformersGenerator(*trained).request(["When?"])[0]
    assert set(request) == set(TOKENS)
    assert all(logprob < 0 for logprob in request.values())


def test_text_and_tokens_agree(trained: Loaded) -> None:
    passage = Passage(id="p", text="It opened in 1893.")
    written = TransformersGenerator(*trained, max_new_tokens=24).write(["When?"], [[passage]])[0][0]
    special = [token.text for token in written.tokens if token.special]
    assert special
    assert not any(token in written.text for token in special)
    assert all(set(token.reflections) == set(TOKENS) for token in written.tokens)


def test_questions_without_passages_are_written_nothing(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=2)
    passage = Passage(id="p", text="x")
    assert [len(own) for own in generator.write(["a", "b", "c"], [[], [passage], []])] == [0, 1, 0]
    assert generator.write([], []) == []


def test_an_instruction_reaches_the_model(trained: Loaded) -> None:
    plain = TransformersGenerator(*trained).request(["When?"])
    instructed = TransformersGenerator(*trained, instruction="Be brief. ").request(["When?"])
    assert plain != instructed


def test_threads_get_what_they_would_alone(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=8)
    questions = [f"When was bridge {n} opened?" for n in range(12)]
    alone = [generator.draft([question])[0].text for question in questions]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda question: generator.draft([question])[0].text, questions))
    assert together == alone


def test_a_prompt_longer_than_the_model_is_refused(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained)
    with pytest.raises(QuestionError, match=r"the model holds 1024: shorten the question"):
        generator.draft(["word " * 2000])


def test_a_trained_model_without_its_tokenizer_is_refused(trained: Loaded) -> None:
    backend = trained[1].backend_tokenizer.to_str().replace("[Relevant]", "[Important]")
    stripped = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(backend))
    with pytest.raises(ConfigError, match=r"lacks \[Relevant\]: load the tokenizer"):
        TransformersGenerator(trained[0], stripped)


def test_a_passage_longer_than_the_model_is_cut_and_the_question_is_not(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    sentences = [f"Sentence {n} tells of the bridge." for n in range(400)]
    long, short = Passage(id="l", text=" ".join(sentences)), Passage(id="s", text="It opened.")
    written = generator.write(["When?"], [[long, short]])[0]
    assert [one.passage for one in written] == [long, short]
    assert len(written[0].tokens) == 4
    assert written[1].text == generator.write(["When?"], [[short]])[0][0].text
    prompt = str(trained[1].decode(generator._reading("When?", long)))
    assert prompt.endswith("tells of the bridge.</paragraph>")
    assert "When?" in prompt
    with pytest.raises(QuestionError, match="shorten the question"):
        generator.write(["When? " * 500], [[short]])


@pytest.mark.parametrize("name", ["max_new_tokens", "max_batch_tokens"])
def test_impossible_numbers_are_refused(trained: Loaded, name: str) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TransformersGenerator(*trained, **{name: 0})  # type: ignore[arg-type]


def test_the_bundled_model_equals_the_dense_one(bundled: Loaded) -> None:
    model, tokenizer = bundled
    assert isinstance(model, OpenRAGForCausalLM)
    config = model.config
    assert (config.num_experts, config.num_experts_per_tok, config.adapter_dim) == (8, 2, 32)
    assert config.reflection_trained is False
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mixed = model(ids).logits
        for layer in model.base.model.layers:
            layer.mlp = layer.mlp.dense
        dense = model(ids).logits
    assert torch.equal(mixed, dense)


def test_the_bundled_model_answers_through_its_chat_template() -> None:
    generator = TransformersGenerator(*load("bundled"), max_new_tokens=24)
    draft = generator.draft(["What is the capital of France?"])[0]
    assert "Paris" in draft.text
    passage = Passage(id="p", title="Velora Bridge", text="The bridge was opened by Ana Tolvik.")
    written = generator.write(["Who opened the Velora Bridge?"], [[passage]])[0][0]
    assert "Ana Tolvik" in written.text
    assert not any(token.text in TOKENS for token in written.tokens)
    with pytest.raises(ConfigError, match="f_minp"):
        generator.request(["When?"])


def test_the_second_load_converts_nothing() -> None:
    folder = bundled_folder()
    assert folder.parent == cache_folder()
    assert not list(folder.parent.glob(f"{folder.name}.*"))  # no half-made copies are left
    changed = folder.stat().st_mtime
    load("bundled")
    assert bundled_folder().stat().st_mtime == changed


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENRAG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*file .*OPENRAG_CACHE"):
        load("bundled")


def test_a_conversion_that_breaks_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("OPENRAG_CACHE", str(tmp_path))
    monkeypatch.setattr("openrag_core.model.bundled._convert", full)
    with pytest.raises(CheckpointError, match=r"No space left.*make room"):
        load("bundled")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENRAG_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsNotInstalledError, match="openrag weights install"):
        load("bundled")
    assert not GENERATOR.installed
