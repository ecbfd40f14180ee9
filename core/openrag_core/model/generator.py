"""The generator port, on a transformers model in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Generic, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from openrag_core.errors import ConfigError, GenerationError, QuestionError
from openrag_core.model.decoding import Continuation, GreedyDecoder, Prompt
from openrag_core.model.prompt_builder import PromptBuilder, Reading
from openrag_core.model.scheduler import Scheduler
from openrag_core.model.streaming import Texts
from openrag_core.ports import Settled
from openrag_core.records import Draft, Evidence, Passage, Token, Written
from openrag_core.reflection import RELEVANCE, TOKENS

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Work(Generic[_Result]):
    """Prompts, and what is made of their continuations."""

    prompts: Sequence[Prompt]
    finish: Callable[[Sequence[Continuation]], _Result]


class TransformersGenerator:
    """Drafts and writes answers, many at once; any number of threads and event loops may ask.

    What they ask at the same time is run in common batches. In bfloat16 a probability depends a
    little on the batch that it is computed in, so only one caller at a time gets the same numbers
    every time.

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
        ConfigError: A number is below 1, `max_new_tokens` leaves no room for a prompt, or the
            tokenizer lacks reflection tokens of the model.
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
        self._positions = _positions(model)
        if max_new_tokens >= self._positions:
            raise ConfigError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt: the model holds "
                f"{self._positions} tokens in all; ask for fewer"
            )
        self.prompts = PromptBuilder(
            tokenizer,
            trained=self.reflection_trained,
            room=self._positions - max_new_tokens,
            instruction=instruction,
        )
        self._decoder = GreedyDecoder(
            model,
            pad_id=next(id_ for id_ in (tokenizer.pad_token_id, 0) if id_ is not None),
            watch=[reflection[token] for token in self._watched],
            banned=[] if self.reflection_trained else list(reflection.values()),
            max_batch_tokens=max_batch_tokens,
        )
        self.ends = self._decoder.ends
        ends = {id_: str(tokenizer.convert_ids_to_tokens(id_)) for id_ in self.ends}
        self._special |= ends  # also where the tokenizer takes them for words
        self._scheduler = Scheduler(self._decoder)

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """Log-probabilities of the reflection tokens right after each question: one forward pass.

        Raises:
            ConfigError: The model's reflection tokens are not trained.
            QuestionError: A question is longer than the model.
            GenerationError: The model could not write.
        """
        return self._run(self._request(questions))

    async def arequest(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        """The same; the event loop goes on."""
        return await self._arun(self._request, questions)

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        """Answer each question without reading, conditioned on [No Retrieval].

        Args:
            questions: Any number.
            settled: Asked after each token of text whether the rest of a draft can be spared.

        Raises:
            QuestionError: A question is longer than the model.
            GenerationError: The model could not write.
        """
        return self._run(self._draft(questions, settled))

    async def adraft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        """The same; the event loop goes on."""
        return await self._arun(self._draft, questions, settled)

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """Answer each question once from each piece of its evidence.

        Passages that are too long for the model are cut, the last one first and at the end of a
        sentence where there is one; a question never is.

        Args:
            questions: Length Q.
            evidence: Of each question; length Q, any number each.

        Returns:
            In the order of the evidence; length Q.

        Raises:
            QuestionError: A question is longer than the model.
            GenerationError: The model could not write.
        """
        return self._run(self._write(questions, evidence))

    async def awrite(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        """The same; the event loop goes on."""
        return await self._arun(self._write, questions, evidence)

    def judge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        """p([Relevant]) of each passage alone, in [0, 1]: one forward pass, nothing is written.

        Raises:
            ConfigError: The model's reflection tokens are not trained.
            QuestionError: A question is longer than the model.
            GenerationError: The model could not read.
        """
        return self._run(self._judge(questions, passages))

    async def ajudge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> list[list[float]]:
        """The same; the event loop goes on."""
        return await self._arun(self._judge, questions, passages)

    def begin_draft(self, question: str) -> Texts[Draft]:
        """As `draft`, of one question, to its end; the text can be read while it is written."""
        return self._draft_texts(self.prompts.drafting(question))

    async def abegin_draft(self, question: str) -> Texts[Draft]:
        """The same; the event loop goes on, and a cancelled task has begun nothing."""
        return self._draft_texts(await asyncio.to_thread(self.prompts.drafting, question))

    def begin_write(self, question: str, evidence: Sequence[Evidence]) -> Texts[Written]:
        """As `write`, of one question; the texts can be read while they are written."""
        return self._write_texts(self._readings(question, evidence))

    async def abegin_write(self, question: str, evidence: Sequence[Evidence]) -> Texts[Written]:
        """The same; the event loop goes on, and a cancelled task has begun nothing."""
        return self._write_texts(await asyncio.to_thread(self._readings, question, evidence))

    def _draft_texts(self, ids: list[int]) -> Texts[Draft]:
        prompt = Prompt(ids, self.max_new_tokens)
        return Texts(self, [prompt], lambda _, one: self._drafted(self.whole(one)))

    def _write_texts(self, readings: Sequence[Reading]) -> Texts[Written]:
        prompts = [Prompt(reading.ids, self.max_new_tokens, group=0) for reading in readings]
        return Texts(self, prompts, lambda n, one: self._written(readings[n], self.whole(one)))

    def _readings(self, question: str, evidence: Sequence[Evidence]) -> list[Reading]:
        return [self.prompts.reading(question, one) for one in evidence]

    def _judge(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> _Work[list[list[float]]]:
        if not self.reflection_trained:
            raise ConfigError("only a model with trained reflection tokens judges passages")
        prompts = [
            Prompt(self.prompts.reading(question, (passage,)).ids, 1, group=number)
            for number, (question, own) in enumerate(zip(questions, passages, strict=True))
            for passage in own
        ]

        def finish(written: Sequence[Continuation]) -> list[list[float]]:
            first = (self.tokens(one)[0].reflections for one in written)
            return [[RELEVANCE.mean_worth(next(first)) for _ in own] for own in passages]

        return _Work(prompts, finish)

    def _request(self, questions: Sequence[str]) -> _Work[list[Mapping[str, float]]]:
        if not self.reflection_trained:
            raise ConfigError("f_ret needs a model with trained reflection tokens: use f_minp")
        prompts = [Prompt(self.prompts.deciding(question), 1) for question in questions]
        return _Work(prompts, lambda written: [self.tokens(one)[0].reflections for one in written])

    def _draft(self, questions: Sequence[str], settled: Settled | None) -> _Work[list[Draft]]:
        limit = self.max_new_tokens
        stop = None if settled is None else partial(self._settled, settled)
        asking = map(self.prompts.drafting, questions)
        prompts = [Prompt(ids, limit, stop=stop) for ids in asking]

        return _Work(prompts, lambda written: [self._drafted(one) for one in written])

    def _write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> _Work[list[list[Written]]]:
        limit = self.max_new_tokens
        pairs = zip(questions, evidence, strict=True)
        readings = [self._readings(question, own) for question, own in pairs]
        prompts = [
            Prompt(reading.ids, limit, group=number)
            for number, own in enumerate(readings)
            for reading in own
        ]

        def finish(continuations: Sequence[Continuation]) -> list[list[Written]]:
            rest = iter(continuations)
            return [[self._written(reading, next(rest)) for reading in own] for own in readings]

        return _Work(prompts, finish)

    def _drafted(self, one: Continuation) -> Draft:
        complete = len(one.ids) == self.max_new_tokens or one.ids[-1] in self.ends
        return Draft(self.text(one.ids), self.tokens(one), complete=complete)

    def _written(self, reading: Reading, one: Continuation) -> Written:
        text, tokens = self.text(one.ids), self.tokens(one)
        return Written(reading.evidence, text, tokens, truncated=reading.truncated)

    def _settled(self, settled: Settled, written: Continuation) -> bool:
        tokens = zip(written.ids, written.logprobs, strict=True)
        text = [logprob for id_, logprob in tokens if id_ not in self._special]
        most = self.max_new_tokens - (len(written.ids) - len(text))
        return bool(text) and settled(text, most)

    def _run(self, work: _Work[_Result]) -> _Result:
        future = self.submit(work.prompts)
        try:
            return work.finish([self.whole(one) for one in future.result()])
        finally:
            future.cancel()  # an interrupted caller waits no more

    async def _arun(self, prepare: Callable[..., _Work[_Result]], *args: object) -> _Result:
        """The same for an event loop; the tokenizer, too, runs outside of it."""
        work = await asyncio.to_thread(prepare, *args)
        written = await asyncio.wrap_future(self.submit(work.prompts))
        return await asyncio.to_thread(work.finish, [self.whole(one) for one in written])

    def submit(self, prompts: Sequence[Prompt]) -> Future[list[Continuation]]:
        """Have prompts continued, together with what others ask; see `Scheduler.submit`.

        Raises:
            QuestionError: One is too long for the model.
        """
        for prompt in prompts:
            if len(prompt.ids) + prompt.max_new_tokens > self._positions:
                raise QuestionError(
                    f"the prompt has {len(prompt.ids)} tokens and the answer up to "
                    f"{prompt.max_new_tokens}, but the model holds {self._positions}: "
                    "shorten the question, or index smaller passages"
                )
        return self._scheduler.submit(prompts)

    @staticmethod
    def whole(written: Continuation) -> Continuation:
        """What was written, if it is made of numbers.

        Raises:
            GenerationError: It is not.
        """
        if isnan(written.logprobs[-1]):
            raise GenerationError(
                "the model computes what is no number (NaN): choose another dtype (bfloat16 or "
                "float32 in place of float16), or check that its weights are whole"
            )
        return written

    def text(self, ids: list[int]) -> str:
        """The text that ids stand for, without special tokens."""
        words = [id_ for id_ in ids if id_ not in self._special]
        return str(self.tokenizer.decode(words, clean_up_tokenization_spaces=False))

    def tokens(self, continuation: Continuation) -> tuple[Token, ...]:
        """What was written, as records."""
        return tuple(
            Token(
                text=self._special.get(id_) or self.text([id_]),
                logprob=logprob,
                special=id_ in self._special,
                reflections=dict(zip(self._watched, watched, strict=True)),
            )
            for id_, logprob, watched in zip(
                continuation.ids, continuation.logprobs, continuation.watched, strict=True
            )
        )


def _positions(model: PreTrainedModel) -> int:
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        raise ConfigError(
            f"{type(model).__name__} does not say how long a text it holds "
            "(max_position_embeddings): choose another model"
        )
    return positions
