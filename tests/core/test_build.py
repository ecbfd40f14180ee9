"""core/openrag_core/build.py: settings -> parts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrag_core import (
    ChatCondenser,
    ChatGenerator,
    CheckpointError,
    ConfigError,
    Conversation,
    Field,
    Gate,
    IndexMismatchError,
    Message,
    MissingExtraError,
    OpenRAG,
    Passage,
    ScoreWeights,
    SearchOptions,
)
from openrag_core.build import Settings, build, open_index
from openrag_core.calibration import CalibratedGate
from openrag_core.condenser import MAX_NEW_TOKENS
from openrag_core.filters import Condition
from openrag_core.model import (
    BaseChat,
    TransformersChat,
    TransformersGenerator,
    bundled_tokenizer,
    load,
)
from openrag_core.model.checkpoints.bundled import bundled_base
from openrag_core.reranking.cross_encoder import CrossEncoderReranker
from openrag_core.reranking.maxsim import MaxSimReranker
from openrag_core.retrieval import EdgeStore, MultihopRetriever, PassageIndex
from openrag_core.weights import BUNDLED_ADAPTER, ENCODER
from tests.core.retrieval.conftest import LetterEncoder
from tests.fakes import FakeChat, FakeCondenser, FakeGenerator, FakeReranker, FakeRetriever

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = {"model": str(FIXTURES / "tiny-a"), "dtype": "float32"}


def test_the_default_is_all_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rag = build()
    assert isinstance(rag.retriever, PassageIndex)
    assert isinstance(rag.retriever.store, EdgeStore)
    assert rag.retriever.encoder.name == "all-MiniLM-L6-v2@b9a0018dff09"
    assert isinstance(rag.reranker, MaxSimReranker)
    assert isinstance(rag.generator, TransformersGenerator)
    assert (rag.gate, rag.top_k) == (Gate("always"), 5)
    assert rag.generator.reflection_trained
    chat, cautious = parts(rag.condenser)
    assert isinstance(chat, BaseChat)
    assert cautious  # its base is small
    assert list(tmp_path.iterdir()) == []  # nothing is written before something is indexed


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"model": "no/such"}, "or bundled"),
        ({"base": "no/such"}, "or bundled"),
        ({"encoder": "no/such"}, "or bundled"),
        ({"splade": "no/such"}, "or bundled"),
        ({"reranker": "maxsim + no/such"}, "or maxsim or reflection or cohere or none"),
    ],
)
def test_a_model_that_is_not_there_is_missed_before_any_is_loaded(
    named: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for loads in ("open_index", "_generator"):
        monkeypatch.setattr(f"openrag_core.build.{loads}", lambda _: pytest.fail("loaded"))
    with pytest.raises(CheckpointError, match=f"no (checkpoint|reranker) 'no/such'.*{message}"):
        build(Settings(**{**TINY, **named}, index=tmp_path))


def test_models_of_parts_that_are_given_are_not_looked_for() -> None:
    elsewhere = Settings(model="on/a-server", encoder="on/a-server")
    given = {"retriever": FakeRetriever([]), "reranker": FakeReranker({})}
    build(elsewhere, generator=FakeGenerator(), **given)  # type: ignore[arg-type]
    build(Settings(**TINY, encoder="on/a-server"), **given)  # type: ignore[arg-type]


def test_settings_reach_the_parts() -> None:
    settings = Settings(
        **TINY,  # type: ignore[arg-type]
        reranker="none",
        gate="f_ret",
        threshold=0.2,
        top_k=30,
        min_relevance=0.1,
        min_support=0.7,
        max_new_tokens=3,
    )
    retriever = FakeRetriever([])
    rag = build(settings, retriever=retriever)
    assert rag.retriever is retriever
    assert rag.reranker is None
    assert rag.gate == Gate("f_ret", 0.2)
    assert (rag.top_k, rag.fetch_k) == (30, 30)
    assert (rag.minima.relevance, rag.minima.support) == (0.1, 0.7)
    assert isinstance(rag.generator, TransformersGenerator)
    assert rag.generator.max_new_tokens == 3
    assert rag.generator.model.dtype.itemsize == 4


def test_a_string_will_do_for_a_folder_and_a_path_for_a_name() -> None:
    assert Settings(index=".x").index == Path(".x")  # type: ignore[arg-type]
    assert Settings(model=Path("bundled")) == Settings()  # type: ignore[arg-type]


def test_a_foreign_retriever_is_reranked_too() -> None:
    rag = build(Settings(**TINY), retriever=FakeRetriever([]))  # type: ignore[arg-type]
    assert isinstance(rag.reranker, MaxSimReranker)
    assert rag.answer("When?").abstained


class Empty:
    """False wherever it is taken for a truth value."""

    def __len__(self) -> int:
        return 0


class EmptyRetriever(Empty, FakeRetriever):
    pass


class EmptyReranker(Empty, FakeReranker):
    pass


class EmptyCondenser(Empty, FakeCondenser):
    pass


def test_parts_that_are_still_empty_are_not_replaced() -> None:
    """The bundled index answered instead of a list that is filled later."""
    retriever, reranker = EmptyRetriever([]), EmptyReranker({"p": 0.4}, min_relevance=0.5)
    condenser = EmptyCondenser({})
    rag = build(Settings(**TINY), retriever=retriever, reranker=reranker, condenser=condenser)  # type: ignore[arg-type]
    assert (rag.retriever, rag.reranker, rag.condenser) == (retriever, reranker, condenser)
    read = OpenRAG(FakeGenerator(), retriever, reranker)
    retriever.passages = [Passage(id="p", text="1893")]
    assert read.answer("When?").abstained  # by the reranker's minimum
    assert [top_k for _, top_k in retriever.calls] == [read.fetch_k]


def test_a_reranker_may_be_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def remember(self: CrossEncoderReranker, path: str, **settings: object) -> None:
        self.min_relevance = 0.5
        asked.append((path, settings))

    monkeypatch.setattr(CrossEncoderReranker, "__init__", remember)
    settings = Settings(**TINY, reranker=str(tmp_path), device="cpu")  # type: ignore[arg-type]
    rag = build(settings, retriever=FakeRetriever([]))
    assert isinstance(rag.reranker, CrossEncoderReranker)
    assert asked == [(str(tmp_path), {"device": "cpu"})]


def test_pieces_that_the_encoder_cannot_read_whole_are_refused(tmp_path: Path) -> None:
    for cache in (None, tmp_path / "vectors.db"):
        settings = Settings(index=tmp_path / "index", chunk_size=400, encoder_cache=cache)
        with pytest.raises(ConfigError, match=r"chunk_size=400, and the encoder .* reads 256"):
            open_index(settings)
    assert open_index(Settings(index=tmp_path / "index", chunk_size=256)).chunk.size == 256


def test_a_new_index_has_pieces_that_its_encoder_can_read(tmp_path: Path) -> None:
    class Short(LetterEncoder):
        max_tokens = 128

    index = open_index(Settings(index=tmp_path / "index"), encoder=Short())
    assert (index.chunk.size, index.chunk.overlap) == (128, 24)


def test_an_index_of_another_encoder_is_given_free_again(tmp_path: Path) -> None:
    settings = Settings(index=tmp_path / "index")
    file = tmp_path / "a.txt"
    file.write_text("One line.", encoding="utf-8")
    index = open_index(settings)
    index.add_files([file])
    index.close()
    other = Settings(index=tmp_path / "index", encoder=str(ENCODER.locate()))
    for _ in range(2):  # the first refusal holds no lock
        with pytest.raises(IndexMismatchError, match=r"all-MiniLM-L6-v2@b9a0018dff09.*model@"):
            open_index(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": "sometimes"}, "always, never"),
        ({"threshold": 2.0}, "threshold"),
        ({"gate": "f_minp", "threshold": "0.5"}, r"threshold must be in \[0, 1\], got '0.5'"),
        ({"top_k": 0}, "top_k must be a whole number, at least 1; got 0"),
        ({"top_k": "5"}, "top_k must be a whole number, at least 1; got '5'"),
        ({"fetch_k": -3}, "at least 1; got -3"),
        ({"beam_width": 0}, "beam_width must be a whole number, at least 1; got 0"),
        ({"reranker": "maxsim+"}, r"reranker must be a name or a folder, got 'maxsim\+'"),
        ({"reranker": None}, "reranker must be a name or a folder, got None"),
        ({"min_support": "high"}, "min_support must be a number, got 'high'"),
        ({"model": ""}, "model must be a name or a folder, got ''"),
        ({"index": None}, "index must be a path, got None"),
        ({"calibration": 3}, "calibration must be a path, got 3"),
        ({"dtype": "bf16"}, "dtype must be one of float32, bfloat16, float16, auto; got 'bf16'"),
        ({"min_accuracy": 3.0}, r"min_accuracy must be in \[0, 1\], got 3.0"),
        ({"min_accuracy": "0.7"}, r"min_accuracy must be in \[0, 1\], got '0.7'"),
        ({"weights": {"rel": 1}}, r"weights must be ScoreWeights\(\.\.\.\), got \{'rel': 1\}"),
        (
            {"min_accuracy": 0.5, "max_retrieval_rate": 0.5},
            "give either min_accuracy or max_retrieval_rate",
        ),
        ({"threshold": 0.9}, "threshold=0.9 does nothing with gate='always'"),
        ({"evidence": "both"}, "each, joint; got 'both'"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"qdrant_timeout": 0}, "qdrant_timeout"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)
    Settings(model="models/c++", reranker="maxsim + reflection")  # a plus joins rerankers alone


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "openrag_core._extras.find_spec", lambda name: None if name == "cohere" else name
    )
    settings = Settings(**TINY, reranker="cohere")  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=r"cohere not installed.*openrag-moe\[cohere\]"):
        build(settings, retriever=FakeRetriever([]))


def test_parts_that_are_given_are_used_and_nothing_is_loaded_in_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even the packages that a model needs have to be there."""
    missing = {"torch", "transformers", "sentence_transformers", "qdrant_edge"}
    monkeypatch.setattr(
        "openrag_core._extras.find_spec", lambda name: None if name in missing else name
    )
    generator, retriever = FakeGenerator(), FakeRetriever([Passage(id="p", text="1893")])
    reranker, condenser = FakeReranker({"p": 0.9}), FakeCondenser({"And when?": "When?"})
    rag = build(generator=generator, retriever=retriever, reranker=reranker, condenser=condenser)
    assert (rag.generator, rag.retriever) == (generator, retriever)
    assert (rag.reranker, rag.condenser) == (reranker, condenser)
    asked = Conversation("And when?", (Message("user", "Who?"),))
    assert (rag.answer(asked).text, rag.answer(asked).question) == ("1893", "When?")
    with pytest.raises(MissingExtraError, match="torch"):
        build(retriever=retriever, reranker=reranker, condenser=condenser)


