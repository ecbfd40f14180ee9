"""core/openrag_core/html.py: what is shown, that bars are honest, and that no text breaks out."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrag_core import Answer, Candidate, Decision, Draft, Passage, PassageScore, Written, html
from openrag_core.verdict import Minima, conclude
from tests.fakes import tokens

READ = Decision(retrieve=True, mode="always")
ELEMENTS = {
    *("a", "details", "div", "li", "ol", "small", "span", "strong", "style", "summary", "sup"),
    *("table", "td", "th", "tr"),
}
ATTRIBUTES = {
    *("aria-label", "class", "dir", "href", "rel", "role", "scope", "start", "style", "target"),
    "title",
}
"""No id, so that nothing clashes where two answers stand on one page."""
PLACED = re.compile(r"left:[\d.]+%(;width:[\d.]+%)?")


class Page(HTMLParser):
    """What a browser would make of it; strict about what it may hold."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.skeleton: list[tuple[str, ...]] = []
        """Every element with the names of its attributes, and every end."""
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        names = [name for name, _ in attrs]
        assert set(names) <= ATTRIBUTES
        assert len(set(names)) == len(names)
        assert all(value for _, value in attrs)
        self._open.append(tag)
        self.skeleton.append((tag, *names))
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.skeleton.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        if self._open[-1] == "style":
            assert f"<style>{data}</style>" == html.STYLE
        else:
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        pytest.fail(f"a comment: {data!r}")

    def handle_decl(self, decl: str) -> None:
        pytest.fail(f"a declaration: {decl!r}")

    def handle_pi(self, data: str) -> None:
        pytest.fail(f"an instruction: {data!r}")

    def values(self, name: str) -> list[str]:
        """Of every attribute of this name."""
        return [value for attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        """All that is written in it."""
        return "".join(self.texts)


def passage(text: str = "It opened in 1893.", **fields: object) -> Passage:
    values = {"id": "p", "title": "Bridge", "source": "/notes/bridge.md", **fields}
    return Passage(text=text, **values)  # type: ignore[arg-type]


def candidate(text: str = "1893", total: float = 1.0, **score: float) -> Candidate:
    parts = PassageScore(**{"seq": 0.5, **score})
    return Candidate(Written((passage(),), text, tokens(0.5)), parts, total)


def answer(*candidates: Candidate, **fields: object) -> Answer:
    values = {
        "question": "When?",
        "text": "1893",
        "decision": READ,
        "confidence": 0.5,
        "grounded": True,
        "sources": (passage(),),
        "candidates": candidates,
        **fields,
    }
    return Answer(**values)  # type: ignore[arg-type]


def shown(result: Answer) -> Page:
    return Page(result._repr_html_())


def everywhere(text: str, web: str = "https://example.org/") -> Answer:
    """An answer whose every text is this one."""
    hostile = Passage(text, text, text, text, {text: text, "page": text}, 0.5, 0.5)
    linked = replace(hostile, source=f"{web}{text}")
    written = Written((hostile, linked), text, tokens(0.5), truncated=True)
    score = PassageScore(0.5, rel=0.5, sup=0.5, use=-0.5, rank=0.5)
    return Answer(
        question=text,
        text=text,
        decision=Decision(retrieve=True, mode="f_minp", value=0.2, threshold=0.5),
        confidence=0.5,
        grounded=True,
        truncated=True,
        sources=(hostile, linked),
        candidates=(Candidate(written, score, 1.0),),
        draft=Draft(text, ()),
        seconds={text: 0.5},
    )


MARKUP = st.sampled_from(
    [
        "<script>alert(1)</script>",
        "</style>",
        "</details></div>",
        '"',
        "'",
        "<!--",
        "<![CDATA[",
        "<?",
        "&lt;",
        "&#60;",
        "[Relevant]",
        "\x00",
        ' onmouseover="alert(1)"',
        "javascript:alert(1)",
        "<img src=x onerror=alert(1)>",
    ]
)


@given(st.lists(MARKUP | st.text(st.characters(), max_size=5)).map("".join))
def test_no_text_breaks_out(text: str) -> None:
    text = f"x{text}x"
    result = everywhere(text)
    result._repr_html_().encode()  # no half of a character is left
    page = shown(result)
    assert page.skeleton == shown(everywhere("xx")).skeleton
    assert all(map(PLACED.fullmatch, page.values("style")))
    assert all(href.startswith("https://example.org/x") for href in page.values("href"))
    assert len(page.values("href")) == 3  # a citation, its source, and the candidate's


@pytest.mark.parametrize("text", ["<b>&amp;\"'", "a\nb\tc", "Ω…😀", "[No Retrieval]</s>"])
def test_text_is_shown_as_it_is(text: str) -> None:
    page = shown(everywhere(text))
    assert page.texts.count(text) >= 8  # question, answer, candidate, draft, passages, metadata
    assert any(text in title for title in page.values("title"))


def test_what_a_page_cannot_hold_or_would_obey_is_replaced() -> None:
    page = shown(answer(text="a\x00b\x1bc\u202ed\ud800e"))
    assert "a\ufffdb\ufffdc\ufffdd\ufffde" in page.texts


@pytest.mark.parametrize(
    "source",
    [
        "javascript:alert(1)",
        " https://example.org",
        "java\nscript:alert(1)//https://example.org",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "//example.org/a",
        "https:///a",
        "httpsx://a",
        "/notes/https://a",
        Path("notes/bridge.md"),
    ],
)
def test_only_addresses_of_the_web_become_links(source: str | Path) -> None:
    page = shown(answer(sources=(passage(source=source),)))
    assert not page.values("href")
    assert str(source) in page.texts


@pytest.mark.parametrize("source", ["http://example.org", 'HTTPS://example.org/?a=1&b="2"'])
def test_citations_link_to_the_web_and_name_what_is_not_there(source: str) -> None:
    page = shown(answer(sources=(passage(), passage(source=source))))
    assert page.values("href") == [source, source]
    assert {"[1]", "[2]", "[1] Bridge · bridge.md", f"[2] Bridge · {source}"} <= set(page.texts)
    assert "Bridge · bridge.md" in page.values("title")
    assert set(page.values("rel")) == {"noopener noreferrer"}


MEMORY = Decision(retrieve=False, mode="never")
STATES = [
    pytest.param(answer(), "Grounded", "openrag-grounded", id="grounded"),
    pytest.param(answer(grounded=False), "Not grounded", "openrag-unchecked", id="unchecked"),
    pytest.param(
        answer(grounded=False, decision=MEMORY), "From memory", "openrag-memory", id="memory"
    ),
    pytest.param(
        answer(candidate(), abstained=True, grounded=False),
        "Abstained",
        "openrag-abstained",
        id="abstained",
    ),
]


@pytest.mark.parametrize(("result", "word", "kind"), STATES)
def test_each_state_says_what_it_is(result: Answer, word: str, kind: str) -> None:
    page = shown(result)
    states = [state.values[1] for state in STATES]
    assert [text for text in page.texts if text in states] == [word]
    assert f"openrag-card {kind}" in page.values("class")
    assert "Cut" not in page.texts
    cut = shown(replace(result, truncated=True))
    assert "Cut" in cut.texts
    assert word in cut.texts


def test_an_abstention_names_the_nearest_passages_once_and_cites_none() -> None:
    result = conclude(
        question="When?",
        decision=READ,
        draft=None,
        candidates=[candidate(rel=0.1)],
        minima=Minima(0.5, 0.25),
        seconds={},
    )
    page = shown(result)
    assert "The documents do not tell." in page.texts
    assert page.text.lower().count("nearest passages") == 1
    assert page.texts.count("[1] Bridge · bridge.md") == 1
    assert "[1]" not in page.texts
    assert "confidence" not in page.text


def test_an_abstention_without_any_passage_says_why_that_may_be() -> None:
    text = shown(answer(abstained=True, grounded=False, sources=())).text
    assert "no passage was found at all: is the filter, or the tenant, the right one?" in text
    assert "nearest" not in text


def test_the_confidence_is_a_bar() -> None:
    [label] = shown(answer()).values("aria-label")
    assert label.startswith("confidence 0.500 on a scale from 0 to 1")


@pytest.mark.parametrize(
    ("value", "low", "high", "styles", "number"),
    [
        (0.25, 0, 1, ["left:0.0%;width:25.0%"], "0.250"),
        (0.0, 0, 1, ["left:0.0%;width:0.0%"], "0.000"),
        (0.5, -1, 1, ["left:50.0%;width:25.0%", "left:50.0%"], "0.500"),
        (-0.5, -1, 1, ["left:25.0%;width:25.0%", "left:50.0%"], "-0.500"),
        (-0.0001, -1, 1, ["left:50.0%;width:0.0%", "left:50.0%"], "0.000"),
        (1.3, 0, 1.3, ["left:0.0%;width:100.0%"], "1.300"),
        (7.0, 0, 1, ["left:0.0%;width:100.0%"], "7.000"),
        (-7.0, 0, 1, ["left:0.0%;width:0.0%"], "-7.000"),
        (inf, -1, 1, ["left:50.0%;width:50.0%", "left:50.0%"], "inf"),
        (nan, -1, 1, ["left:50.0%;width:0.0%", "left:50.0%"], "nan"),
    ],
)
def test_a_bar_grows_from_zero(
    value: float, low: float, high: float, styles: list[str], number: str
) -> None:
    page = Page(html.bar("use", value, low=low, high=high))
    assert page.values("style") == styles
    assert page.text == f"use {number}"
    assert page.values("aria-label") == [f"use {number} on a scale from {low:g} to {high:g}"]
    assert page.values("role") == ["img"]
    assert any("openrag-less" in kind for kind in page.values("class")) == (value < 0)


def test_every_part_of_a_score_that_is_there_has_a_bar() -> None:
    trained = shown(answer(candidate(rel=0.9, sup=0.8, use=-0.5, total=-0.25)))
    assert "seq 0.500 rel 0.900 sup 0.800 use -0.500" in trained.text
    assert "total -0.250" in trained.text
    assert "left:25.0%;width:25.0%" in trained.values("style")  # use: left of the middle
    untrained = shown(answer(candidate(rank=0.7)))
    assert "seq 0.500 rank 0.700" in untrained.text
    assert all(part not in untrained.text for part in ("rel ", "sup ", "use "))


def test_ranks_share_one_scale_with_zero_and_one_on_it() -> None:
    ranks = (1.5, -0.5, nan, inf)  # the scale is that of the numbers: zero lies at 25 % of it
    styles = shown(answer(*(candidate(rank=rank) for rank in ranks))).values("style")
    bars = ["left:25.0%;width:75.0%", "left:0.0%;width:25.0%", "left:25.0%;width:0.0%"]
    assert [style for style in styles if style in bars] == [*bars, bars[0]]
    assert styles.count("left:25.0%") == 4
    assert "left:0.0%;width:70.0%" in shown(answer(candidate(rank=0.7))).values("style")


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(True, "f_meanp", 0.2, 0.6), "below the threshold of 0.6: retrieved"),
        (Decision(False, "f_minp", 0.75, 0.6), "above the threshold of 0.6: answered from memory"),
        (Decision(False, "f_ret", 0.6, 0.6), "at the threshold of 0.6: answered from memory"),
    ],
)
def test_the_gauge_shows_value_and_threshold(decision: Decision, words: str) -> None:
    assert decision.value is not None
    page = shown(answer(decision=decision))
    assert f"gate {decision.mode} {decision.value:.3f} {words}" in page.text
    at = page.values("style").index("left:60.0%")
    assert page.values("style")[at - 1] == f"left:0.0%;width:{100 * decision.value:.1f}%"
    label = page.values("aria-label")[1]
    assert label.startswith(f"gate {decision.mode} {decision.value:.3f} on a scale from 0 to 1")
    assert "threshold 0.6" in label


