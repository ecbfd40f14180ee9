"""langchain_openrag: the pipeline in LCEL, with every input form, callbacks and batches."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import ValidationError

from langchain_openrag import AdaptiveRetriever, OpenRAGRunnable, create_openrag_tool
from langchain_openrag.graph import build_graph
from langchain_openrag.runnable import RunnableInput
from openrag_core import (
    ConfigError,
    Draft,
    Gate,
    IndexNotFoundError,
    OpenRAG,
    Passage,
    QuestionError,
    RerankerError,
    Written,
)
from tests.fakes import FakeGenerator, FakeReranker, FakeRetriever, tokens

BRIDGE = Passage(
    id="b1", text="1893", title="Bridge", source="b.md", metadata={"page": 3}, retrieval_score=0.5
)
FERRY = Passage(id="f1", text="1912", title="Ferry", source="f.md", retrieval_score=0.4)


@pytest.fixture
def generator() -> FakeGenerator:
    return FakeGenerator(drafts={"sure": Draft("memory", tokens(0.9))})


@pytest.fixture
def runnable(generator: FakeGenerator) -> OpenRAGRunnable:
    reranker = FakeReranker({"b1": 0.9, "f1": 0.2})
    return OpenRAGRunnable(rag=OpenRAG(generator, FakeRetriever([FERRY, BRIDGE]), reranker))


def test_it_gives_the_answer_with_its_context(runnable: OpenRAGRunnable) -> None:
    output = runnable.invoke("When?")
    assert output["answer"] == "1893"
    assert [document.page_content for document in output["context"]] == ["1893", "1912"]
    first = output["context"][0]
    assert first.id == "b1"
    assert first.metadata == {
        "page": 3,
        "title": "Bridge",
        "source": "b.md",
        "retrieval_score": 0.5,
        "relevance_score": 0.9,
    }
    assert output["grounded"]
    assert output["confidence"] == pytest.approx(0.9)
    assert output["gate"]["mode"] == "always"


@pytest.mark.parametrize(
    "value",
    [
        "When?",
        {"input": "When?"},
        {"question": "When?", "chat_history": []},
        {"query": "When?"},
        {"messages": [HumanMessage("When?"), AIMessage("I shall look it up.")]},
        {"messages": [("system", "Be brief."), ("user", "When?")]},
        {"messages": [{"role": "user", "content": "When?"}]},
        [SystemMessage("Be brief."), HumanMessage("When?")],
        HumanMessage("When?"),
        AIMessage("When?"),
        [HumanMessage([{"type": "text", "text": "When?"}])],
        ChatPromptTemplate.from_messages([("user", "{q}")]).invoke({"q": "When?"}),
    ],
)
def test_every_form_of_question_is_understood(
    runnable: OpenRAGRunnable, generator: FakeGenerator, value: RunnableInput
) -> None:
    assert runnable.invoke(value)["answer"] == "1893"
    assert generator.calls == [("write", ("When?",))]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": "When?"}, r"keys \['text'\]: give one of question, input, query"),
        ({"question": 7}, "question, input, query"),
        ({"messages": []}, "no human message among 0"),
        ({"messages": [{"text": "When?"}]}, "what stands under messages are none"),
        ([AIMessage("Hi")], "no human message among 1"),
        (7, "no question in what is int"),
        ("  ", "empty"),
    ],
)
def test_what_holds_no_question_is_refused(
    runnable: OpenRAGRunnable, value: RunnableInput, message: str
) -> None:
    with pytest.raises(QuestionError, match=message):
        runnable.invoke(value)


async def test_it_is_asynchronous_too(runnable: OpenRAGRunnable) -> None:
    assert (await runnable.ainvoke("When?"))["answer"] == "1893"
    assert [out["answer"] for out in await runnable.abatch(["a", "b"])] == ["1893", "1893"]
    pieces = [piece async for piece in runnable.astream("When?")]
    assert pieces == list(runnable.stream("When?"))


def test_what_is_no_pipeline_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match=r"expected a pipeline, such as .*build\(\).*got str"):
        OpenRAGRunnable(rag="bundled")  # type: ignore[arg-type]
    faces: list[Any] = [create_openrag_tool, build_graph, lambda rag: AdaptiveRetriever(rag=rag)]
    for face in faces:
        with pytest.raises(ValueError, match=r"expected a pipeline, such as"):
            face("bundled")


def test_a_threshold_wants_a_gate(runnable: OpenRAGRunnable) -> None:
    adaptive = OpenRAGRunnable(rag=runnable.rag, gate="f_minp", threshold=0.9)
    assert adaptive.configured.gate == Gate("f_minp", 0.9)
    assert OpenRAGRunnable(rag=adaptive.configured, gate="always").configured.gate.mode == "always"
    other = OpenRAGRunnable(rag=adaptive.configured, gate="f_meanp")
    assert other.configured.gate == Gate("f_meanp")  # the threshold was that of another signal
    assert OpenRAGRunnable(rag=adaptive.configured, gate="f_minp").configured == adaptive.configured
    with pytest.raises(ConfigError, match=r"threshold=0.9 does nothing with gate='always'"):
        OpenRAGRunnable(rag=runnable.rag, threshold=0.9).invoke("When?")


def test_a_batch_is_one_batch(runnable: OpenRAGRunnable, generator: FakeGenerator) -> None:
    outputs = runnable.batch(["a", {"input": "b"}, "c"])
    assert [output["answer"] for output in outputs] == ["1893"] * 3
    assert generator.calls == [("write", ("a", "b", "c"))]


async def test_a_bad_question_spoils_no_other(
    runnable: OpenRAGRunnable, generator: FakeGenerator
) -> None:
    nameless = [("user", "When?"), ("tool", "1893")]
    values: list[RunnableInput] = ["a", " ", {"text": "?"}, nameless, "b"]
    for outputs in (
        runnable.batch(values, return_exceptions=True),
        await runnable.abatch(values, return_exceptions=True),
    ):
        assert all(isinstance(output, QuestionError) for output in outputs[1:4])
        assert "has no tool_call_id" in str(outputs[3])
        assert [outputs[n]["answer"] for n in (0, 4)] == ["1893", "1893"]
    assert generator.calls[0] == ("write", ("a", "b"))
    with pytest.raises(QuestionError):
        runnable.batch(values)


async def test_an_index_that_is_not_there_is_asked_for_once(generator: FakeGenerator) -> None:
    class Gone(FakeRetriever):
        def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
            super().retrieve(questions, top_k)
            raise IndexNotFoundError("nothing is there")

    retriever = Gone([])
    runnable = OpenRAGRunnable(rag=OpenRAG(generator, retriever))
    asked: list[RunnableInput] = ["a", "b"]
    for outputs in (
        runnable.batch(asked, return_exceptions=True),
        await runnable.abatch(asked, return_exceptions=True),
    ):
        assert all(isinstance(one, IndexNotFoundError) for one in outputs)
        assert len(outputs) == 2
    assert [questions for questions, _ in retriever.calls] == [("a", "b")] * 2


@pytest.mark.parametrize(
    "error", [QuestionError("long"), ConnectionError("no"), RerankerError("429")]
)
async def test_a_question_that_the_model_cannot_answer_fails_alone(error: Exception) -> None:
    """Be it too long, or refused by whoever serves the model."""

    class Short(FakeGenerator):
        def write(self, questions: Sequence[str], evidence: Any) -> list[list[Written]]:  # noqa: ANN401
            if "long" in questions:
                raise error
            return super().write(questions, evidence)

    rag = OpenRAG(Short(), FakeRetriever([BRIDGE]))
    runnable = OpenRAGRunnable(rag=rag)
    values: list[RunnableInput] = ["a", "long", " ", "b"]
    for outputs in (
        runnable.batch(values, return_exceptions=True),
        await runnable.abatch(values, return_exceptions=True),
    ):
        assert isinstance(outputs[1], type(error))
        assert isinstance(outputs[2], QuestionError)
        assert [outputs[n]["answer"] for n in (0, 3)] == ["1893", "1893"]


def test_pieces_that_cannot_be_added_up_are_replaced(runnable: OpenRAGRunnable) -> None:
    pieces = iter([{"question": "Where?"}, {"question": "When?"}])
    assert list(runnable.transform(pieces)) == list(runnable.stream("When?"))
    with pytest.raises(QuestionError, match="nothing came in"):
        list(runnable.transform(iter([])))


def test_a_batch_keeps_each_items_config(runnable: OpenRAGRunnable) -> None:
    seen: list[tuple[object, list[str] | None]] = []

    class Spy(BaseCallbackHandler):
        def on_chain_start(
            self,
            serialized: dict[str, Any] | None,  # noqa: ARG002
            inputs: object,
            *,
            run_id: UUID,  # noqa: ARG002
            tags: list[str] | None = None,
            **_: Any,
        ) -> None:
            seen.append((inputs, tags))

    spy = Spy()
    runnable.batch(["a", "b"], [{"callbacks": [spy], "tags": [tag]} for tag in ("one", "two")])
    assert seen == [("a", ["one"]), ("b", ["two"])]


def test_it_stands_in_a_chain(runnable: OpenRAGRunnable) -> None:
    chain = (
        {"question": RunnablePassthrough()} | runnable | RunnableLambda(lambda out: out["answer"])
    )
    assert chain.invoke("When?") == "1893"
    assert list(chain.stream("When?")) == ["1893"]
    assert chain.get_graph().nodes


def test_what_is_answered_from_memory_has_no_context(generator: FakeGenerator) -> None:
    rag = OpenRAG(generator, FakeRetriever([BRIDGE]), gate=Gate("f_minp", 0.5))
    output = OpenRAGRunnable(rag=rag).invoke("sure")
    assert (output["answer"], output["context"], output["grounded"]) == ("memory", [], False)
    assert output["gate"]["value"] == pytest.approx(0.9)


def test_its_schemas_can_be_shown(runnable: OpenRAGRunnable) -> None:
    output = runnable.get_output_jsonschema()["$defs"]["RunnableOutput"]
    assert set(output["properties"]) >= {"answer", "context", "gate"}
    assert runnable.get_input_jsonschema()
    retrying = runnable.with_retry().with_config(tags=["x"])
    assert retrying.invoke("When?")["answer"] == "1893"
