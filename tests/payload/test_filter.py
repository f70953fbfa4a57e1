"""Filters: the documented table, the refusals, and a naive oracle over random payloads."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.config import FILTER_CONDITIONS, FILTER_DEPTH, FILTER_VALUES
from vecdb.errors import InvalidFilterError
from vecdb.payload import parse_filter

BOOK = {
    "title": "Dune",
    "year": 1965,
    "rating": 4.25,
    "tags": ["sf", "classic"],
    "read": True,
    "isbn": None,
    "author": {"name": "Frank Herbert", "born": 1920},
    "a.b": {"c": 7},
    "editions": [{"lang": "en", "pages": 412}, {"lang": "de", "pages": 800}],
    "matrix": [[1, 2], [3]],
    "big": 2**63,
    "one": 1,
    "deep": [[{"b": 1}]],
}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"year": 1965}, True),
        ({"year": 1965.0}, True),
        ({"year": "1965"}, False),
        ({"year": 1965, "title": "Emma"}, False),
        ({"year": {"$gte": 1965, "$lt": 1966}}, True),
        ({"year": {"$gt": 1965}}, False),
        ({"year": {"$lte": 1964.9}}, False),
        ({"title": {"$gt": "Dun", "$lt": "Dunf"}}, True),
        ({"title": {"$gt": 3}}, False),
        ({"read": 1}, False),
        ({"read": True}, True),
        ({"one": True}, False),
        ({"read": {"$gte": 0}}, False),
        ({"tags": "sf"}, True),
        ({"tags": ["sf", "classic"]}, True),
        ({"tags": ["classic", "sf"]}, False),
        ({"tags": {"$ne": "sf"}}, False),
        ({"tags": {"$nin": ["fantasy", "crime"]}}, True),
        ({"tags": {"$in": ["fantasy", "classic"]}}, True),
        ({"tags": {"$in": []}}, False),
        ({"tags": {"$nin": []}}, True),
        ({"tags": {"$gt": "d"}}, True),
        ({"matrix": {"$eq": [3]}}, True),
        ({"matrix": 3}, False),
        ({"deep.b": 1}, False),
        ({"author.name": "Frank Herbert"}, True),
        ({"author": {"born": 1920, "name": "Frank Herbert"}}, True),
        ({"author": {"born": 1920}}, False),
        ({"a.b.c": 7}, True),
        ({"a.b": {"c": 7}}, True),
        ({"editions.lang": "de"}, True),
        ({"editions.pages": {"$gt": 500, "$lt": 500}}, True),
        ({"editions.pages": {"$gt": 900}}, False),
        ({"isbn": None}, True),
        ({"publisher": None}, True),
        ({"isbn": {"$exists": True}}, True),
        ({"publisher": {"$exists": True}}, False),
        ({"publisher": {"$exists": False}}, True),
        ({"isbn": {"$ne": None}}, False),
        ({"title": {"$ne": None}}, True),
        ({"publisher": {"$ne": "Ace"}}, True),
        ({"publisher": {"$nin": ["Ace"]}}, True),
        ({"publisher": {"$in": [None]}}, True),
        ({"year": {"$in": [None]}}, False),
        ({"publisher": {"$gt": 0}}, False),
        ({"publisher": {"$not": {"$gt": 0}}}, True),
        ({"year": {"$not": {"$gt": 1900, "$lt": 1950}}}, True),
        ({"$not": {"year": 1965}}, False),
        ({"$or": [{"year": 1}, {"title": "Dune"}]}, True),
        ({"$and": [{"year": 1965}, {"$or": [{"title": "Emma"}, {"rating": 4.25}]}]}, True),
        ({"big": {"$gt": float(2**63) - 2000}}, True),
        ({"big": 2**63 + 1}, False),
        ({"big": float(2**63)}, True),
        ({"rating": {"$in": (4.25, 5)}}, True),
    ],
)
def test_table(conditions: dict[str, Any], expected: bool) -> None:
    assert parse_filter(conditions).matches(BOOK) is expected


def test_ints_beyond_float_precision_compare_exactly() -> None:
    assert not parse_filter({"n": float(2**53)}).matches({"n": 2**53 + 1})
    assert parse_filter({"n": {"$gt": float(2**53)}}).matches({"n": 2**53 + 1})


class Color(str, Enum):  # noqa: UP042 (whose str is "Color.RED")
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("conditions", "payload", "expected"),
    [
        ({"o": {Color.RED: 1}}, {"o": {"red": 1}}, True),
        ({Color.RED: Color.RED}, {"red": "red"}, True),
        ({"o": {"$in": [{Color.RED: Level.HIGH}]}}, {"o": {"red": 3}}, True),
        ({"n": np.float64(2**53)}, {"n": 2**53 + 1}, False),
        ({"n": {"$gt": np.float64(2**53)}}, {"n": 2**53 + 1}, True),
        ({"n": {"$lte": np.float64(5)}}, {"n": 10**400}, False),
    ],
)
def test_subclasses_of_json_types_are_taken_as_their_base(
    conditions: Any, payload: dict[str, Any], expected: bool
) -> None:
    assert parse_filter(conditions).matches(payload) is expected


def test_a_point_without_payload_has_no_fields() -> None:
    assert parse_filter({}).matches(None)
    assert parse_filter({"x": {"$ne": 1}}).matches(None)
    assert not parse_filter({"x": 1}).matches(None)


def test_the_predicate_keeps_its_own_copy_of_the_operands() -> None:
    wanted = {"a": [1]}
    predicate = parse_filter({"x": wanted})
    one_of = parse_filter({"x": {"$in": [wanted]}})
    wanted["a"].append(2)
    assert predicate.matches({"x": {"a": [1]}})
    assert one_of.matches({"x": {"a": [1]}})


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ([], "filter is a list"),
        ({3: 4}, "key 3"),
        ({"$eq": 3}, r"filter.\$eq is not an operator for this place"),
        ({"x": {"$regex": "a"}}, r"filter.x.\$regex is not an operator"),
        ({"x": {"$gt": 1, "y": 2}}, "filter.x.y is not an operator"),
        ({"$nor": []}, r"\$nor"),
        ({"x": {"$gt": None}}, "must be a number or a string"),
        ({"x": {"$gt": True}}, "must be a number or a string"),
        ({"x": {"$lt": [1]}}, "must be a number or a string"),
        ({"x": {"$lt": float("nan")}}, "finite"),
        ({"x": float("inf")}, "finite"),
        ({"x": {1, 2}}, "builtins.set"),
        ({"x": {"$in": {1, 2}}}, "must be a list"),
        ({"x": {"$in": "abc"}}, "must be a list"),
        ({"x": {"$in": [object()]}}, r"filter.x.\$in\[0\] is a builtins.object"),
        ({"x": {"$exists": 1}}, "must be true or false"),
        ({"x": {"$not": 5}}, "must be a mapping of operators"),
        ({"x": {"$not": {}}}, "must be a mapping of operators"),
        ({"$and": []}, "non-empty list"),
        ({"$or": {"x": 1}}, "non-empty list"),
        ({"$or": [{"x": 1}, 4]}, r"filter.\$or\[1\] is a int"),
        ({"$not": [{"x": 1}]}, r"filter.\$not is a list"),
        ({"": 1}, "empty field name"),
        ({"x": "\ud800"}, "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"x": {"y": {1: 2}}}, "keys must be str"),
        ({".".join("x" * 33): 1}, "33 parts"),
    ],
)
def test_refusals_name_the_place(conditions: Any, told: str) -> None:
    with pytest.raises(InvalidFilterError, match=told):
        parse_filter(conditions)


def nested(levels: int) -> dict[str, Any]:
    conditions: dict[str, Any] = {"x": 1}
    for _ in range(levels - 1):
        conditions = {"$not": conditions}
    return conditions


def test_limits_on_depth_conditions_and_values() -> None:
    assert parse_filter(nested(FILTER_DEPTH.greatest)).matches({"x": 1}) is (
        FILTER_DEPTH.greatest % 2 == 1
    )
    with pytest.raises(InvalidFilterError, match="nests 65 levels"):
        parse_filter(nested(FILTER_DEPTH.greatest + 1))
    with pytest.raises(InvalidFilterError, match="nests"):
        parse_filter(nested(100_000))
    with pytest.raises(InvalidFilterError, match=r"use \$in"):
        parse_filter({"$or": [{"x": n} for n in range(FILTER_CONDITIONS.greatest)]})
    parse_filter({f"x{n}": n for n in range(FILTER_CONDITIONS.greatest)})
    with pytest.raises(InvalidFilterError, match="may have 1024"):
        parse_filter({f"x{n}": {"$gt": n} for n in range(FILTER_CONDITIONS.greatest // 2 + 1)})
    inner: dict[str, Any] = {"$gt": 1}
    for _ in range(FILTER_DEPTH.greatest):
        inner = {"$not": inner}
    with pytest.raises(InvalidFilterError, match="nests"):
        parse_filter({"x": inner})
    parse_filter({"x": {"$in": list(range(FILTER_VALUES.greatest))}})
    with pytest.raises(InvalidFilterError, match="may have 65536"):
        parse_filter({"x": {"$in": list(range(FILTER_VALUES.greatest + 1))}})
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(InvalidFilterError, match="deeper than 64"):
        parse_filter({"x": deep})


# A second reading of the module's table, by other means: set-builder over JSON text.

KEYS = ["a", "b", "a.b"]
scalars = st.one_of(
    st.sampled_from([0, 1, True, False, None]),  # often, since some of them are equal in Python
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([-1.5, 0.0, 1.0, 1.5]),
    st.sampled_from(["", "a", "b"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=6,
)
payloads = st.dictionaries(st.sampled_from(KEYS), values)
comparables = st.one_of(st.integers(-2, 2), st.sampled_from([-1.5, 1.0]), st.sampled_from("ab"))
operators = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), values),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), comparables),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
).map(lambda pair: {pair[0]: pair[1]})
field_conditions = st.one_of(values, operators, operators.map(lambda inner: {"$not": inner}))
filters = st.recursive(
    st.dictionaries(st.sampled_from(["a", "b", "a.b", "a.a.b"]), field_conditions, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda f: {"$not": f}, inner),
        st.builds(lambda f: {"$and": f}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda f: {"$or": f}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


def canonical(value: Any) -> Any:
    """A hashable form that is equal exactly for equal JSON values."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return ("object", frozenset((k, canonical(v)) for k, v in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(canonical, value)))
    return ("plain", value)


