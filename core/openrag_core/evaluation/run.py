"""Each question is answered twice, from memory and from what is read, and both are scored.

What a gate would have decided can then be worked out afterwards, for every threshold.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, get_args

from openrag_core import __version__
from openrag_core.errors import ConfigError, EvaluationError, QuestionError
from openrag_core.evaluation import results
from openrag_core.evaluation.adaptive import curves, trials
from openrag_core.evaluation.examples import Example
from openrag_core.evaluation.plots import adaptive_curve, png
from openrag_core.evaluation.summary import WAYS, Way, summarise
from openrag_core.evaluation.tasks import Said, Task, task
from openrag_core.gate import Gate, f_meanp, f_minp, f_ret
from openrag_core.pipeline import OpenRAG
from openrag_core.ports import Generator, Settled
from openrag_core.records import Answer, Decision, Draft, Evidence, Passage, Written

Source = Literal["given", "index", "none"]
_VERSIONS = ("torch", "transformers", "qdrant-edge-py", "sentence-transformers", "rouge-score")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of an evaluation."""

    folder: Path
    summary: Mapping[str, Any]
    """See `summarise`."""
    asked: int
    """Questions that were answered now; the others were there."""


def evaluate(  # noqa: PLR0913  (each is named where it is called)
    rag: OpenRAG,
    name: str,
    data: Path,
    folder: Path,
    *,
    passages: Source | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Evaluated:
    """Run a task, or go on with it where it was interrupted.

    Args:
        rag: Answers; its gate is not asked.
        name: Of the task; see `TASKS`.
        data: The examples.
        folder: Where the results are kept; see `results`.
        passages: What is read: "given", those that come with the rows; "index", those that the
            retriever finds; "none", nothing. By default those of the rows, if they bring any.
        limit: Most questions, from the first on. It may grow from run to run.
        batch_size: Questions that are answered together, and lost together if the run is stopped.
        settings: What else determines the numbers, such as the model's name; kept with them.
        progress: Called with how many questions were done since the last call, and of how many;
            first with those that were there.

    Raises:
        EvaluationError: The task, the data or the folder cannot be used; the message says why.
        ConfigError: Two settings contradict each other.
        OpenRAGError: A part of the pipeline failed.
    """
    chosen = task(name)
    examples = chosen.read(data)
    source = _source(data, examples, passages)
    _check(rag, source, limit=limit, batch_size=batch_size)
    if source == "none" and chosen.needs == "sources":
        raise EvaluationError(
            f"{name} measures what answers rest on: read the passages of the rows, or an index"
        )
    config = {
        "task": name,
        "data": {"file": data.name, "sha256": results.fingerprint(data)},
        "passages": source,
        "pipeline": describe(rag),
        "settings": dict(settings or {}),
        "versions": _versions(),
    }
    wanted = examples[:limit]
    with results.opened(folder, config) as kept:
        done = kept.ids
        rest = [example for example in wanted if example.id not in done]
        progress(len(wanted) - len(rest), len(wanted))
        for batch in _batches(rest, batch_size):
            kept.append(_answered(_Pass(rag, chosen, name, source, batch)))
            progress(len(batch), len(wanted))
        summary = summarise(kept.records)
        kept.conclude(summary, *_curves(kept.records, summary["metric"]))
    return Evaluated(folder, summary, len(rest))


def source_of(name: str, data: Path, wanted: Source | None) -> Source:
    """What will be read, where it was left open; arguments and errors as in `evaluate`."""
    return _source(data, task(name).read(data), wanted)


def describe(rag: OpenRAG) -> dict[str, Any]:
    """What of a pipeline determines its answers, as far as it can be told from outside."""
    return {
        "generator": type(rag.generator).__name__,
        "reflection_trained": rag.generator.reflection_trained,
        "retriever": type(rag.retriever).__name__,
        "reranker": None if rag.reranker is None else type(rag.reranker).__name__,
        "evidence": rag.evidence,
        "hops": rag.hops,
        "top_k": rag.top_k,
        "fetch_k": rag.fetch_k,
        "weights": asdict(rag.score_weights),
        "min_relevance": str(rag.minima.relevance),
        "min_support": str(rag.minima.support),
    }


@dataclass(frozen=True, slots=True)
class _Pass:
    """Questions that are answered together; each stands in it once."""

    rag: OpenRAG
    task: Task
    name: str
    source: Source
    batch: Sequence[Example]

    def records(self) -> list[results.Record]:
        questions = [example.question for example in self.batch]
        prompts = {example.question: self.task.prompt(example) for example in self.batch}
        asked = replace(self.rag, generator=_Prompting(self.rag.generator, prompts))
        started = perf_counter()
        recalled = replace(asked, gate=Gate("never")).answer_many(questions)
        took = (perf_counter() - started) / len(questions)
        requests: list[float | None] = [None] * len(questions)
        if self.rag.generator.reflection_trained:
            requests = [f_ret(one) for one in asked.generator.request(questions)]
        read: Sequence[Answer | None] = [None] * len(questions)
        if self.source != "none":
            read = self._reader(asked).answer_many(questions)
        return [
            self._record(example, memory, took, request, reading)
            for example, memory, request, reading in zip(
                self.batch, recalled, requests, read, strict=True
            )
        ]

    def refused(self, reason: str) -> results.Record:
        """Of the only question, which cannot be asked: nothing is said, and that is wrong."""
        (example,) = self.batch
        never, always = Decision(retrieve=False, mode="never"), Decision(True, "always")
        memory = Answer(example.question, "", never, 0.0, grounded=False, draft=Draft("", ()))
        reading = replace(memory, decision=always, draft=None) if self.source != "none" else None
        request = 1.0 if self.rag.generator.reflection_trained else None
        record = self._record(example, memory, 0.0, request, reading)
        scores = {way: dict.fromkeys(own, 0.0) for way, own in record["scores"].items()}
        return record | {"scores": scores, "extra": {**record["extra"], "refused": reason}}

    def _reader(self, asked: OpenRAG) -> OpenRAG:
        if self.source == "index":
            return replace(asked, gate=Gate())
        found = {example.question: example.passages for example in self.batch}
        most = max(map(len, found.values()))
        fetch_k = max(self.rag.top_k, most)  # the reranker sees all of them
        return replace(asked, gate=Gate(), retriever=GivenRetriever(found), fetch_k=fetch_k)

    def _record(
        self,
        example: Example,
        memory: Answer,
        took: float,
        request: float | None,
        reading: Answer | None,
    ) -> results.Record:
        draft = memory.draft or Draft("", ())
        said: dict[Way, Said] = {"memory": self.task.said(example, memory)}
        if reading is not None:
            said["reading"] = self.task.said(example, reading)
        return {
            "id": example.id,
            "question": example.question,
            "answers": list(example.answers),
            "answerable": example.answerable,
            "task": self.name,
            "kind": example.kind,
            "memory": {
                "text": draft.text.strip(),
                "confidence": memory.confidence,
                "seconds": took,
                "tokens": len(draft.tokens),
            },
            "reading": None if reading is None else self._reading(reading),
            "signals": {"f_minp": f_minp(draft), "f_meanp": f_meanp(draft), "f_ret": request},
            "scores": {
                way: self.task.scores(said[way], example) if way in said else {} for way in WAYS
            },
            "metric": self.task.metric,
            "extra": {**example.extra, "said": {way: one.text for way, one in said.items()}},
        }

    def _reading(self, answer: Answer) -> dict[str, Any]:
        share = {stage: took / len(self.batch) for stage, took in answer.seconds.items()}
        tokens = sum(len(candidate.written.tokens) for candidate in answer.candidates)
        return answer.to_dict() | {"seconds": share, "tokens": tokens}


def _answered(asked: _Pass) -> list[results.Record]:
    try:
        return asked.records()
    except QuestionError as error:  # which does not know the row
        if len(asked.batch) == 1:
            return [asked.refused(str(error))]
        alone = (replace(asked, batch=[example]) for example in asked.batch)
        return [record for one in alone for record in _answered(one)]


@dataclass(frozen=True, slots=True)
class _Prompting:
    """A generator that is asked in a task's words, while passages are found by the question."""

    generator: Generator
    prompts: Mapping[str, str]

    @property
    def reflection_trained(self) -> bool:
        return self.generator.reflection_trained

    def request(self, questions: Sequence[str]) -> list[Mapping[str, float]]:
        return self.generator.request(self._prompts(questions))

    def draft(self, questions: Sequence[str], settled: Settled | None = None) -> list[Draft]:
        return self.generator.draft(self._prompts(questions), settled)

    def write(
        self, questions: Sequence[str], evidence: Sequence[Sequence[Evidence]]
    ) -> list[list[Written]]:
        return self.generator.write(self._prompts(questions), evidence)

    def _prompts(self, questions: Sequence[str]) -> list[str]:
        return [self.prompts[question] for question in questions]


@dataclass(frozen=True, slots=True)
class GivenRetriever:
    """Finds the passages that came with the questions.

    Without any, it is what a pipeline is made with that reads from no index.
    """

    passages: Mapping[str, Sequence[Passage]] = field(default_factory=dict)

    def retrieve(self, questions: Sequence[str], top_k: int) -> list[list[Passage]]:
        """Those of each question, in their order."""
        return [list(self.passages[question][:top_k]) for question in questions]


def _curves(
    records: Sequence[results.Record], metric: str
) -> tuple[dict[str, Any], bytes] | tuple[None, None]:
    """The adaptive curve, in numbers and as a picture, where questions were answered both ways."""
    both = trials(records)
    if not both:
        return None, None
    swept = curves(both)
    numbers = {"metric": metric, "n": len(both), "curves": [one.to_dict() for one in swept]}
    return numbers, png(adaptive_curve(swept, metric=metric))


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """In their order; a question that is asked of several rows is asked in several batches."""
    batch: dict[str, Example] = {}
    for example in examples:
        if example.question in batch or len(batch) == size:
            yield list(batch.values())
            batch = {}
        batch[example.question] = example
    if batch:
        yield list(batch.values())


def _source(data: Path, examples: Sequence[Example], wanted: Source | None) -> Source:
    brought = any(example.passages for example in examples)
    source = wanted or ("given" if brought else "index")
    if source not in get_args(Source):
        raise ConfigError(f"passages must be one of {', '.join(get_args(Source))}; got {wanted!r}")
    if source == "given" and not brought:
        raise EvaluationError(
            f'{data}: no row brings passages of its own: read from an index (passages "index"), '
            'or nothing ("none")'
        )
    return source


def _check(rag: OpenRAG, source: Source, *, limit: int | None, batch_size: int) -> None:
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ConfigError(
            f"batch_size and limit must be at least 1; got batch_size={batch_size}, limit={limit}"
        )
    if source == "given" and rag.hops != 1:
        raise ConfigError(
            f"hops={rag.hops!r} looks for passages in an index, and those that come with the rows "
            'are in none: ask with hops=1 and evidence="joint", or read from an index'
        )


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "openrag-moe": __version__,
    }
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
