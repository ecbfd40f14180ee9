"""Labels where no gold passage is known: a critic judges each passage.

Source: the critic of Self-RAG (Asai et al., arXiv:2310.11511, section 3.2.1), whose three questions
are asked here at once, with the answer given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from tenacity import RetryError, Retrying, stop_after_attempt, wait_random_exponential

from openrag_core.cache import JsonCache
from openrag_core.conversation import ChatModel, known_chat_name, say
from openrag_core.errors import ConfigError, CriticError
from openrag_core.replies import read_json
from openrag_core.training.questions import Question, Text

Support = Literal["full", "partial", "none"]
_SUPPORT: dict[Support, str] = {
    "full": "[Fully supported]",
    "partial": "[Partially supported]",
    "none": "[No support / Contradictory]",
}
_PROMPT = """\
You judge training data for question answering. Read the question, the answer that is expected, \
and one passage.

Question: {question}
Expected answer: {answer}
Passage:
\"\"\"
{passage}
\"\"\"

Reply with one JSON object and nothing else:
{{"relevant": true if the passage is about what the question asks, else false,
 "support": "full" if the passage alone proves the expected answer, "partial" if it proves a part \
of it, "none" if it proves nothing of it or contradicts it,
 "utility": 1 to 5, how well the expected answer, as far as the passage proves it, serves the \
person who asked}}"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a critic says about a passage and the answer to be learned from it.

    Raises:
        CriticError: A value is none of those allowed.
    """

    relevant: bool
    support: Support
    utility: int
    """1 to 5 stars."""

    def __post_init__(self) -> None:
        whole = isinstance(self.relevant, bool) and type(self.utility) is int
        whole = whole and isinstance(self.support, str)
        if not whole or self.support not in _SUPPORT or not 1 <= self.utility <= 5:
            raise CriticError(
                f"relevant must be true or false, support one of {', '.join(get_args(Support))} "
                f"and utility 1 to 5; got {self.relevant!r}, {self.support!r}, {self.utility!r}"
            )

    @property
    def tokens(self) -> tuple[str, str]:
        """The reflection tokens in front of the answer, and behind it."""
        relevance = "[Relevant]" if self.relevant else "[Irrelevant]"
        return relevance, f"{_SUPPORT[self.support]}[Utility:{self.utility}]"


@runtime_checkable
class Critic(Protocol):
    """Judges passages; several threads may ask at once."""

    @property
    def name(self) -> str:
        """What tells this critic from others; judgements are kept under it."""
        ...

    def judge(self, question: str, answer: str, passage: Text) -> Judgement:
        """Judge one passage.

        Raises:
            CriticError: There is no judgement to be had.
        """
        ...


def check_critic(critic: object) -> None:
    """Refuse what cannot judge, before anything is computed or paid for.

    Raises:
        ConfigError: It has no `name` or no `judge`.
    """
    if not isinstance(critic, Critic):
        raise ConfigError(
            f"the critic must be an object with `name` and `judge`; got {type(critic).__name__}: "
            "put a chat model into a ChatCritic"
        )


class ChatCritic:
    """A critic that asks a chat model.

    Args:
        chat: Asked with one message per passage, by several threads; its own temperature should be
            0. Such as `LangChainChat(model)` or `LlamaIndexChat(llm)`.
        name: What tells it from others; judgements are kept under it. By default its own `name`.
        attempts: How often it is asked before giving up, where it fails or its reply is no
            judgement; >= 1. In between is a pause that grows, drawn at random.
        longest_pause: In seconds.

    Raises:
        ConfigError: It is no chat model, or has no name.
    """

    def __init__(
        self,
        chat: ChatModel,
        *,
        name: str | None = None,
        attempts: int = 5,
        longest_pause: float = 60.0,
    ) -> None:
        self.name = known_chat_name(chat, name)
        self._chat = chat
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts), wait=wait_random_exponential(max=longest_pause)
        )

    def judge(self, question: str, answer: str, passage: Text) -> Judgement:
        """Judge one passage.

        Raises:
            CriticError: The model failed every time, or never gave a judgement.
        """
        prompt = _PROMPT.format(question=question, answer=answer, passage=passage.titled_text)
        try:
            judgement: Judgement = self._retrying.copy()(
                lambda: parse_judgement(say(self._chat, prompt))
            )
        except RetryError as error:
            reason = error.last_attempt.exception()
            raise CriticError(
                f"the critic {self.name} gave no judgement on {question[:80]!r}: "
                f"{type(reason).__name__}: {reason}. What it judged before is kept: run it again"
            ) from reason
        return judgement


def parse_judgement(reply: str) -> Judgement:
    """Read a reply; whatever surrounds the JSON object is passed over.

    Raises:
        CriticError: There is none, it is no judgement, or several contradict each other.
    """
    try:
        return read_json(reply, _judgement)
    except ValueError as error:
        raise CriticError(f"no judgement in the reply {reply[:200]!r}: {error}") from error


def _judgement(content: dict[str, Any]) -> Judgement:
    try:
        return Judgement(content["relevant"], content["support"], content["utility"])
    except KeyError as error:
        raise ValueError(f"it does not tell {error}") from error
    except CriticError as error:
        raise ValueError(str(error)) from error


def judge_all(
    questions: Sequence[Question],
    critic: Critic,
    *,
    cache: JsonCache,
    threads: int = 8,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Question, Text, Judgement]]:
    """Judge the unlabelled passages of all questions, in their order.

    Args:
        questions: Their field `passages` is judged with their first answer.
        critic: Asked only where the cache holds no judgement of it.
        cache: Keeps each judgement at once.
        threads: How many passages are judged at the same time.
        progress: Called with how many were judged since the last call.

    Raises:
        CriticError: There is no judgement to be had for one, or the critic fails.
    """

    def judge(pair: tuple[Question, Text]) -> Judgement:
        question, passage = pair
        key = (critic.name, question.question, question.answers[0], asdict(passage))
        kept: dict[str, Any] | None = cache.get(*key)
        if kept is None:
            found = _judged(critic, question, passage)
            cache.put(asdict(found), *key)
        else:
            found = Judgement(**kept)
        progress(1)
        return found

    pairs = [(question, passage) for question in questions for passage in question.passages]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="critic")
    try:
        for pair, judgement in zip(pairs, pool.map(judge, pairs), strict=True):
            yield (*pair, judgement)
    finally:
        pool.shutdown(cancel_futures=True)


def _judged(critic: Critic, question: Question, passage: Text) -> Judgement:
    try:
        found = critic.judge(question.question, question.answers[0], passage)
    except CriticError:
        raise
    except Exception as error:  # of the user's own code
        raise CriticError(
            f"the critic {critic.name} failed on {question.question[:80]!r} "
            f"({type(error).__name__}: {error}). What it judged before is kept: run it again"
        ) from error
    if not isinstance(found, Judgement):
        raise CriticError(
            f"the critic {critic.name} must give a Judgement; got {type(found).__name__}"
        )
    return found
