"""langchain_openrag: our retrievers and rerankers as LangChain's, and theirs as ours."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_openrag import (
    AdaptiveRetriever,
    CohereReranker,
    CrossEncoderReranker,
    LangChainChat,
    LangChainReranker,
    LangChainRetriever,
    OpenRAGRetriever,
    ReflectionReranker,
    RerankerCompressor,
)
from langchain_openrag.documents import to_passage
from openrag_core import (
    ChatGenerator,
    CheckpointError,
    ConfigError,
    Draft,
    Field,
    FilterError,
    Gate,
    OpenRAG,
    Passage,
    QuestionError,
    SearchOptions,
)
from openrag_core.reranking import cohere, cross_encoder
from openrag_core.retrieval import PassageIndex
from tests.fakes import CarelessReranker, FakeGenerator, FakeReranker, FakeRetriever, tokens

BRIDGE = Passage(id="b1", text="1893", title="Bridge", source="b.md", retrieval_score=0.5)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


class TestIntegration(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, documents_index: PassageIndex) -> None:
        self._documents = documents_index

    @property
    def retriever_constructor(self) -> type[OpenRAGRetriever]:
        return OpenRAGRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self._documents}

    @property
    def retriever_query_example(self) -> str:
        return "Who opened the Velora Bridge?"


async def test_a_call_may_set_its_own_k_and_filter(documents_index: PassageIndex) -> None:
    others = OpenRAGRetriever(index=documents_index, filter={"title": {"$ne": "Velora Bridge"}})
    question = "Who opened the Velora Bridge?"
    assert "Velora Bridge" not in {d.metadata["title"] for d in others.invoke(question)}
    only = Field("title") == "Velora Bridge"
    assert others.invoke(question, filter=only) == []  # a call cannot leave what it was given
    assert others.invoke(question, filter={}) == others.invoke(question)
    retriever = OpenRAGRetriever(index=documents_index)
    for found in (
        retriever.invoke(question, k=1, filter=only),
        await retriever.ainvoke(question, k=1, filter={"title": "Velora Bridge"}),
    ):
        assert [document.metadata["title"] for document in found] == ["Velora Bridge"]
    narrow = OpenRAGRetriever(
        index=documents_index, options=SearchOptions(filter=Field("title") != "Keth Lighthouse")
    )
    assert {d.metadata["title"] for d in narrow.invoke(question, filter=only)} == {"Velora Bridge"}
    assert narrow.invoke(question, filter=Field("title") == "Keth Lighthouse") == []
    sparse = OpenRAGRetriever(index=documents_index, options=SearchOptions(mode="sparse"), k=2)
    expected = documents_index.retrieve([question], 2, SearchOptions(mode="sparse"))[0]
    assert [document.id for document in sparse.invoke(question)] == [p.id for p in expected]


def test_a_reranker_chooses_among_more() -> None:
    index = FakeRetriever([FERRY, BRIDGE])
    retriever = OpenRAGRetriever(
        index=index, k=1, fetch_k=7, reranker=FakeReranker({"b1": 0.9, "f1": 0.2})
    )
    (document,) = retriever.invoke("When?")
    assert (document.id, document.metadata["relevance_score"]) == ("b1", 0.9)
    assert index.calls == [(("When?",), 7)]


def test_what_a_call_cannot_set_is_refused(documents_index: PassageIndex) -> None:
    retriever = OpenRAGRetriever(index=documents_index)
    with pytest.raises(FilterError, match="'author' is no field of a passage: filter by text"):
        retriever.invoke("When?", filter={"author": "Ana"})
    with pytest.raises(FilterError, match=r"no passage at .* has a field 'metadata.author'"):
        retriever.invoke("When?", filter=Field("metadata.author") == "Ana")
    for nothing in ("", None):
        with pytest.raises(QuestionError):
            retriever.invoke(nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes k and filter, not top_k"):
        retriever.invoke("When?", top_k=3)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        retriever.invoke("When?", k=0)
    with pytest.raises(ConfigError, match="FakeRetriever takes neither filters nor"):
        OpenRAGRetriever(index=FakeRetriever([BRIDGE])).invoke("When?", filter={"title": "x"})


async def test_an_adaptive_retriever_finds_nothing_that_the_model_knows() -> None:
    drafts = {"sure": Draft("memory", tokens(0.9)), "unsure": Draft("maybe", tokens(0.2))}
    rag = OpenRAG(
        FakeGenerator(drafts=drafts), FakeRetriever([BRIDGE, FERRY]), gate=Gate("f_minp", 0.5)
    )
    retriever = AdaptiveRetriever(rag=rag)
    assert retriever.invoke("sure") == await retriever.ainvoke("sure") == []
    assert rag.retriever.calls == []  # type: ignore[attr-defined]
    for found in (retriever.invoke("unsure"), await retriever.ainvoke("unsure")):
        assert [document.id for document in found] == ["b1", "f1"]


async def test_a_compressor_keeps_what_documents_bring_along() -> None:
    documents = [
        Document("The ferry.", metadata={"page": 1}),
        Document("The bridge.", id="own", metadata={"page": 2}),
        Document("The ferry.", metadata={"page": 3}),
    ]

    class ByLength(FakeReranker):
        def rerank(
            self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], top_k: int
        ) -> list[list[Passage]]:
            self.scores = {p.id: len(p.text) / 100 for p in passages[0]}
            return super().rerank(questions, passages, top_k)

    compressor = RerankerCompressor(reranker=ByLength({}), top_n=2)
    for ranked in (
        compressor.compress_documents(documents, "?"),
        await compressor.acompress_documents(documents, "?"),
    ):
        assert [(d.id, d.metadata) for d in ranked] == [
            ("own", {"page": 2, "relevance_score": 0.11}),
            (None, {"page": 1, "relevance_score": 0.1}),
        ]
    assert compressor.compress_documents([], "?") == []
    strict = RerankerCompressor(reranker=ByLength({}), min_score=0.105)
    assert len(strict.compress_documents(documents, "?")) == 1


def test_what_a_reranker_gives_is_a_ranking() -> None:
    documents = [Document("1912"), Document("1893")]
    first = RerankerCompressor(reranker=CarelessReranker({"0": 0.5, "1": 0.4}), top_n=1)
    assert [one.page_content for one in first.compress_documents(documents, "?")] == ["1912"]
    message = r"CarelessReranker\.rerank gave passages without a rerank_score"
    for min_score in (None, 0.5):
        with pytest.raises(ConfigError, match=message):
            RerankerCompressor(
                reranker=CarelessReranker({}), min_score=min_score
            ).compress_documents(documents, "?")
    found = OpenRAGRetriever(
        index=FakeRetriever([FERRY, BRIDGE]), reranker=CarelessReranker({}), k=1
    )
    with pytest.raises(ConfigError, match=message):
        found.invoke("?")
    assert "relevance_score" not in documents[0].metadata


def test_the_generator_judges_documents(bundled_rag: OpenRAG) -> None:
    documents = [
        Document("The ferry across the Sarn takes 25 minutes."),
        Document("The Velora Bridge was opened by Mayor Ana Tolvik in 1893."),
    ]
    generator: Any = bundled_rag.generator
    compressor = ReflectionReranker(generator, top_n=1)
    (best,) = compressor.compress_documents(documents, "Who opened the Velora Bridge?")
    assert best.page_content == documents[1].page_content
    assert best.metadata["relevance_score"] > 0.5


def test_a_cross_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        CrossEncoderReranker("/nowhere")


class Shelf(BaseRetriever):
    """A retriever of somebody else's."""

    documents: list[Document]
    asked: list[str] = []  # noqa: RUF012  (pydantic copies it)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        del run_manager
        self.asked.append(query)
        return self.documents


