"""Open-RAG as a tool that a LlamaIndex agent can call; its sources stay with the result."""

from pathlib import Path

from llama_index.core.tools import QueryEngineTool

from llamaindex_openrag import OpenRAGQueryEngine
from openrag_core.build import Settings, build, open_index

DOCUMENTS = Path(__file__).parent / "documents"


def main() -> None:
    """Call the tool as an agent would."""
    settings = Settings(index=Path(".openrag"), max_new_tokens=40)
    index = open_index(settings)
    index.add_files(sorted(DOCUMENTS.iterdir()))

    engine = OpenRAGQueryEngine(build(settings, retriever=index))
    tool = QueryEngineTool.from_defaults(
        engine, name="lindrel", description="Facts about the town of Lindrel and its buildings."
    )

    output = tool.call("Who was the last keeper of the Keth Lighthouse?")
    print(output.content)
    for node in output.raw_output.source_nodes:
        print(f"{node.score:.2f} {node.metadata['title']}")
    index.close()


if __name__ == "__main__":
    main()
