"""Results as HTML, for notebooks and reports: escaped, without scripts, ids or anything to load.

It takes plain values, those of `Answer.to_dict()`, so that the records can show themselves. Every
string is escaped by the one function that writes an element, `tag`, unless it is `Html` already.

Colours come from the page (currentColor, translucent greys, accents that stand out from white and
from black): a notebook's theme need not be the system's. Where styles are stripped, as on GitHub,
each bar is still a name and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite, isnan
from pathlib import PurePath
from typing import Any

LONGEST_TEXT = 5_000  # characters of a passage; a notebook keeps all of them
LONGEST_FIELD = 200
AT_FIRST = 5  # candidates that are not folded away

_UNSHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")
"""Control characters, what turns the text around it over, and halves of characters."""
_WEB = re.compile(r"https?://[^\s/]", re.IGNORECASE)

_SIGNALS = {
    "f_minp": "probability of the draft's least certain token",
    "f_meanp": "mean probability of the draft's tokens",
    "f_ret": "how much the model asks for passages",
}
_PARTS = {
    "seq": "probability of the answer's tokens",
    "rel": "relevance of the passage, by the model itself",
    "rank": "score of the reranker, or of the retriever where there is none",
    "sup": "support of the answer by the passage, by the model itself",
    "use": "usefulness of the answer, by the model itself",
    "reciprocal_rank": "reciprocal rank of the passage, as retriever and reranker order them",
}
LABELS = {"reciprocal_rank": "1/rank"}
"""What a part of a score is called where there is little room, if not by its name."""

_CSS = """
.openrag{line-height:1.45;overflow-wrap:anywhere;font-variant-numeric:tabular-nums;max-width:64em;
padding:.2em 0}
.openrag small,.openrag-name{font-size:.86em;opacity:.75}
.openrag-card,.openrag-more{border-left:.25em solid #888;padding:.1em 0 .1em .9em}
.openrag-more{border-color:transparent;margin-top:.4em}
.openrag-answer{font-size:1.35em;line-height:1.35;white-space:pre-wrap;margin:.1em 0 .3em}
.openrag-answer sup{font-size:.6em;margin-left:.2em}
.openrag-row{display:flex;flex-wrap:wrap;gap:.3em 1.2em;align-items:center;margin:.5em 0}
.openrag-state{display:inline-block;margin-right:.5em;padding:0 .6em;border-radius:1em;
background:#8883;font-weight:600}
.openrag-grounded{border-color:#2c9b5a}.openrag-grounded .openrag-state{background:#2c9b5a3a}
.openrag-unchecked{border-color:#b9770e}.openrag-unchecked .openrag-state{background:#b9770e3a}
.openrag-memory{border-color:#8e63d8}.openrag-memory .openrag-state{background:#8e63d83a}
.openrag-card .openrag-cut{background:#b9770e3a}
.openrag-bar{display:inline-grid;grid-template-columns:auto auto;gap:0 .4em;min-width:5em;
justify-content:space-between;align-items:baseline;line-height:1.3;white-space:nowrap}
.openrag-row .openrag-bar{width:11em}
.openrag-track{grid-column:1/-1;position:relative;height:.4em;margin:.15em 0;border-radius:.2em;
background:#8883}
.openrag-fill,.openrag-mark,.openrag-zero{position:absolute;top:0;bottom:0}
.openrag-fill{background:#2f7fd6;border-radius:.2em}
.openrag-less{background:#d64545}
.openrag-zero{width:1px;background:currentColor;opacity:.6}
.openrag-mark{width:2px;margin-left:-1px;top:-.25em;bottom:-.25em;background:currentColor}
.openrag details{margin:.1em 0}.openrag summary{cursor:pointer}
.openrag .openrag-list{list-style:decimal outside;margin:.2em 0 .4em;padding:0 0 0 1.5em}
.openrag .openrag-list>li{margin:0;padding:.35em 0;border-top:1px solid #8883}
.openrag-candidate{display:flex;flex-wrap:wrap;gap:.2em 2em;align-items:flex-start}
.openrag-written{flex:1 1 18em;min-width:0}
.openrag-first{display:flex;gap:1em;justify-content:space-between;align-items:baseline}
.openrag-first>:last-child{white-space:nowrap}
.openrag-scores{flex:0 1 32em;display:grid;gap:.1em .8em;
grid-template-columns:repeat(auto-fit,minmax(5em,1fr))}
.openrag-text{white-space:pre-wrap;margin:.3em 0 .5em;padding-left:.8em;
border-left:2px solid #8885}
.openrag table{border-collapse:collapse;margin:.2em 0 .6em .9em;font-size:.86em;border:0}
.openrag table tr:nth-child(n){background:none}
.openrag table td,.openrag table th{text-align:left;vertical-align:top;padding:.05em 1em .05em 0;
border:0;white-space:normal;font-weight:400}
.openrag table th{opacity:.75;white-space:nowrap}
"""


class Html(str):
    """Markup to be shown as it stands; every other string is text, and escaped."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element.

    Args:
        name: Of the element; never one that a browser reads as anything but markup.
        *children: Text, or `Html`.
        **attributes: An underscore at the end is dropped, any other is a hyphen; what is empty is
            left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value
    )
    inner = "".join(c if isinstance(c, Html) else _escaped(c) for c in children)
    return Html(f"<{name}{written}>{inner}</{name}>")


STYLE = Html(f"<style>{_CSS}</style>")
"""What the elements below look like; once in a page is enough."""


def bar(
    name: str,
    value: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    mark: float | None = None,
    meaning: str = "",
) -> Html:
    """A named number and its bar, which grows from zero: to the left where it is negative.

    Args:
        name: In front of the number.
        value: A bar ends where the scale does; the number tells the rest.
        low: Where the scale begins, <= 0.
        high: Where it ends, > 0.
        mark: A line across the bar, such as a threshold.
        meaning: For screen readers, and for those who point at the bar.
    """
    start, end = sorted((_percent(0.0, low, high), _percent(value, low, high)))
    fill = "openrag-fill openrag-less" if value < 0 else "openrag-fill"
    parts = [tag("span", class_=fill, style=f"left:{start:.1f}%;width:{end - start:.1f}%")]
    if low < 0:
        zero = f"left:{_percent(0.0, low, high):.1f}%"
        parts.append(tag("span", class_="openrag-zero", style=zero))
    label = f"{name} {value:z.3f} on a scale from {low:g} to {high:g}"
    if mark is not None:
        at = f"left:{_percent(mark, low, high):.1f}%"
        parts.append(tag("span", class_="openrag-mark", style=at))
        label += f", threshold {mark:g}"
    return tag(
        "span",
        tag("span", name, class_="openrag-name"),
        " ",
        tag("span", f"{value:z.3f}"),
        tag("span", *parts, class_="openrag-track"),
        class_="openrag-bar",
        role="img",  # role=meter is not known to every screen reader
        aria_label=f"{label}: {meaning}" if meaning else label,
        title=meaning,
    )


def gauge(decision: Mapping[str, Any]) -> Html:
    """What the gate decided, and from which number.

    Args:
        decision: The values of a `Decision`.
    """
    mode, value, threshold = decision["mode"], decision["value"], decision["threshold"]
    outcome = tag("strong", "retrieved" if decision["retrieve"] else "answered from memory")
    if value is None or threshold is None:
        return tag("div", f"gate {mode}: ", outcome)
    side = "below" if value < threshold else "above" if value > threshold else "at"
    return tag(
        "div",
        bar(f"gate {mode}", value, mark=threshold, meaning=_SIGNALS.get(mode, "")),
        " ",
        tag("span", f"{side} the threshold of {threshold:g}: ", outcome),
        class_="openrag-row",
    )


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> Html:
    """A table; the first cell of each row names it."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head)) if head else Html()
    lines = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell, dir="auto") for cell in rest))
        for first, *rest in rows
    ]
    return tag("table", top, *lines)


def folded(summary: str, *children: str) -> Html:
    """What is shown when a reader asks for it."""
    return tag("details", tag("summary", summary, dir="auto"), *children)


def passage(values: Mapping[str, Any], label: str = "") -> Html:
    """A passage, folded.

    Args:
        values: Of a `Passage`.
        label: In front of its name.
    """
    stages = ("retrieval_score", "rerank_score")
    scores = {stage.replace("_", " "): values[stage] for stage in stages}
    fields = [("source", link(str(values["source"])))] if values["source"] else []
    fields += [(name, f"{score:z.3f}") for name, score in scores.items() if score is not None]
    fields += [(str(k), _cut(str(v), LONGEST_FIELD)) for k, v in values["metadata"].items()]
    text = tag("div", _cut(values["text"], LONGEST_TEXT), class_="openrag-text", dir="auto")
    return folded(
        f"{label}{_cut(place(values), LONGEST_FIELD)}", text, table(fields) if fields else ""
    )


def place(values: Mapping[str, Any]) -> str:
    """The name of a passage, for any reader: title, file or address, page; no folders.

    Args:
        values: Its id, title, source and metadata.
    """
    source = str(values["source"])
    address = "://" in source and not source.startswith("file:")
    where = source if address else PurePath(source).name
    number = values["metadata"].get("page")
    page = "" if number is None else f"page {number}"
    named = " · ".join(part for part in (values["title"], where) if part) or str(values["id"])
    return f"{named} · {page}" if page else named


def link(source: str, text: str = "") -> str:
    """A link if it is an address of the web, otherwise the text alone."""
    if not _WEB.match(source):
        return text or source
    return tag("a", text or source, href=source, target="_blank", rel="noopener noreferrer")


def answer(values: Mapping[str, Any]) -> Html:
    """A whole answer, with its style.

    Args:
        values: Those of `Answer.to_dict()`.
    """
    times = " · ".join(f"{stage} {time:.2f} s" for stage, time in values["seconds"].items())
    more = tag(
        "div",
        gauge(values["gate"]),
        _draft(values["draft"]) if values["draft"] else "",
        _candidates(values["candidates"]) if values["candidates"] else "",
        tag("small", times),
        class_="openrag-more",
    )
    return tag("div", STYLE, _card(values), more, class_="openrag")


def _card(values: Mapping[str, Any]) -> Html:
    """What was asked and answered, how far to trust it, and what it rests on."""
    kind, state, why = _state(values)
    abstained, sources = values["abstained"], list(enumerate(values["sources"], start=1))
    text = values["answer"].partition(" Nearest passages:")[0] if abstained else values["answer"]
    trust = [_noted(state, why)]
    if values["truncated"]:
        trust.append(_noted("Cut", "too long for the model: its end was not read", "openrag-cut"))
    if not abstained:
        meaning = "mean probability of the answer's tokens, not calibrated"
        trust.append(bar("confidence", values["confidence"], meaning=meaning))
    if values["probability"] is not None and not abstained:
        meaning = "that the answer is right, as the calibrated gate knows it"
        trust.append(bar("probability", values["probability"], meaning=meaning))
    return tag(
        "div",
        tag("small", values["question"], dir="auto"),
        tag(
            "div",
            text,
            *(_citation(number, source) for number, source in sources if not abstained),
            class_="openrag-answer",
            dir="auto",
        ),
        tag("div", *trust, class_="openrag-row"),
        tag("small", "nearest passages") if abstained and sources else "",
        *(passage(source, f"[{number}] ") for number, source in sources),
        class_=f"openrag-card openrag-{kind}",
    )


def _state(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """Kind of answer, its name, and what that means."""
    if values["abstained"] and not values["candidates"]:
        why = "no passage was found at all: is the filter, or the tenant, the right one?"
        return "abstained", "Abstained", why
    if values["abstained"]:
        known = values.get("probability")
        why = "no passage was good enough to answer from"
        return "abstained", "Abstained", why if known is None else short_of_target(known)
    if not values["gate"]["retrieve"]:
        return "memory", "From memory", "the model's own, not from documents"
    if values["grounded"]:
        return "grounded", "Grounded", "written from passages that reached the minima"
    return "unchecked", "Not grounded", "unchecked: no minimum of relevance is set"


def short_of_target(probability: float) -> str:
    """Why a fitted gate abstains."""
    return f"the best answer is right with a probability of {probability:.2f}: short of the target"


def _noted(name: str, why: str, kind: str = "") -> Html:
    named = tag("strong", name, class_=f"openrag-state {kind}".strip())
    return tag("div", named, " ", tag("small", why))


def _citation(number: int, source: Mapping[str, Any]) -> Html:
    return tag("sup", link(str(source["source"]), f"[{number}]"), title=place(source))


def _draft(draft: Mapping[str, Any]) -> Html:
    text = tag("div", draft["text"].strip(), class_="openrag-text", dir="auto")
    stopped = "" if draft["complete"] else ", stopped when the decision was clear"
    return folded(f"draft, written before reading{stopped}", text)


def _candidates(candidates: Sequence[Mapping[str, Any]]) -> Html:
    """One row each, best first."""
    ranks = [c["score"]["rank"] for c in candidates if c["score"]["rank"] is not None]
    span = [0.0, 1.0, *filter(isfinite, ranks)]
    scales = {"use": (-1.0, 1.0), "rank": (min(span), max(span))}
    rows = [_candidate(candidate, scales) for candidate in candidates]
    together = max(len(c["passages"]) for c in candidates)
    joint = together > 1 and len(candidates) == 1
    per = "passage" if together == 1 else "chain of passages"
    first, rest = rows[:AT_FIRST], rows[AT_FIRST:]
    more = tag("ol", *rest, class_="openrag-list", start=str(AT_FIRST + 1))
    return tag(
        "div",
        tag(
            "small",
            "one answer from all passages" if joint else f"one answer per {per}, best first",
        ),
        tag("ol", *first, class_="openrag-list"),
        folded(f"{len(rest)} more", more) if rest else "",
    )


def _candidate(candidate: Mapping[str, Any], scales: Mapping[str, tuple[float, float]]) -> Html:
    bars: list[str] = []
    for name, meaning in _PARTS.items():
        if (value := candidate["score"].get(name)) is not None:  # older results have fewer
            low, high = scales.get(name, (0.0, 1.0))
            label = LABELS.get(name, name)
            bars.extend((" ", bar(label, value, low=low, high=high, meaning=meaning)))
    total = tag("strong", f"{candidate['total']:z.3f}")
    first = tag(
        "div",
        tag("div", candidate["text"] or "(no answer)", dir="auto"),
        tag("div", tag("span", "total", class_="openrag-name"), " ", total),
        class_="openrag-first",
    )
    cut = tag("small", "too long for the model: its end was not read")
    passages = [passage(values) for values in candidate["passages"]]
    written = [first, *passages, *([cut] if candidate["truncated"] else [])]
    return tag(
        "li",
        tag(
            "div",
            tag("div", *written, class_="openrag-written"),
            tag("div", *bars, class_="openrag-scores"),
            class_="openrag-candidate",
        ),
    )


def _percent(value: float, low: float, high: float) -> float:
    """Where a value lies on a scale; nowhere but at zero for what is no number."""
    known = 0.0 if isnan(value) else min(max(value, low), high)
    return 100 * (known - low) / (high - low)


def _cut(text: str, longest: int) -> str:
    rest = len(text) - longest
    return text if rest <= 0 else f"{text[:longest]} … ({rest:,} more)"


def _escaped(text: str) -> str:
    return escape(_UNSHOWN.sub("\ufffd", text))