async def test_any_retriever_can_find_the_passages() -> None:
    shelf = Shelf(
        documents=[
            Document(
                "1893", metadata={"title": "Bridge", "source": "b.md", "score": 0.7, "page": 3}
            ),
            Document("1912", id="f1"),
        ]
    )
    retriever = LangChainRetriever(shelf)
    for found in (retriever.retrieve(["a", "b"], 1), await retriever.aretrieve(["a", "b"], 1)):
        (passage,), (same,) = found
        assert (
            passage
            == same
            == Passage(
                id=passage.id,
                text="1893",
                title="Bridge",
                source="b.md",
                metadata={"score": 0.7, "page": 3},
                retrieval_score=0.7,
            )
        )
        assert len(passage.id) == 32
    assert sorted(shelf.asked) == ["a", "a", "b", "b"]
    assert OpenRAG(FakeGenerator(), retriever).answer("When?").text == "1893"


class Backwards(BaseDocumentCompressor):
    """A reranker of somebody else's: the last ones first."""

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,  # noqa: ARG002
        callbacks: Any = None,  # noqa: ANN401, ARG002
    ) -> Sequence[Document]:
        return [
            Document(d.page_content, metadata={**d.metadata, "relevance_score": n / 10})
            for n, d in reversed(list(enumerate(documents)))
        ]


async def test_any_compressor_can_rank_the_passages() -> None:
    reranker = LangChainReranker(Backwards(), min_relevance=0.05)
    for ranked in (
        reranker.rerank(["a", "b"], [[FERRY, BRIDGE], []], 1),
        await reranker.arerank(["a", "b"], [[FERRY, BRIDGE], []], 1),
    ):
        assert [[(p.id, p.rerank_score, p.metadata) for p in own] for own in ranked] == [
            [("b1", 0.1, {})],
            [],
        ]
    answer = OpenRAG(FakeGenerator(), FakeRetriever([FERRY, BRIDGE]), reranker).answer("When?")
    assert (answer.text, answer.grounded) == ("1893", True)


class InFloat32(Backwards):
    """A compressor whose scores are those of numpy."""

    unsure: Sequence[int] = ()
    """Places of documents that it cannot score."""

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Any = None,  # noqa: ANN401
    ) -> Sequence[Document]:
        ranked = super().compress_documents(documents, query, callbacks)
        for one in ranked:
            score = nan if one.metadata["place"] in self.unsure else one.metadata["relevance_score"]
            one.metadata["relevance_score"] = np.float32(score)
        return ranked


