"""core/openrag_core/retrieval/layouts.py: payloads of others, by hand."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from openrag_core import Field, IndexMismatchError
from openrag_core.filters import Condition, map_conditions
from openrag_core.retrieval.layouts import LANGCHAIN, LLAMAINDEX, Layout, find_layout
from openrag_core.retrieval.store import Hit
from tests.core.retrieval.test_collections import langchain, llamaindex


@pytest.mark.parametrize("layout", [LANGCHAIN, LLAMAINDEX])
@pytest.mark.parametrize(
    "condition",
    [
        Field("source") == "a",
        Field("source") != "a",
        Field("source").is_in(["a", "c"]),
        Field("source").exists,
        Condition("source", "$exists", value=False),
    ],
    ids=str,
)
def test_a_source_is_filtered_by_as_it_is_shown(layout: Layout, condition: Condition) -> None:
    names = ("source", "file_path", "file_name")
    for values in [(), "a", "b", "ab", "ba", "abc", "bca", "  a", " ab", " ba", " a", " b"]:
        there = {name: value for name, value in zip(names, values, strict=False) if value != " "}
        payload = {"metadata": there} if layout is LANGCHAIN else {"_node_content": "{}", **there}
        hit = Hit("1", 0.0, {"page_content": "", "_node_content": "{}", **payload})
        source = layout.passage(hit).source
        shown = condition.matches({"source": source} if source else {})
        assert map_conditions(condition, layout.condition).matches(payload) == shown


@pytest.mark.parametrize(
    ("payload", "keys", "expected"),
    [
        (langchain(0), (None, None), LANGCHAIN),
        (llamaindex(0), (None, None), LLAMAINDEX),
        ({"body": "", "meta": {}}, ("body", "meta"), Layout("body", "meta")),
        ({"body": "", "metadata": {}}, ("body", None), Layout("body", "metadata")),
        ({"body": "", "metadata": "x"}, ("body", None), Layout("body", "")),
        ({**langchain(0), "meta": {}}, (None, "meta"), Layout("page_content", "meta")),
    ],
)
def test_layouts_are_told_apart(
    payload: Mapping[str, Any], keys: tuple[str | None, str | None], expected: Layout
) -> None:
    assert find_layout(payload, *keys, "here") == expected


@pytest.mark.parametrize(
    ("payload", "keys"),
    [({"body": "x", "year": 1}, (None, None)), ({"body": "x"}, ("text", None)), ({}, (None, "m"))],
)
def test_an_unknown_layout_is_shown(
    payload: Mapping[str, Any], keys: tuple[str | None, str | None]
) -> None:
    held = ", ".join(payload) or "nothing"
    with pytest.raises(IndexMismatchError, match=f"payload in here holds {held}, .*content_key"):
        find_layout(payload, *keys, "here")


@pytest.mark.parametrize(
    ("layout", "payload"),
    [
        (LANGCHAIN, {"text": "x"}),
        (LLAMAINDEX, {"_node_content": "{"}),
        (LLAMAINDEX, {"_node_content": "[]"}),
    ],
)
def test_a_point_without_text_is_named(layout: Layout, payload: dict[str, Any]) -> None:
    with pytest.raises(IndexMismatchError, match="the point 5 has no text under"):
        layout.text(Hit("5", 0.0, payload))


def test_nodes_of_every_kind_have_text() -> None:
    newer = json.dumps({"text_resource": {"text": "newer"}})
    assert LLAMAINDEX.text(Hit("1", 0.0, {"_node_content": newer})) == "newer"
    empty = {"_node_content": json.dumps({"text_resource": None}), "doc_id": "None"}
    assert LLAMAINDEX.passage(Hit("1", 0.0, empty)).metadata == {}
    assert LANGCHAIN.passage(Hit("1", 0.0, {"page_content": "x", "metadata": None})).metadata == {}


def test_points_belong_to_documents_or_sources_or_nothing() -> None:
    nodes = [
        Hit(str(n), 0.0, {"_node_content": "{}", **payload})
        for n, payload in enumerate(
            [{"doc_id": "a", "source": "s"}, {"doc_id": "None", "file_path": "f"}, {}]
        )
    ]
    assert [LLAMAINDEX.document(node) for node in nodes] == ["a", "f", "2"]
    kept = Hit("3", 0.0, {"page_content": "", "metadata": {"doc_id": "a", "source": "s"}})
    assert LANGCHAIN.document(kept) == "a"
    assert LANGCHAIN.document(Hit("4", 0.0, {"metadata": {"source": "s"}})) == "s"
