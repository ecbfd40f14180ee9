"""Question and passages -> prompt: in the layout of the training, or by a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from openrag_core.prompts import PromptMode, encode_messages, encode_prompt
from openrag_core.records import Evidence, Passage

READING = "Answer the question from the text. Use the words of the text."


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
        return self._chat(("user", question))

    def reading(self, question: str, evidence: Evidence) -> Reading:
        """Makes the model answer from passages.

        What does not fit is cut: the last passage first, at the end of a sentence where there is
        one. The question never is: with a question that is too long, the prompt is.
        """
        kept = [{"title": passage.title, "text": passage.text} for passage in evidence]
        ids = self._reading(question, kept)
        truncated = False
        while (excess := len(ids) - self.room) > 0:
            shorter = self._cut(kept[-1]["text"], excess)
            if not shorter and len(kept) == 1:
                break
            last = [kept[-1] | {"text": shorter}] if shorter else []
            kept, truncated = [*kept[:-1], *last], True
            ids = self._reading(question, kept)
        return Reading(ids, tuple(evidence[: len(kept)]), truncated)

    def _reading(self, question: str, passages: Sequence[Mapping[str, str]]) -> list[int]:
        if self.trained:
            return self._trained(question, "retrieval", passages)
        text = "\n\n".join(f"{p['title']}\n{p['text']}".strip() for p in passages)
        return self._chat(("system", READING), ("user", f"Text: {text}\n\nQuestion: {question}"))

    def _cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens, and without the sentence that they were in."""
        length = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if length <= tokens:
            return ""
        kept = text[: int(len(text) * (1 - tokens / length))]
        return kept[: kept.rfind(". ") + 1] or kept

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

    def _chat(self, *turns: tuple[str, str]) -> list[int]:
        messages = [{"role": role, "content": content} for role, content in turns]
        return encode_messages(self.tokenizer, messages)