def test_scores_of_numpy_become_numbers() -> None:
    reranker = LangChainReranker(InFloat32(), min_relevance=0.05)
    answer = OpenRAG(FakeGenerator(), FakeRetriever([FERRY, BRIDGE]), reranker).answer("When?")
    assert json.loads(json.dumps(answer.to_dict()))["answer"] == "1893"
    unsure = LangChainReranker(InFloat32(unsure=[1]), min_relevance=0.0)
    (ranked,) = unsure.rerank(["a"], [[FERRY, BRIDGE]], 1)
    assert [one.id for one in ranked] == ["f1"]  # a score that is no number is the worst
    found = to_passage(Document("1893", metadata={"score": np.float32(0.5)}))
    assert json.dumps(found.retrieval_score) == "0.5"


class Filtering(BaseDocumentCompressor):
    """A compressor that scores nothing."""

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,  # noqa: ARG002
        callbacks: Any = None,  # noqa: ANN401, ARG002
    ) -> Sequence[Document]:
        return documents[:1]


def test_a_retrievers_score_is_no_rerankers() -> None:
    """Documents of ours bear one under the same name."""
    found = [replace(BRIDGE, metadata={"relevance_score": 0.9})]
    with pytest.raises(ConfigError, match="documents without relevance_score"):
        LangChainReranker(Filtering(), min_relevance=0.1).rerank(["a"], [found], 1)


async def test_any_chat_model_can_write_the_answers() -> None:
    chat = LangChainChat(FakeListChatModel(responses=["It was 1893.", "It was 1912."]))
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2})
    rag = OpenRAG(ChatGenerator(chat), FakeRetriever([BRIDGE, FERRY]), reranker)
    answer = rag.answer("When?")
    assert answer.grounded
    assert [c.text for c in answer.candidates] == ["It was 1893.", "It was 1912."]
    answers = await asyncio.gather(rag.aanswer("When?"), rag.aanswer("When?"))
    assert all(one.text.startswith("It was") for one in answers)


def test_a_chat_models_probabilities_open_the_gate() -> None:
    told = {"content": [{"token": "18", "logprob": -0.1}, {"token": "93", "logprob": -2.0}]}
    says = [
        AIMessage("1893", response_metadata={"logprobs": told}),
        AIMessage("1893", response_metadata={"logprobs": told}),
    ]
    chat = LangChainChat(GenericFakeChatModel(messages=iter(says)))
    generator = ChatGenerator(chat)
    rag = OpenRAG(generator, FakeRetriever([BRIDGE]), gate=Gate("f_minp", 0.1))
    answer = rag.answer("When?")
    assert not answer.decision.retrieve
    assert answer.decision.value == pytest.approx(0.1353, abs=1e-4)  # exp(-2)
    silent = ChatGenerator(LangChainChat(FakeListChatModel(responses=["1893"])))
    with pytest.raises(ConfigError, match="does not tell the probabilities"):
        OpenRAG(silent, FakeRetriever([BRIDGE]), gate=Gate("f_minp", 0.1)).answer("When?")


def test_an_adaptive_retriever_takes_no_more_than_a_question() -> None:
    rag = OpenRAG(FakeGenerator(), FakeRetriever([BRIDGE]))
    with pytest.raises(ConfigError, match="leave out filter, k"):
        AdaptiveRetriever(rag=rag).invoke("When?", k=1, filter={"title": "x"})


def last_first(
    self: object,  # noqa: ARG001
    questions: Sequence[str],  # noqa: ARG001
    passages: Sequence[Sequence[Passage]],
    top_k: int,
) -> list[list[Passage]]:
    """In place of a service and of a model."""
    return [[replace(p, rerank_score=0.7) for p in reversed(own)][:top_k] for own in passages]


def test_coheres_service_ranks_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohere.CohereReranker, "rerank", last_first)
    compressor = CohereReranker("rerank-v3.5", top_n=1, api_key="key", max_retries=0)
    documents = [Document("1912", id="f1"), Document("1893", id="b1")]
    (best,) = compressor.compress_documents(documents, "When?")
    assert (best.id, best.metadata) == ("b1", {"relevance_score": 0.7})
    monkeypatch.delenv("CO_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="API key"):
        CohereReranker().compress_documents(documents, "When?")


def test_a_cross_encoder_ranks_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(self: object, path: str, **settings: object) -> None:  # noqa: ARG001
        asked.append((path, settings))

    monkeypatch.setattr(cross_encoder.CrossEncoderReranker, "__init__", load)
    monkeypatch.setattr(cross_encoder.CrossEncoderReranker, "rerank", last_first)
    compressor = CrossEncoderReranker("some/folder", min_score=0.8, device="cpu")
    assert compressor.compress_documents([Document("1912")], "When?") == []
    assert asked == [("some/folder", {"device": "cpu"})]
