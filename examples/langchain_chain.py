"""Open-RAG inside an LCEL chain: index a folder, ask, and keep the sources."""

from pathlib import Path

from langchain_core.runnables import RunnableLambda

from langchain_openrag import OpenRAGRunnable, RunnableOutput
from openrag_core.build import Settings, build, open_index

DOCUMENTS = Path(__file__).parent / "documents"


def main() -> None:
    """Ask two questions, the second as an agent would hand it over."""
    settings = Settings(index=Path(".openrag"), max_new_tokens=40)
    index = open_index(settings)
    index.add_files(sorted(DOCUMENTS.iterdir()))

    rag = OpenRAGRunnable(rag=build(settings, retriever=index))
    chain = rag | RunnableLambda(cite)

    print(chain.invoke("Who opened the Velora Bridge?"))
    print(chain.invoke({"messages": [("user", "How high is the Keth Lighthouse?")]}))
    index.close()


def cite(output: RunnableOutput) -> str:
    """The answer with the title of the passage that it was read from."""
    return f"{output['answer']} [{output['context'][0].metadata['title']}]"


if __name__ == "__main__":
    main()
