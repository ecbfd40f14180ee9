"""core/openrag_core/model/generator.py: the port on real small models, and the embedded default."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from openrag_core import (
    CheckpointError,
    ConfigError,
    GenerationError,
    Generator,
    Passage,
    QuestionError,
    WeightsNotInstalledError,
)
from openrag_core.model import OpenRAGForCausalLM, TransformersGenerator, load, load_dense
from openrag_core.model.checkpoints.bundled import bundled_base, cache_folder
from openrag_core.model.decoding import Prompt
from openrag_core.reflection import TOKENS
from openrag_core.weights import BUNDLED_ADAPTER, GENERATOR

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
    written = TransformersGenerator(*trained, max_new_tokens=24).write(["When?"], [[[passage]]])[0][
        0
    ]
    special = [token.text for token in written.tokens if token.special]
    assert special
    assert not any(token in written.text for token in special)
    assert all(set(token.reflections) == set(TOKENS) for token in written.tokens)


def test_questions_without_passages_are_written_nothing(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=2)
    passage = Passage(id="p", text="x")
    assert [len(own) for own in generator.write(["a", "b", "c"], [[], [[passage]], []])] == [
        0,
        1,
        0,
    ]
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


def test_an_end_token_is_no_text_whatever_the_tokenizer_says(trained: Loaded) -> None:
    model, words = trained
    plain = TransformersGenerator(model, words, max_new_tokens=6)
    end = next(
        words.get_vocab()[piece]
        for piece in words.convert_ids_to_tokens(plain._decoder([Prompt([5, 9], 6)])[0].ids)
        if not piece.startswith(("[", "<"))
    )
    model.generation_config.eos_token_id = [2, end]
    try:
        generator = TransformersGenerator(model, words, max_new_tokens=6)
        continuation = generator._decoder([Prompt([5, 9], 6)])[0]
        assert continuation.ids[-1] == end
        assert generator.tokens(continuation)[-1].special
    finally:
        model.generation_config.eos_token_id = 2


def test_a_model_that_does_not_say_what_it_holds_is_refused(trained: Loaded) -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=8, hidden_size=8, n_layer=1, n_head=1))
    with pytest.raises(ConfigError, match=r"BloomForCausalLM does not say how long a text"):
        TransformersGenerator(model, trained[1])


def test_a_draft_stops_where_it_is_settled(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=12)
    whole = generator.draft(["When?", "Who?"])
    seen: list[tuple[int, int]] = []

    def settled(logprobs: Sequence[float], most: int) -> bool:
        seen.append((len(logprobs), most))
        return len(logprobs) == 3

    stopped = generator.draft(["When?", "Who?"], settled)
    for short, long in zip(stopped, whole, strict=True):
        text = [token for token in short.tokens if not token.special]
        assert (len(text), short.complete, long.complete) == (3, False, True)
        same = long.tokens[: len(short.tokens)]
        assert [token.text for token in short.tokens] == [token.text for token in same]
    assert {written for written, _ in seen} == {1, 2, 3}
    special = {len([t for t in draft.tokens if t.special]) for draft in stopped}
    assert {12 - most for _, most in seen} >= special  # special tokens take places of their own


def test_questions_share_batches_and_their_beginnings(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question's own beginning is computed once, and the passages are all read together."""
    generator = TransformersGenerator(*trained, max_new_tokens=3)
    model = trained[0]
    questions = [f"When was bridge {n} opened? " + "Say it. " * 12 for n in range(3)]
    evidence = [[[Passage(id=f"{n}", text="word " * n)] for n in (1, 2, 3)] for _ in questions]
    alone = [
        generator.write([q], [[one]])[0][0]
        for q, own in zip(questions, evidence, strict=True)
        for one in own
    ]
    rows = []
    forward = model.forward

    def spy(**inputs: Any) -> Any:  # noqa: ANN401
        rows.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", spy)
    together = [one for own in generator.write(questions, evidence) for one in own]
    assert rows[:2] == [3, 9]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        got, expected = ([t.logprob for t in w.tokens] for w in (one, other))
        assert got == pytest.approx(expected, abs=1e-4)


