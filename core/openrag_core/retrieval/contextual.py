"""What the encoders see before a piece of a document: where it stands, and what it is about.

Source: Anthropic, Introducing Contextual Retrieval (September 2024), for the sentence by a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from openrag_core.cache import JsonCache
from openrag_core.conversation import ChatModel, known_chat_name, say
from openrag_core.errors import DocumentError
from openrag_core.retrieval.chunking import Chunk
from openrag_core.retrieval.documents import Document

_PROMPT = """\
<document title="{title}">
{document}
</document>
<passage>
{passage}
</passage>
Write one sentence that tells a reader who sees the passage alone what it is about: name the \
subject, the place and the time that the document gives. Write nothing else."""
_AROUND = 6000  # characters of a long document that a model is shown


class Contextualizer(Protocol):
    """Pieces of a document -> what is put before each when it is encoded."""

    @property
    def name(self) -> str:
        """Kept with the index: all its pieces were encoded alike."""
        ...

    def __call__(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:
        """One text per piece; may be empty."""
        ...


class TitleContext:
    """The document's title and the headings above the piece."""

    name = "title"

    def __call__(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:  # noqa: ARG002
        """The title of each piece's section."""
        return [chunk.title for chunk in chunks]


class NoContext:
    """Nothing: the pieces speak for themselves."""

    name = "none"

    def __call__(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:  # noqa: ARG002
        """Empty texts."""
        return ["" for _ in chunks]


class AbsentContext:
    """That of an index which is opened without the model that wrote it: good for searching."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:  # noqa: ARG002
        """Refuse to encode other texts otherwise than those that are there.

        Raises:
            DocumentError: Always.
        """
        raise DocumentError(
            f"{document.source}: the contexts in this index were written by {self.name!r}: open it "
            "with that contextualizer to index more"
        )


class ChatContext:
    """Title and headings, and a sentence that a language model writes about the piece.

    Args:
        chat: Asked with one message per piece, by several threads. Such as `LangChainChat(model)`
            or `LlamaIndexChat(llm)`.
        name: Of the model, kept with the index; by default its own `name`.
        cache: Keeps the sentences, so that indexing again asks nothing twice.
        threads: Most prompts at once.

    Raises:
        ConfigError: It is no chat model, or has no name.
    """

    def __init__(
        self,
        chat: ChatModel,
        *,
        name: str | None = None,
        cache: JsonCache | None = None,
        threads: int = 8,
    ) -> None:
        self.name = f"chat {known_chat_name(chat, name)}"
        self._chat = chat
        self._cache = cache or JsonCache()
        self._threads = threads

    def __call__(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:
        """Ask for each piece.

        Raises:
            DocumentError: The model could not be asked.
        """
        whole = "\n\n".join(section.text for section in document.sections)

        def context(chunk: Chunk) -> str:
            found = whole.find(chunk.text)
            start = max(0, found - _AROUND // 2)
            prompt = _PROMPT.format(
                title=chunk.title, document=whole[start : start + _AROUND], passage=chunk.text
            )
            sentence = self._cache.get(self.name, prompt)
            if sentence is None:
                sentence = " ".join(say(self._chat, prompt).split())
                if sentence:  # a thought that was cut off leaves none
                    self._cache.put(sentence, self.name, prompt)
            return f"{chunk.title}\n{sentence}".strip()

        try:
            with ThreadPoolExecutor(self._threads) as threads:
                return list(threads.map(context, chunks))
        except Exception as error:  # models of any make fail in any way
            raise DocumentError(
                f"{document.source}: {self.name} wrote no context "
                f"({type(error).__name__}: {error}); what it wrote before is kept"
            ) from error