def test_the_chat_model_that_answers_condenses_too() -> None:
    chat = FakeChat(lambda text: "When?" if text.endswith("Means:") else "1893")
    retriever = FakeRetriever([Passage(id="p", text="It was 1893.")])
    rag = build(Settings(reranker="none"), generator=ChatGenerator(chat), retriever=retriever)
    answer = rag.answer(Conversation("And when?", (Message("user", "Who?"),)))
    assert (answer.question, answer.text) == ("When?", "1893")


def test_a_reranker_that_is_given_ranks_chains_too() -> None:
    reranker = FakeReranker({})
    settings = Settings(hops=2, reranker="some/folder")
    rag = build(settings, generator=FakeGenerator(), retriever=FakeRetriever([]), reranker=reranker)
    assert isinstance(rag.retriever, MultihopRetriever)
    assert rag.reranker is rag.retriever._reranker is reranker


def test_chains_of_ones_own_are_taken_as_they_are_ranked() -> None:
    chains = MultihopRetriever(FakeRetriever([]))
    rag = build(Settings(hops=2), generator=FakeGenerator(), retriever=chains)
    assert (rag.retriever, rag.reranker) == (chains, None)


def test_a_generator_that_judges_nothing_cannot_rerank_by_reflection() -> None:
    with pytest.raises(ConfigError, match="needs a generator that judges passages"):
        build(
            Settings(reranker="reflection"), generator=FakeGenerator(), retriever=FakeRetriever([])
        )


