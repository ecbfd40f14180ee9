"""core/openrag_core/filters.py: what conditions mean, and the dictionaries they are written as."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrag_core import Field, Filter, FilterError
from openrag_core.filters import All, AnyOf, Condition, Not, conditions, from_dict, to_dict

STORED: dict[str, Any] = {
    "source": "a.md",
    "page": 3,
    "created_at": "2025-05-01T00:00:00+00:00",
    "metadata": {"tags": ["x", "y"], "open": True, "by": [{"name": "Ben"}], "nulls": [None]},
}


@pytest.mark.parametrize(
    ("filter_", "holds"),
    [
        (Field("source") == "a.md", True),
        (Field("source") != "a.md", False),
        (Field("page") >= 3, True),
        (Field("page") > 3, False),
        (Field("page") == True, False),  # noqa: E712  (a number is no truth value)
        (Field("metadata.open") == 1, False),
        (Field("metadata.tags") == "y", True),
        (Field("metadata.tags") != "y", False),
        (Field("metadata.by.name") == "Ben", False),  # a list of objects is not looked into
        (Field("metadata.nulls").exists, True),
        (Field("page") == 3.0, True),
        (Field("created_at") < datetime(2025, 6, 1), True),
        (Field("metadata.nothing") == "y", False),
        (Field("metadata.nothing") != "y", True),
        (Field("metadata.nothing").exists, False),
        (Field("source").is_in(["b.md", "a.md"]), True),
        (Field("source").not_in(["b.md"]), True),
        (Field("source") < 3, False),
        (Field("created_at") < datetime(2025, 6, 1, tzinfo=UTC), True),
        (Field("created_at") == datetime(2025, 5, 1, tzinfo=UTC), True),
        (Field("page") > datetime(2025, 5, 1, tzinfo=UTC), False),
        (~(Field("page") >= 3), False),
        ((Field("page") == 3) & (Field("source") == "b.md"), False),
        ((Field("page") == 3) | (Field("source") == "b.md"), True),
    ],
    ids=str,
)
def test_conditions_mean_what_they_say(filter_: Filter, holds: bool) -> None:
    assert filter_.matches(STORED) is holds


def test_joined_filters_stay_flat() -> None:
    one, two, three = (Field("page") == n for n in (1, 2, 3))
    assert one & two & three == All((one, two, three))
    assert one | two | three == AnyOf((one, two, three))
    assert (one | two) & three == All((AnyOf((one, two)), three))
    assert list(conditions(~((one | two) & three))) == [one, two, three]


def test_a_dictionary_joins_a_filter_and_nothing_else_does() -> None:
    one, two = Field("page") == 1, Field("page") == 2
    assert one & {"page": 2} == one & two
    assert one | {"$or": [{"page": 2}]} == AnyOf((one, two))
    with pytest.raises(FilterError, match=r"Field\(name='secret'\) is no filter: give a condition"):
        one & Field("secret")  # type: ignore[operator]
    with pytest.raises(FilterError, match="is no filter"):
        one | "page == 2"  # type: ignore[operator]


def test_the_usual_dictionaries_are_read() -> None:
    assert from_dict({"source": "a.md"}) == (Field("source") == "a.md")
    spring = {"created_at": {"$gte": "2025-05-01T00:00:00+00:00"}}
    assert from_dict(spring) == (Field("created_at") >= datetime(2025, 5, 1, tzinfo=UTC))
    given = {"source": "a.md", "page": {"$gte": 3, "$lt": 9}}
    parts = (Field("source") == "a.md", Field("page") >= 3, Field("page") < 9)
    assert from_dict(given) == All(parts)
    nested = {"$or": [{"page": {"$in": [1, 2]}}, {"$not": {"source": {"$exists": True}}}]}
    assert from_dict(nested) == AnyOf((Field("page").is_in([1, 2]), Not(Field("source").exists)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "is no filter"),
        ("source", "is no filter"),
        ({"page": {"$near": 3}}, r"'\$near' is no operator.*\$eq, \$ne"),
        ({"page": {}}, "compares with nothing"),
        ({"page": [1, 2]}, r"page \$eq \(1, 2\): give a string"),
        ({"page": {"$in": "ab"}}, "give a list"),
        ({"page": {"$in": []}}, "not empty"),
        ({"page": {"$in": ["a", 1]}}, "strings or of whole numbers"),
        ({"page": {"$gt": "3"}}, "a number or a datetime"),
        ({"page": {"$gt": True}}, "a number or a datetime"),
        ({"page": {"$exists": 1}}, "True or False"),
        ({"page": None}, "give a string"),
        ({"$or": {"page": 1}}, r"\$or takes a list"),
        ({"$xor": [{"page": 1}]}, "where a field"),
        ({1: 2}, "1 names no field: give a string"),
    ],
)
def test_what_is_no_filter_is_refused(given: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(FilterError, match=message):
        from_dict(given)


LEAVES = st.one_of(
    st.builds(lambda name, value: Field(name) == value, st.sampled_from("ab"), st.integers(0, 3)),
    st.builds(lambda name, value: Field(name) > value, st.sampled_from("ab"), st.floats(0, 3)),
    st.builds(lambda values: Field("c").is_in(values), st.lists(st.text(), min_size=1)),
    st.just(Field("a").exists),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(All, st.lists(parts, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(parts, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)
PAYLOADS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.text() | st.none())


@given(FILTERS, PAYLOADS)
def test_a_dictionary_holds_the_whole_filter(filter_: Filter, payload: dict[str, Any]) -> None:
    read = from_dict(to_dict(filter_))
    assert read.matches(payload) == filter_.matches(payload)
    assert to_dict(read) == to_dict(filter_)


def test_an_unknown_operator_is_refused_at_once() -> None:
    with pytest.raises(FilterError, match="is no operator"):
        Condition("page", "==", 3)  # type: ignore[arg-type]


def test_what_python_would_take_for_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="write &"):
        assert 3 <= Field("page") <= 9
    with pytest.raises(FilterError, match="give a list"):
        Field("source").is_in("a.md")
    for name in ("", "metadata.", 'metadata."x"'):
        with pytest.raises(FilterError, match="names no field"):
            Field(name).exists  # noqa: B018


def test_a_condition_without_a_comparison_is_refused() -> None:
    with pytest.raises(FilterError, match="'page' compares with nothing"):
        from_dict({"source": "a.md", "page": {}})