@pytest.mark.parametrize(
    ("decision", "words"),
    [(READ, "gate always: retrieved"), (MEMORY, "gate never: answered from memory")],
)
def test_a_gate_that_compares_nothing_has_no_gauge(decision: Decision, words: str) -> None:
    page = shown(answer(decision=decision))
    assert words in page.text
    assert "threshold" not in page.text
    assert len(page.values("role")) == 1  # the confidence


def test_the_draft_is_folded_and_says_whether_it_was_stopped() -> None:
    whole = shown(answer(draft=Draft(" In 1912. ", ())))
    assert {"In 1912.", "draft, written before reading"} <= set(whole.texts)
    stopped = shown(answer(draft=Draft("In", (), complete=False)))
    assert "draft, written before reading, stopped when the decision was clear" in stopped.texts
    assert "draft" not in shown(answer()).text


def test_a_passage_holds_what_is_known_of_it() -> None:
    known = passage(metadata={"page": 3, "year": 1893}, retrieval_score=0.25, rerank_score=0.5)
    page = Page(html.passage(answer(sources=(known,)).to_dict()["sources"][0], "[4] "))
    assert page.texts == [
        *("[4] Bridge · bridge.md · page 3", "It opened in 1893."),
        *("source", "/notes/bridge.md", "retrieval score", "0.250", "rerank score", "0.500"),
        *("page", "3", "year", "1893"),
    ]
    assert page.skeleton[0] == ("details",)


