"""Results as one HTML page that needs nothing else: tables, pictures, the worst cases."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from openrag_core import html
from openrag_core.errors import EvaluationError
from openrag_core.evaluation.adaptive import Curve, curves, trials
from openrag_core.evaluation.plots import adaptive_curve, png
from openrag_core.evaluation.summary import WAYS, summarise
from openrag_core.html import Html, tag
from openrag_core.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = 20
Run = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]
_NAMES = {"memory": "from memory", "reading": "from passages"}
_CSS = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:66em;margin:2em auto;padding:0 1.2em}
h1{font-size:1.7em;margin:0 0 .1em}
h2{margin:2.2em 0 .4em;padding-top:.6em;border-top:1px solid #8886}
h3{margin:1.6em 0 .4em}p{margin:.4em 0}
.report table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}
.report th,.report td{padding:.28em .9em .28em 0;text-align:right;border-bottom:1px solid #8883}
.report>table{display:block;overflow-x:auto}.report>table td{white-space:nowrap}
.report th:first-child{text-align:left;font-weight:500;overflow-wrap:anywhere;min-width:10em}
.report small{opacity:.7}
.report img{max-width:100%;height:auto;background:#fff;border-radius:.4em}
.report .case{margin:.5em 0;padding:.1em 0}
.report .case>summary{cursor:pointer;overflow-wrap:anywhere}
.report .case>div{margin:.6em 0 1em 1em}
.report .openrag table{font-size:.9em}.report .openrag td{text-align:left}
"""


def page(runs: Mapping[str, Run]) -> str:
    """The whole page.

    Args:
        runs: Configuration and records of each, as `results.read` gives them, by name.

    Raises:
        EvaluationError: There is none, or one holds no results yet.
    """
    if not runs:
        raise EvaluationError("no results to report: name folders that openrag eval made")
    for name, (_, records) in runs.items():
        if not records:
            raise EvaluationError(f"{name}: no question is answered yet: run openrag eval again")
    summaries = {name: summarise(records) for name, (_, records) in runs.items()}
    sections = [
        _section(name, config, records, summaries[name]) for name, (config, records) in runs.items()
    ]
    head = tag(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        tag("title", "Results"),
        Html(f"<style>{_CSS}</style>"),
        html.STYLE,
    )
    body = tag("body", tag("h1", "Results"), _overview(summaries), *sections, class_="report")
    return "<!doctype html>" + tag("html", head, body, lang="en")


def _overview(summaries: Mapping[str, Mapping[str, Any]]) -> Html:
    rows = [
        (
            name if Path(name).name == one["task"] else f"{name} · {one['task']}",
            one["metric"],
            str(one["n"]),
            *(_mean(one[way].get(one["metric"])) for way in WAYS),
            *(_number(one["seconds"][way], "{:.2f} s") for way in WAYS),
        )
        for name, one in summaries.items()
    ]
    times = (f"time {name}" for name in _NAMES.values())
    head = ("run", "metric", "questions", *_NAMES.values(), *times)
    return html.table(rows, head)


def _section(
    name: str,
    config: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> Html:
    metrics = list(dict.fromkeys(metric for way in WAYS for metric in summary[way]))
    rows = [(metric, *(_mean(summary[way].get(metric)) for way in WAYS)) for metric in metrics]
    kinds = [
        (kind, str(one["n"]), *(_number(one[way], "{:.3f}") for way in WAYS))
        for kind, one in summary["kinds"].items()
    ]
    asked = f"{config['data']['file']}, {counted(summary['n'], 'question')}"
    about = f"{asked}, passages: {config['passages']}"
    return tag(
        "section",
        tag("h2", name),
        tag("p", tag("small", about)),
        html.table(rows, ("metric (95 % interval)", *_NAMES.values())),
        html.table(kinds, ("kind", "questions", *_NAMES.values())) if kinds else "",
        _adaptive(records, summary["metric"]),
        _worst(records, summary["metric"]),
        html.folded("configuration", html.table(_flat(config))),
    )


def _adaptive(records: Sequence[Mapping[str, Any]], metric: str) -> Html:
    """The adaptive curve, where questions were answered both ways."""
    both = trials(records)
    if not both:
        return Html()
    swept = curves(both)
    rows = [_of_curve(curve) for curve in swept]
    least = ("least share that loses nothing", "its seconds", "its tokens")
    head = ("order", "area", *least, "best", "at share", "at threshold")
    return tag(
        "div",
        tag("h3", "When to retrieve"),
        _picture(adaptive_curve(swept, metric=metric), "accuracy against the share that retrieves"),
        html.table(rows, head),
    )


def _of_curve(curve: Curve) -> tuple[str, ...]:
    best, lossless = curve.best, curve.lossless
    return (
        curve.order,
        f"{curve.area:.3f}",
        f"{lossless.share:.2f}",
        f"{lossless.seconds:.2f}",
        f"{lossless.tokens:.0f}",
        f"{best.accuracy:.3f}",
        f"{best.share:.2f}",
        _number(best.threshold, "{:.4g}"),
    )


def _worst(records: Sequence[Mapping[str, Any]], metric: str) -> Html:
    """What was most wrong: by score, and of those the most confident first."""
    read = [one for one in records if one["reading"] and metric in one["scores"]["reading"]]
    wrong = sorted(
        (one for one in read if one["scores"]["reading"][metric] < 1),
        key=lambda one: (one["scores"]["reading"][metric], -one["reading"]["confidence"]),
    )[:WORST]
    if not wrong:
        return Html()
    mean = fmean(one["scores"]["reading"][metric] for one in read)
    return tag(
        "div",
        tag("h3", f"The worst {counted(len(wrong), 'case')}"),
        tag("p", tag("small", f"of {len(read)}, whose mean {metric} is {mean:.3f}")),
        *(_case(one, metric) for one in wrong),
    )


def _case(record: Mapping[str, Any], metric: str) -> Html:
    score = record["scores"]["reading"][metric]
    nothing = "nobody knows" if record["answerable"] else "no answer"
    expected = " / ".join(record["answers"][:5]) or nothing
    shown = str(html.answer(record["reading"])).replace(html.STYLE, "")
    title = f"{score:.2f} · {record['question']} → {record['reading']['answer'][:120]}"
    return tag(
        "details",
        tag("summary", title, dir="auto"),
        tag(
            "div",
            tag("p", tag("strong", "Expected: "), expected),
            tag("p", tag("strong", "From memory: "), record["memory"]["text"] or "nothing"),
            Html(shown),
        ),
        class_="case",
    )


def _picture(figure: Figure, alternative: str) -> Html:
    data = b64encode(png(figure)).decode()
    return Html(f'<img alt="{alternative}" src="data:image/png;base64,{data}">')


def _mean(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    if one["low"] is None:
        return f"{one['mean']:.3f}"
    return f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _flat(config: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{key}.")
        else:
            rows.append((f"{before}{key}", str(value)))
    return rows