def parts(condenser: object) -> tuple[object, bool]:
    """Whom a condenser asks, and how careful it is."""
    assert isinstance(condenser, ChatCondenser)
    return condenser._chat, condenser._cautious


def test_questions_of_a_conversation_are_the_models_own_business_if_it_can_chat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retriever, none = FakeRetriever([]), Settings(**TINY, reranker="none")  # type: ignore[arg-type]
    narrow = replace(none, max_new_tokens=3, max_batch_tokens=512)
    chat, cautious = parts(build(narrow, retriever=retriever).condenser)
    assert isinstance(chat, BaseChat)  # what knows reflection tokens chats no more
    assert not cautious
    assert chat._limits == {"max_new_tokens": MAX_NEW_TOKENS, "max_batch_tokens": 512}
    with pytest.raises(ConfigError, match=r"tiny-a does not tell which dense model"):
        chat.reply([[Message("user", "Who?")]])

    model, tokenizer = load(TINY["model"], dtype="float32")
    model.config.reflection_trained = False
    monkeypatch.setattr("openrag_core.model.load", lambda *_, **__: (model, tokenizer))
    rag = build(narrow, retriever=retriever)
    chat, cautious = parts(rag.condenser)
    assert isinstance(chat, TransformersChat)
    assert (chat._generator, cautious) == (rag.generator, False)
    assert chat._limit == MAX_NEW_TOKENS  # a question is no answer
    given = FakeCondenser({})
    assert build(none, retriever=retriever, condenser=given).condenser is given
    alone = build(none, retriever=retriever, generator=FakeGenerator())
    assert alone.condenser is None  # whose model could be asked?