def test_a_passage_without_title_and_source_goes_by_its_id() -> None:
    page = shown(answer(sources=(passage(title="", source=""),)))
    assert "[1] p" in page.texts
    assert ("table",) not in page.skeleton


def test_long_passages_are_cut_and_say_so() -> None:
    most = html.LONGEST_TEXT
    page = shown(answer(sources=[passage("a" * (most + over)) for over in (0, 1, 1_234)]))
    ends = [text.removeprefix("a" * most) for text in page.texts if text.startswith("aa")]
    assert ends == ["", " … (1 more)", " … (1,234 more)"]


def test_candidates_stand_best_first_and_many_are_folded() -> None:
    few = shown(answer(*(candidate(f"answer {n}") for n in range(5))))
    assert [t for t in few.texts if t.startswith("answer ")] == [f"answer {n}" for n in range(5)]
    assert "more" not in few.text
    many = shown(answer(*(candidate(f"answer {n}") for n in range(7))))
    assert [t for t in many.texts if t.startswith("answer ")] == [f"answer {n}" for n in range(7)]
    assert many.texts.index("answer 4") < many.texts.index("2 more")
    assert many.texts.index("2 more") < many.texts.index("answer 5")
    assert many.values("start") == ["6"]


def test_what_the_candidates_were_written_from_is_said() -> None:
    chain = Candidate(Written((passage(), passage()), "", (), truncated=True), PassageScore(1), 1)
    assert "one answer per passage, best first" in shown(answer(candidate())).texts
    assert "one answer per chain of passages, best first" in shown(answer(chain, chain)).texts
    joint = shown(answer(chain))
    assert {"one answer from all passages", "(no answer)"} <= set(joint.texts)
    assert joint.text.count("its end was not read") == 1
    assert joint.texts.count("Bridge · bridge.md") == 2


def test_the_time_of_each_stage_is_there() -> None:
    page = shown(answer(seconds={"retrieve": 0.012, "write": 1.5}))
    assert page.texts[-1] == "retrieve 0.01 s · write 1.50 s"


def test_a_table_names_its_rows_and_columns() -> None:
    page = Page(html.table([("f1", "69 < 70")], head=("metric", "value")))
    assert page.texts == ["metric", "value", "f1", "69 < 70"]
    assert page.values("scope") == ["col", "col", "row"]
    assert Page(html.table([("f1", "69")])).values("scope") == ["row"]
