"""Question and passages -> prompt: in the layout of the training, or by a chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from openrag_core.conversation import Message
from openrag_core.prompts import (
    PromptMode,
    count_tokens,
    encode_messages,
    encode_prompt,
    reading_messages,
)
from openrag_core.records import Evidence, Passage

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s|[。！？]")  # noqa: RUF001  (of Chinese and Japanese)


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt to answer a question from passages."""

    ids: list[int]
    evidence: tuple[Passage, ...]
    """What of the passages is in it."""
    truncated: bool
    """Whether something is not."""


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Writes the prompts of one model."""

    tokenizer: PreTrainedTokenizerBase
    trained: bool
    """Whether the model knows reflection tokens; it is asked by its chat template otherwise."""
    room: int
    """Longest prompt, in tokens."""
    instruction: str | None = None
    """For trained models: put in front of every prompt."""

    def deciding(self, question: str) -> list[int]:
        """Ends where a trained model decides whether to retrieve."""
        return self._trained(question, "bare")

    def drafting(self, question: str) -> list[int]:
        """Makes the model answer without reading."""
        if self.trained:
            return self._trained(question, "no_retrieval")
        return self.replying([Message("user", question)])

    def replying(self, messages: Sequence[Message]) -> list[int]:
        """Makes the model take the next turn of a conversation.

        A trained model, which knows instructions only, gets several turns as one.
        """
        if not self.trained:
            turns = [{"role": one.role, "content": one.text} for one in messages]
            return encode_messages(self.tokenizer, turns)
        said = [one for one in messages if one.role != "system"]
        system = [one.text for one in messages if one.role == "system"]
        names = [f"{one.role.capitalize()}: " if len(said) > 1 else "" for one in said]
        lines = [name + one.text for name, one in zip(names, said, strict=True)]
        return self._trained("\n".join([*system, *lines]), "no_retrieval")

    def reading(self, question: str, evidence: Evidence) -> Reading:
        """Makes the model answer from passages.

        What does not fit is cut: the last passage first, at the end of a sentence where there is
        one. The question never is: where it leaves no room for any text, the prompt is too long.
        """
        kept = [{"title": passage.title, "text": passage.text} for passage in evidence]
        ids = self._reading(question, kept)
        truncated = False
        while (excess := len(ids) - self.room) > 0:
            *others, last = kept
            if text := self._cut(last["text"], excess):
                kept = [*others, last | {"text": text}]
            elif others:
                kept = others  # a title alone is no evidence
            elif last["title"]:  # given up before the last of the text
                kept = [last | {"title": self._cut(last["title"], excess)}]
            else:
                break
            truncated, ids = True, self._reading(question, kept)
        return Reading(ids, tuple(evidence[: len(kept)]), truncated)

    def _reading(self, question: str, passages: Sequence[Mapping[str, str]]) -> list[int]:
        if self.trained:
            return self._trained(question, "retrieval", passages)
        return encode_messages(self.tokenizer, reading_messages(question, passages))

    def _cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens, and without the sentence that they were in.

        A sentence end that would cost half of what could be kept is passed over for a word's.
        Empty where only white space would be left.
        """
        length = count_tokens(self.tokenizer, text)
        if length <= tokens:
            return ""
        kept = text[: int(len(text) * (1 - tokens / length))]
        ends = [found.end() for found in _SENTENCE_END.finditer(kept)]
        if ends and ends[-1] > len(kept) / 2:
            return kept[: ends[-1]].rstrip()
        return kept.rpartition(" ")[0].rstrip() or kept.rstrip()

    def _trained(
        self, question: str, mode: PromptMode, evidence: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        return encode_prompt(
            self.tokenizer,
            question=question,
            mode=mode,
            evidence=evidence,
            instruction=self.instruction,
        )
