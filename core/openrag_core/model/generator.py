"""The generator port, on a transformers model in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from openrag_core.errors import ConfigError, QuestionError
from openrag_core.model.decoding import Continuation, GreedyDecoder
from openrag_core.prompts import PromptMode, encode_messages, encode_prompt
from openrag_core.records import Draft, Passage, Token, Written
from openrag_core.reflection import TOKENS

READING = "Answer the question from the text. Use the words of the text."


class TransformersGenerator:
    """Drafts and writes answers, many at once.

    A model with trained reflection tokens is asked in the layout it was trained on. Any other is
    asked through its own chat template, and kept from writing reflection tokens, so that its text
    and probabilities are those of the dense model.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Of that model.
        max_new_tokens: Longest answer, in tokens, >= 1.
        max_batch_tokens: Most tokens, padding included, that run through the model at once; a
            single longer prompt runs alone.
        instruction: For trained models: put in front of every prompt, for instance how long an
            answer to give.

    Raises:
        ConfigError: A number is below 1, or the tokenizer lacks reflection tokens of the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 64,
        max_batch_tokens: int = 8192,
        instruction: str | None = None,
    ) -> None:
        if max_new_tokens < 1 or max_batch_tokens < 1:
            raise ConfigError(
                "max_new_tokens and max_batch_tokens must be at least 1; "
                f"got {max_new_tokens}, {max_batch_tokens}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.instruction = instruction
        self.reflection_trained: bool = getattr(model.config, "reflection_trained", False)
        added = tokenizer.added_tokens_decoder.items()
        reflection = {str(token): id_ for id_, token in added if str(token) in TOKENS}
        self._special = {id_: str(token) for id_, token in added if token.special}
        self._special |= {id_: token for token, id_ in reflection.items()}
        self._watched = tuple(reflection) if self.reflection_trained else ()
        if self.reflection_trained and (absent := set(TOKENS) - set(reflection)):
            raise ConfigError(
                f"the model's reflection tokens are trained, but its tokenizer lacks "
                f"{', '.join(sorted(absent))}: load the tokenizer that belongs to it"
            )
        self._positions: int = model.config.get_text_config().max_position_embeddings
        self._decode = GreedyDecoder(
            model,
            pad_id=next(id_ for id_ in (tokenizer.pad_token_id, 0) if id_ is not None),
            watch=[reflection[token] for token in self._watched],
            banned=[] if self.reflection_trained else list(reflection.values()),
            max_batch_tokens=max_batch_tokens,
        )

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """Log-probabilities of the reflection tokens right after each question: one forward pass.

        Raises:
            ConfigError: The model's reflection tokens are not trained.
        """
        if not self.reflection_trained:
            raise ConfigError("f_ret needs a model with trained reflection tokens: use f_minp")
        prompts = [self._prompt(question, "bare") for question in questions]
        return [tokens[0].reflections for _, tokens in self._generate(prompts, 1)]

    def draft(self, questions: Sequence[str]) -> list[Draft]:
        """Answer each question without reading, conditioned on [No Retrieval]."""
        if self.reflection_trained:
            prompts = [self._prompt(question, "no_retrieval") for question in questions]
        else:
            prompts = [self._chat(("user", question)) for question in questions]
        return [Draft(*generated) for generated in self._generate(prompts, self.max_new_tokens)]

    def write(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[Written]]:
        """Answer each question once from each of its passages.

        A passage that is too long for the model is cut, at the end of a sentence where there is
        one; a question never is.

        Args:
            questions: Length Q.
            passages: Of each question; length Q, any number each.

        Returns:
            In the order of the passages; length Q.
        """
        pairs = [(q, p) for q, own in zip(questions, passages, strict=True) for p in own]
        prompts = [self._reading(question, passage) for question, passage in pairs]
        answers = self._generate(prompts, self.max_new_tokens)
        written = (
            Written(passage, *generated)
            for (_, passage), generated in zip(pairs, answers, strict=True)
        )
        return [[next(written) for _ in own] for own in passages]

    def _prompt(
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

    def _reading(self, question: str, passage: Passage) -> list[int]:
        text = passage.text
        prompt = self._evidence(question, passage.title, text)
        while text and (excess := len(prompt) + self.max_new_tokens - self._positions) > 0:
            kept = text[: int(len(text) * (1 - excess / len(prompt)))]
            text = kept[: kept.rfind(". ") + 1] or kept
            prompt = self._evidence(question, passage.title, text)
        return prompt

    def _evidence(self, question: str, title: str, text: str) -> list[int]:
        if self.reflection_trained:
            return self._prompt(question, "retrieval", [{"title": title, "text": text}])
        read = f"{title}\n{text}".strip()
        return self._chat(("system", READING), ("user", f"Text: {read}\n\nQuestion: {question}"))

    def _generate(
        self, prompts: Sequence[list[int]], limit: int
    ) -> list[tuple[str, tuple[Token, ...]]]:
        """The text and the tokens of each continuation."""
        if (longest := max(map(len, prompts), default=0)) + limit > self._positions:
            raise QuestionError(
                f"the prompt has {longest} tokens and the answer up to {limit}, but the model "
                f"holds {self._positions}: shorten the question, or index smaller passages"
            )
        return [(self._text(c.ids), self._tokens(c)) for c in self._decode(prompts, limit)]

    def _text(self, ids: list[int]) -> str:
        words = [id_ for id_ in ids if id_ not in self._special]
        return str(self.tokenizer.decode(words, clean_up_tokenization_spaces=False))

    def _tokens(self, continuation: Continuation) -> tuple[Token, ...]:
        return tuple(
            Token(
                text=self._special.get(id_) or self._text([id_]),
                logprob=logprob,
                special=id_ in self._special,
                reflections=dict(zip(self._watched, watched, strict=True)),
            )
            for id_, logprob, watched in zip(
                continuation.ids, continuation.logprobs, continuation.watched, strict=True
            )
        )
