"""The layouts of published evaluation files, field by field, known by their keys.

| what | keys, the first that is there counts |
|---|---|
| question | `question`, `ambiguous_question`, `claim`, `instruction` with `input`, `input` |
| answers | `answers`, `answer` with `answer_aliases`, `possible_answers`, `golds`, `long_answers`,
  `outputs[].answer`, `annotations[].long_answer`, `output[].answer`, `output`, `label` |
| choices | `choices`: {"A": text} or {"label": [], "text": []}; `answer_key` or `answerKey` |
| ranked passages | `ctxs`, `top_contexts` (Self-RAG, openrag_bench), `docs`, `retrieved` |
| labelled passages | `gold`, `distractors`, `related`; `context` (HotpotQA, 2Wiki; their own lists,
  or those of a model hub; a text with `title`: SQuAD), `paragraphs`
  (MuSiQue), `passages`, `knowledge` |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from openrag_core.errors import EvaluationError
from openrag_core.records import Passage
from openrag_core.words import normalised

_RANKED = ("ctxs", "top_contexts", "docs", "retrieved")
_GOLD, _OTHERS = "gold", ("distractors", "related", "passages", "knowledge", "paragraphs")
_ANSWERS = ("answers", "answer", "possible_answers", "golds", "long_answers")
_OTHER_ANSWERS = ("outputs", "annotations", "output", "label")
_WITHIN = {"outputs": "answer", "output": "answer", "annotations": "long_answer"}  # ClapNQ, ASQA
_QUESTIONS = ("question", "ambiguous_question", "claim", "instruction", "input")
_NUMBERED = dict(zip("12345", "ABCDE", strict=True))  # ARC has both
Row = Mapping[str, Any]


def question(where: str, row: Row) -> str:
    """What is asked.

    Raises:
        EvaluationError: There is nothing, or it is no text.
    """
    name = next((n for n in _QUESTIONS if n in row), "question")
    parts = [row.get(name)]
    if name == "instruction" and row.get("input"):
        parts.append(row["input"])
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise EvaluationError(f"{where}: field {name!r} must be text, and not blank")
    return "\n".join(map(str, parts))


def answers(where: str, row: Row) -> tuple[str, ...]:
    """Every right answer, none twice; none where the row says that there is none.

    Raises:
        EvaluationError: No field holds answers, or one holds something else.
    """
    if row.get("answerable") is False:  # MuSiQue, whose answer is that of other paragraphs
        return ()
    names = (name for name in (*_ANSWERS, *_OTHER_ANSWERS) if row.get(name) is not None)
    found = next(names, "answers")
    given = row.get(found)
    if found in _WITHIN and isinstance(given, list):
        name = _WITHIN[found]
        given = [one.get(name, "") if isinstance(one, dict) else one for one in given]
    texts = _texts(where, found, given)
    if found == "answer":
        texts += _texts(where, "answer_aliases", row.get("answer_aliases", []))
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def tells_answers(row: Row) -> bool:
    """Whether the row has a field of answers, be it empty."""
    return any(row.get(name) is not None for name in (*_ANSWERS, *_OTHER_ANSWERS))


def choices(where: str, row: Row) -> tuple[dict[str, str], str | None]:
    """Text by letter, and the letter of the right one; nothing of an open question.

    Raises:
        EvaluationError: They are malformed, or none of them is right.
    """
    given = row.get("choices")
    if given is None:
        return {}, None
    match given:
        case {"text": [*texts], "label": [*labels]} if len(texts) == len(labels):
            given = dict(zip(map(str, labels), texts, strict=True))
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for one in given.values()):
        raise EvaluationError(
            f'{where}: field \'choices\' must be {{"A": text, ...}} or {{"label": [...], '
            f'"text": [...]}}; got {str(given)[:60]}'
        )
    found = {_NUMBERED.get(str(key), str(key)): str(text) for key, text in given.items()}
    name = "answer_key" if "answer_key" in row else "answerKey"
    key = _NUMBERED.get(str(row.get(name)), str(row.get(name)))
    if key not in found:
        raise EvaluationError(
            f"{where}: field {name!r} must be one of the choices, {', '.join(found)}; "
            f"got {row.get(name)!r}"
        )
    return found, key


def passages(where: str, row: Row) -> tuple[list[Passage], frozenset[str]]:
    """The passages of the row, and what the gold ones are known by.

    Raises:
        EvaluationError: A passage has no text, or a label of them is malformed.
    """
    found: dict[str, Passage] = {}
    gold: list[Passage] = []
    ids = _gold_ids(where, row)
    ranked = [name for name in _RANKED if row.get(name)][:1]
    for name in ranked or (_GOLD, *_OTHERS):
        for number, one in enumerate(_objects(where, row, name) if row.get(name) else []):
            place = f"{name}-{number}"
            own = ids[number] if name == _GOLD and number < len(ids) else place
            named = _passage(f"{where}, {name}", one, own)
            passage = _put(found, named, place)
            if name == _GOLD or one.get("is_supporting") or named.id in ids:
                gold.append(passage)
    if ranked and isinstance(row.get(_GOLD), list):  # labels of what the retriever found
        told = [one.get("text") for one in row[_GOLD] if isinstance(one, dict)]
        gold += [passage for passage in found.values() if passage.text in told]
    for title, text, supports in _sentences(where, row):
        place = f"context-{len(found)}"
        passage = _put(found, Passage(place, text, title), place)
        gold += [passage] if supports else []
    names = ids or [p.title for p in gold if p.title]
    return list(found.values()), frozenset([*(p.id for p in gold), *names])


def _gold_ids(where: str, row: Row) -> list[str]:
    name = "gold_ids" if row.get("gold_ids") else "gold_id"
    given = row.get(name)
    listed = given if isinstance(given, list) else [] if given in (None, "") else [given]
    return _texts(where, name, [str(one) if isinstance(one, int) else one for one in listed])


def _put(found: dict[str, Passage], passage: Passage, place: str) -> Passage:
    """Under its place where its id is that of another text, as with pieces of one document."""
    if found.get(passage.id, passage).text != passage.text:
        passage = replace(passage, id=place)
    return found.setdefault(passage.id, passage)


def are_ranked(row: Row) -> bool:
    """Whether a retriever put the passages into their order."""
    return any(row.get(name) for name in _RANKED)


def short_answers(where: str, row: Row) -> tuple[tuple[str, ...], ...]:
    """Of each question that a long answer has to answer; ASQA's.

    Raises:
        EvaluationError: They are malformed.
    """
    pairs = _objects(where, row, "qa_pairs") if row.get("qa_pairs") else []
    return tuple(tuple(_texts(where, "short_answers", p.get("short_answers"))) for p in pairs)


def kind(row: Row) -> str:
    """What the data set calls this sort of question."""
    return next((str(row[name]) for name in ("type", "prop", "level") if row.get(name)), "")


def plain(label: str) -> str:
    """A label as it is compared: NOT_ENOUGH_INFO is "not enough info"."""
    return normalised(label.replace("_", " "))


def _passage(where: str, one: Row, own: str) -> Passage:
    text = one.get("text", one.get("paragraph_text"))
    if not isinstance(text, str) or not text.strip():
        raise EvaluationError(f"{where}: field 'text' must be text, and not blank; got {text!r}")
    score = one.get("score")
    try:
        rank = None if score is None else float(score)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{where}: field 'score' must be a number; got {score!r}") from error
    title = one.get("title") or ""
    name = own if one.get("id") is None else one["id"]
    return Passage(str(name), text, str(title), retrieval_score=rank)


def _sentences(where: str, row: Row) -> Iterable[tuple[str, str, bool]]:
    """HotpotQA's and 2WikiMultihopQA's own paragraphs: [title, [sentence, ...]].

    On a model hub, titles and sentences are lists of their own; SQuAD's one paragraph is a text.
    """
    context = row.get("context")
    if isinstance(context, str) and context.strip() and not are_ranked(row):
        yield str(row.get("title") or ""), context, True
    if isinstance(context, Mapping) and isinstance(titles := context.get("title"), list):
        texts = context.get("sentences", context.get("content"))
        # One that has no fellow is refused below.
        context = list(map(list, zip_longest(titles, texts if isinstance(texts, list) else ())))
    if not isinstance(context, list):
        return
    supporting = _supporting(where, row)
    for paragraph in context:
        match paragraph:
            case [str() as title, [*sentences]] if all(isinstance(s, str) for s in sentences):
                yield title, "".join(sentences), title in supporting
            case _:
                raise EvaluationError(
                    f"{where}: field 'context' must be a list of [title, [sentence, ...]]"
                )


def _supporting(where: str, row: Row) -> set[str]:
    """Titles of the paragraphs that tell the answer."""
    facts = row.get("supporting_facts") or []
    match facts:
        case {"title": [*titles]}:
            pass
        case [*_]:
            titles = [fact[0] if isinstance(fact, list) and fact else fact for fact in facts]
        case _:
            titles = [None]
    if not all(isinstance(title, str) for title in titles):
        raise EvaluationError(
            f"{where}: field 'supporting_facts' must be a list of [title, sentence], of titles, or "
            f'{{"title": [...]}}; got {str(facts)[:60]}'
        )
    return set(titles)


def _objects(where: str, row: Row, name: str) -> list[dict[str, Any]]:
    given = row[name]
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise EvaluationError(f"{where}: field {name!r} must be a list of objects")
    return given


def _texts(where: str, name: str, given: object) -> list[str]:
    if isinstance(given, Mapping):  # on a model hub: TriviaQA, SQuAD
        aliases = given.get("aliases")
        others = _texts(where, "aliases", aliases) if aliases else ()
        given = [given["value"], *others] if "value" in given else given.get("text")
    if isinstance(given, str):
        given = _listed(given) if name == "possible_answers" else [given]
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        what = "absent" if given is None else f"{type(given).__name__} {str(given)[:40]!r}"
        raise EvaluationError(f"{where}: field {name!r} must be a list of texts; it is {what}")
    return list(given)


def _listed(text: str) -> object:
    """PopQA keeps a list as text."""
    try:
        return json.loads(text)
    except ValueError:
        return [text]
