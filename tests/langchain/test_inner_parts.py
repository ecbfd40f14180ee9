"""langchain_openrag: parts of the pipeline that are LangChain's own run as parts of its runs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

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
    LangChainChat,
    LangChainReranker,
    LangChainRetriever,
    OpenRAGRunnable,
)
from langchain_openrag.runnable import RunnableInput
from langchain_openrag.tracing import inner_configs
from openrag_core import ChatGenerator, ConfigError, Draft, Gate, OpenRAG, Passage
from openrag_core.retrieval import PassageIndex
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
    assert inner_configs(1) is None


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


async def test_what_a_chat_model_uses_is_counted_in_a_batch_too() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}

    def says() -> GenericFakeChatModel:
        reply = AIMessage("1893", usage_metadata=usage, response_metadata={"model_name": "fake"})
        return GenericFakeChatModel(messages=iter([reply] * 8))

    passages = [Passage("p", "1893"), Passage("q", "1912")]
    for asynchronous in (False, True):
        rag = OpenRAGRunnable(
            rag=OpenRAG(ChatGenerator(LangChainChat(says())), FakeRetriever(passages))
        )
        counted = UsageMetadataCallbackHandler()
        config: RunnableConfig = {"callbacks": [counted]}
        _ = await rag.abatch(["a", "b"], config) if asynchronous else rag.batch(["a", "b"], config)
        assert counted.usage_metadata["fake"]["total_tokens"] == 4 * 4


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