def reach(value: Any, path: str) -> list[Any]:
    if isinstance(value, list):
        return [found for v in value if isinstance(v, dict) for found in reach(v, path)]
    if not isinstance(value, dict):
        return []
    found = [v for k, v in value.items() if k == path]
    for k, v in value.items():
        if path.startswith(k + "."):
            found += reach(v, path[len(k) + 1 :])
    return found


def oracle(conditions: dict[str, Any], payload: dict[str, Any]) -> bool:
    verdicts = []
    for key, operand in conditions.items():
        if key == "$and":
            verdicts.append(all(oracle(f, payload) for f in operand))
        elif key == "$or":
            verdicts.append(any(oracle(f, payload) for f in operand))
        elif key == "$not":
            verdicts.append(not oracle(operand, payload))
        else:
            verdicts.append(field_oracle(reach(payload, key), operand))
    return all(verdicts)


def field_oracle(found: list[Any], operand: Any) -> bool:
    if not (isinstance(operand, dict) and any(k.startswith("$") for k in operand)):
        operand = {"$eq": operand}
    ((name, wanted),) = operand.items()
    spread = found + [e for v in found if isinstance(v, list) for e in v]
    present = {canonical(v) for v in spread} or {canonical(None)}
    match name:
        case "$eq":
            return canonical(wanted) in present
        case "$ne":
            return canonical(wanted) not in present
        case "$in":
            return bool({canonical(w) for w in wanted} & present)
        case "$nin":
            return not ({canonical(w) for w in wanted} & present)
        case "$exists":
            return wanted == bool(found)
        case "$not":
            return not field_oracle(found, wanted)
    number = isinstance(wanted, int | float)
    alike = [
        v
        for v in spread
        if not isinstance(v, bool) and isinstance(v, (int, float) if number else str)
    ]
    return any(
        {"$gt": v > wanted, "$gte": v >= wanted, "$lt": v < wanted, "$lte": v <= wanted}[name]
        for v in alike
    )


@given(filters, payloads)
def test_agrees_with_the_oracle(conditions: dict[str, Any], payload: dict[str, Any]) -> None:
    assert parse_filter(conditions).matches(payload) == oracle(conditions, payload)