async def test_event_loops_get_the_same(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    questions = [f"When was bridge {n} opened?" for n in range(6)]
    drafts = await asyncio.gather(*(generator.adraft([question]) for question in questions))
    assert [one.text for own in drafts for one in own] == [
        one.text for one in generator.draft(questions)
    ]
    assert set((await generator.arequest(["When?"]))[0]) == set(TOKENS)
    evidence = [[[Passage(id="p", text="It opened in 1893.")]]]
    written = await generator.awrite(["When?"], evidence)
    assert written[0][0].text == generator.write(["When?"], evidence)[0][0].text


async def test_a_cancelled_task_stops_the_model(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained[0]
    model.generation_config.eos_token_id = None
    generator = TransformersGenerator(*trained, max_new_tokens=500)
    steps = 0
    running = asyncio.Event()
    loop = asyncio.get_running_loop()
    forward = model.forward

    def spy(**inputs: Any) -> Any:  # noqa: ANN401
        nonlocal steps
        steps += 1
        loop.call_soon_threadsafe(running.set)
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", spy)
    task = asyncio.create_task(generator.adraft(["When?"]))
    await asyncio.wait_for(running.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert len((await generator.adraft(["Who?"]))[0].tokens) == 500  # the model is free again
    assert steps < 400
    model.generation_config.eos_token_id = 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_same_input_gives_the_same_numbers(dtype: str) -> None:
    generator = TransformersGenerator(*load(FIXTURES / "tiny-a", dtype=dtype))
    assert generator.draft(["When?", "Who?"]) == generator.draft(["When?", "Who?"])


def test_numbers_that_are_none_are_an_error(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained[0]
    forward = model.forward

    def poisoned(**inputs: Any) -> Any:  # noqa: ANN401
        output = forward(**inputs)
        output.logits[:] = torch.nan
        return output

    monkeypatch.setattr(model, "forward", poisoned)
    with pytest.raises(GenerationError, match=r"no number \(NaN\).*dtype"):
        TransformersGenerator(*trained).draft(["When?"])


@pytest.mark.parametrize("name", ["max_new_tokens", "max_batch_tokens"])
def test_impossible_numbers_are_refused(trained: Loaded, name: str) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TransformersGenerator(*trained, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leaves no room for a prompt"):
        TransformersGenerator(*trained, max_new_tokens=1_000_000)


def test_the_bundled_model_was_trained(bundled: Loaded) -> None:
    model, tokenizer = bundled
    assert isinstance(model, OpenRAGForCausalLM)
    config = model.config
    assert (config.num_experts, config.num_experts_per_tok, config.adapter_dim) == (8, 2, 32)
    assert config.reflection_trained is True
    stored = json.loads((BUNDLED_ADAPTER / "config.json").read_text(encoding="utf-8"))
    assert stored["base_config"]["_name_or_path"] == "bundled"
    size = sum(file.stat().st_size for file in BUNDLED_ADAPTER.rglob("*") if file.is_file())
    assert size <= 24e6
    generator = TransformersGenerator(model, tokenizer, max_new_tokens=24)
    passage = Passage(id="p", title="Velora Bridge", text="The bridge was opened by Ana Tolvik.")
    (written,) = generator.write(["Who opened the Velora Bridge?"], [[[passage]]])[0]
    first, *_, support, utility, _ = (token.text for token in written.tokens)
    assert (first, support, utility) == ("[Relevant]", "[Fully supported]", "[Utility:5]")
    assert written.text.strip() == "Ana Tolvik"
    who, sum_ = generator.request(["Who opened the Velora Bridge?", "What is 3 plus 4?"])
    assert who["[Retrieval]"] > who["[No Retrieval]"]
    assert sum_["[No Retrieval]"] > sum_["[Retrieval]"]


def test_a_dense_model_answers_through_its_chat_template() -> None:
    dense, tokenizer = load_dense("bundled")
    generator = TransformersGenerator(dense.eval(), tokenizer, max_new_tokens=24)
    draft = generator.draft(["What is the capital of France?"])[0]
    assert "Paris" in draft.text
    passage = Passage(id="p", title="Velora Bridge", text="The bridge was opened by Ana Tolvik.")
    written = generator.write(["Who opened the Velora Bridge?"], [[[passage]]])[0][0]
    assert "Ana Tolvik" in written.text
    assert not any(token.text in TOKENS for token in written.tokens)
    with pytest.raises(ConfigError, match="f_minp"):
        generator.request(["When?"])


def test_the_second_load_converts_nothing() -> None:
    folder = bundled_base()
    assert folder.parent == cache_folder()
    assert not list(folder.parent.glob(f"{folder.name}.*"))  # no half-made copies are left
    changed = folder.stat().st_mtime
    load("bundled")
    assert bundled_base().stat().st_mtime == changed


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
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("OPENRAG_CACHE", str(tmp_path))
    monkeypatch.setattr("openrag_core.model.checkpoints.bundled._convert", full)
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
