"""langchain_openrag: parts of the pipeline that are LangChain's own run as parts of its runs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
)

from langchain_openrag import (
    AdaptiveRetriever,
    LangChainChat,
    LangChainReranker,
    LangChainRetriever,
    OpenRAGRunnable,
)
from langchain_openrag.runnable import RunnableInput
from langchain_openrag.tracing import inner_configs
from openrag_core import ChatGenerator, ConfigError, Draft, Gate, OpenRAG, Passage
from openrag_core.retrieval import MultihopRetriever, PassageIndex
from tests.fakes import FakeGenerator, FakeRetriever, tokens

USERS: list[RunnableConfig] = [{"configurable": {"user": name}} for name in ("Ana", "Ben")]


def _of_user(question: str, config: RunnableConfig) -> list[Document]:  # noqa: ARG001
    return [Document(config["configurable"]["user"])]


async def _given(runnable: Runnable[Any, Any], config: Any) -> list[list[str]]:  # noqa: ANN401
    inputs = ["When?", "When?"]
    given = runnable.batch(inputs, config), await runnable.abatch(inputs, config)
    return [[one["answer"] for one in own] for own in given]


async def test_each_question_of_a_batch_is_searched_with_its_own_fields() -> None:
    retriever = LangChainRetriever(RunnableLambda(_of_user))
    rag = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), retriever))
    for runnable in (rag, RunnableLambda(lambda question: question) | rag):
        assert await _given(runnable, USERS) == [["Ana", "Ben"]] * 2
        assert await _given(runnable, USERS[1]) == [["Ben", "Ben"]] * 2
    with inner_configs(1) as configs:
        assert configs == [{}]


async def test_each_question_may_have_a_filter_of_its_own(documents_index: PassageIndex) -> None:
    rag = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), documents_index, top_k=3))
    flexible = rag.configurable_fields(filter=ConfigurableField(id="filter"))
    titles = ("Velora Bridge", "Keth Lighthouse > Keepers")
    configs = [RunnableConfig(configurable={"filter": {"title": title}}) for title in titles]
    inputs: list[RunnableInput] = ["Who opened the bridge?"] * 2
    outputs = flexible.batch(inputs, configs), await flexible.abatch(inputs, configs)
    for own in outputs:
        found = [{document.metadata["title"] for document in one["context"]} for one in own]
        assert found == [{title} for title in titles]
    open_ = {document.metadata["title"] for document in rag.invoke(inputs[0])["context"]}
    assert len(open_) > 1
    closed = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), FakeRetriever([])), filter={"title": "x"})
    with pytest.raises(ConfigError, match="FakeRetriever takes no filter"):
        closed.invoke("When?")


async def test_questions_with_the_same_fields_stay_together() -> None:
    generator = FakeGenerator()
    retriever = LangChainRetriever(RunnableLambda(_of_user))
    rag = OpenRAGRunnable(rag=OpenRAG(generator, retriever))
    await _given(rag, USERS[0])
    assert generator.calls == [("write", ("When?", "When?"))] * 2


class Family(BaseCallbackHandler):
    """Notes the parent of each run, and the tags with which it began."""

    def __init__(self) -> None:
        self.parents: dict[UUID, UUID | None] = {}
        self.begun: list[tuple[str, UUID, list[str]]] = []

    def on_chain_start(self, *_: object, **kwargs: Any) -> None:
        self._note(kwargs)

    def on_retriever_start(self, *_: object, **kwargs: Any) -> None:
        self._note(kwargs)

    def _note(self, kwargs: dict[str, Any]) -> None:
        self.parents[kwargs["run_id"]] = kwargs["parent_run_id"]
        self.begun.append((kwargs["name"], kwargs["run_id"], kwargs["tags"]))


async def test_inner_runs_are_children_of_their_questions_run() -> None:
    sure, unsure = Draft("sure", tokens(0.9)), Draft("unsure", tokens(0.2))
    retriever = LangChainRetriever(
        RunnableLambda[str, list[Document]](lambda _: [Document("1893")]).with_config(
            run_name="shelf"
        )
    )
    for speculative in (False, True):
        generator = FakeGenerator(drafts={"a": sure, "b": unsure, "c": unsure})
        rag = OpenRAG(generator, retriever, gate=Gate("f_minp", 0.5), speculative=speculative)
        family = Family()
        configs: list[RunnableConfig] = [{"callbacks": [family], "tags": [tag]} for tag in "abc"]
        runnable = OpenRAGRunnable(rag=rag)
        runnable.batch(list("abc"), configs)
        await runnable.abatch(list("abc"), configs)
        questions = {id_: tags for name, id_, tags in family.begun if name == "OpenRAGRunnable"}
        inner = [(id_, tags) for name, id_, tags in family.begun if name == "shelf"]
        assert len(inner) == (6 if speculative else 4)
        for id_, tags in inner:
            parent = family.parents[id_]
            assert parent is not None
            assert questions[parent] == tags


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_chat_model_uses_is_counted_for_its_question(asynchronous: bool) -> None:
    usage = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    reply = AIMessage("1893", usage_metadata=usage, response_metadata={"model_name": "fake"})
    says = GenericFakeChatModel(messages=iter([reply] * 9))
    found = {"a": [Passage("p", "1893"), Passage("q", "1912")], "b": [], "c": [Passage("p", "?")]}
    rag = OpenRAGRunnable(rag=OpenRAG(ChatGenerator(LangChainChat(says)), FakeRetriever(found)))
    counts = [UsageMetadataCallbackHandler() for _ in found]
    configs: list[RunnableConfig] = [{"callbacks": [one]} for one in counts]
    inputs: list[RunnableInput] = list(found)
    _ = await rag.abatch(inputs, configs) if asynchronous else rag.batch(inputs, configs)
    told = [{name: one["total_tokens"] for name, one in c.usage_metadata.items()} for c in counts]
    assert told == [{"fake": 8}, {}, {"fake": 4}]


async def test_a_second_hop_is_searched_in_the_run_of_its_question() -> None:
    documents = [Document("The Bridge.", id="b"), Document("The Ferry.", id="f")]
    shelf = RunnableLambda[str, list[Document]](lambda _: documents).with_config(run_name="shelf")
    multihop = MultihopRetriever(LangChainRetriever(shelf))
    rag = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), multihop, hops=2))
    family = Family()
    configs: list[RunnableConfig] = [{"callbacks": [family], "tags": [tag]} for tag in "ab"]
    rag.batch(["a", "b"], configs)
    await rag.abatch(["a", "b"], configs)
    assert [tags for name, _, tags in family.begun if name == "shelf"] == [
        *(["a"], ["b"], ["a"], ["a"], ["b"], ["b"]) * 2
    ]


def test_a_pipeline_within_a_part_has_a_config_of_its_own() -> None:
    inner = OpenRAG(FakeGenerator(), LangChainRetriever(RunnableLambda(_of_user)))

    def nested(question: str) -> list[Document]:
        return [Document(passage.text) for passage in inner.retrieve(question)]

    bound = RunnableLambda(nested).with_config(configurable={"user": "Ben"})
    outer = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), LangChainRetriever(bound)))
    for config in (None, RunnableConfig(configurable={"tenant": 1})):
        assert outer.invoke("When?", config)["answer"] == "Ben"
    assert outer.invoke("When?", USERS[0])["answer"] == "Ana"  # as in any chain


def test_a_batch_within_a_part_leaves_the_outer_configs() -> None:
    by_user = LangChainRetriever(RunnableLambda(_of_user))
    inner = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), FakeRetriever([Passage("p", "1893")])))

    class Own:
        def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
            inner.batch(list(questions))
            return by_user.retrieve(questions, top_k)

    outer = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), Own()))
    outputs = outer.batch(["When?", "Where?"], USERS[0])
    assert [one["answer"] for one in outputs] == ["Ana", "Ana"]


def test_fields_that_cannot_be_compared_are_different() -> None:
    rag = OpenRAGRunnable(rag=OpenRAG(FakeGenerator(), FakeRetriever([Passage("p", "1893")])))
    configs: list[RunnableConfig] = [{"configurable": {"v": np.zeros(2)}} for _ in range(2)]
    assert [one["answer"] for one in rag.batch(["a", "b"], configs)] == ["1893", "1893"]


async def test_an_adaptive_retrievers_parts_run_within_its_run() -> None:
    shelf = RunnableLambda[str, list[Document]](lambda _: [Document("1893")])
    named = LangChainRetriever(shelf.with_config(run_name="shelf"))
    retriever = AdaptiveRetriever(rag=OpenRAG(FakeGenerator(), named))
    family = Family()
    retriever.invoke("When?", {"callbacks": [family]})
    await retriever.ainvoke("When?", {"callbacks": [family]})
    roots = [id_ for name, id_, _ in family.begun if name == "AdaptiveRetriever"]
    assert [family.parents[id_] for name, id_, _ in family.begun if name == "shelf"] == roots


class Listening(BaseDocumentCompressor):
    """Notes whose run it is called in."""

    heard: list[Any] = []  # noqa: RUF012  (pydantic copies it)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,  # noqa: ARG002
        callbacks: Any = None,  # noqa: ANN401
    ) -> Sequence[Document]:
        self.heard.append(callbacks.parent_run_id)
        return [Document("1893", metadata={**documents[0].metadata, "relevance_score": 0.9})]


def test_a_compressor_hears_of_the_run_that_it_works_for() -> None:
    compressor = Listening()
    reranker = LangChainReranker(compressor, min_relevance=0.0)
    rag = OpenRAG(FakeGenerator(), FakeRetriever([Passage("p", "1893")]), reranker)
    family = Family()
    OpenRAGRunnable(rag=rag).batch(["a", "b"], {"callbacks": [family]})
    assert compressor.heard == [id_ for name, id_, _ in family.begun if name == "OpenRAGRunnable"]