def test_whatever_has_the_bundled_models_base_is_condensed_for_as_carefully(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That is as small, whatever the checkpoint is called."""
    own = Path(shutil.copytree(BUNDLED_ADAPTER, tmp_path / "own"))
    bundled_tokenizer().save_pretrained(own)
    trained, untrained, dense = load(own), load(own), load(bundled_base())
    untrained[0].config.reflection_trained = False
    for loaded, kind in [
        (trained, BaseChat),
        (untrained, TransformersChat),
        (dense, TransformersChat),
    ]:
        monkeypatch.setattr("openrag_core.model.load", lambda *_, one=loaded, **__: one)
        settings = Settings(model=str(own), reranker="none")
        chat, cautious = parts(build(settings, retriever=FakeRetriever([])).condenser)
        assert isinstance(chat, kind)
        assert cautious


def test_a_target_takes_the_gate_that_was_fitted(tmp_path: Path) -> None:
    fitted = {
        "signal": "f_meanp",
        "memory": {"confidence": [0.2, 0.8], "probability": [0.1, 0.7]},
        "reading": {"5": {"confidence": [1.0, 3.0], "probability": [0.2, 0.9]}},
        "quantiles": [0.0, 0.5, 1.0],
        "fitted_on": {},
    }
    file = tmp_path / "fitted.json"
    file.write_text(json.dumps(fitted), encoding="utf-8")
    given: Any = {"retriever": FakeRetriever([]), "generator": FakeGenerator()}
    settings = Settings(min_accuracy=0.4, calibration=file, reranker="none")
    with pytest.raises(ConfigError, match="fit the gate again"):
        build(settings, **given)
    rag = build(replace(settings, weights=ScoreWeights()), **given)
    assert isinstance(rag.gate, CalibratedGate)
    assert rag.gate.gate.threshold == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="out of reach"):
        build(Settings(min_accuracy=0.95, calibration=file, reranker="none"), **given)
    with pytest.raises(ConfigError, match="no gate was fitted for this model"):
        build(Settings(max_retrieval_rate=0.5, model=str(tmp_path), reranker="none"), **given)
    with pytest.raises(ConfigError, match="contradict each other"):
        Settings(gate="f_minp", min_accuracy=0.5)


def test_a_filter_that_would_be_lost_is_refused() -> None:
    narrow = Settings(search=SearchOptions(filter=Field("title") == "Bridge"), reranker="none")
    given: Any = {"generator": FakeGenerator()}
    with pytest.raises(ConfigError, match="would be lost"):
        build(narrow, retriever=FakeRetriever([]), **given)
    with pytest.raises(ConfigError, match="tenant='a' would be lost"):
        build(Settings(tenant="a", reranker="none"), retriever=FakeRetriever([]), **given)


def test_what_lengthens_chains_searches_as_its_retriever_does() -> None:
    narrow = SearchOptions(filter=Condition("page", "$in", [1, 2]))
    found = FakeRetriever([])
    found.options, found.tenant = narrow, "a"  # type: ignore[attr-defined]
    settings = Settings(search=narrow, tenant="a", hops=2, reranker="none")
    rag = build(settings, retriever=MultihopRetriever(found), generator=FakeGenerator())
    assert isinstance(rag.retriever, MultihopRetriever)


def test_a_gate_is_looked_for_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded first")

    monkeypatch.setattr("openrag_core.model.load", load)
    with pytest.raises(ConfigError, match="no gate was fitted"):
        build(Settings(model=str(tmp_path), max_retrieval_rate=0.5), retriever=FakeRetriever([]))
