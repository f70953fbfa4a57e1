"""Filters: conditions on payload fields, in the form that MongoDB made known.

A filter is a mapping. All of its entries must hold; ``{}`` matches every point.

=============================== =============================================================
entry                           matches when
=============================== =============================================================
``{field: value}``              same as ``{field: {"$eq": value}}``
``{field: {"$eq": value}}``     the field equals `value`, or is a list with such an element
``{field: {"$ne": value}}``     not ``$eq``; so also when the field is missing
``{field: {"$gt": value}}``     the field, or an element of its list, is greater than `value`;
                                likewise ``$gte``, ``$lt``, ``$lte``
``{field: {"$in": [a, b]}}``    ``$eq`` holds for one of the values
``{field: {"$nin": [a, b]}}``   not ``$in``; so also when the field is missing
``{field: {"$exists": bool}}``  the field is there (null counts as there), or is not
``{field: {"$not": {...}}}``    the operators inside do not all hold
``{"$and": [filter, ...]}``     all of them match
``{"$or": [filter, ...]}``      at least one matches
``{"$not": filter}``            it does not match
=============================== =============================================================

Fields
    ``"a.b"`` is the key ``b`` of the object ``a``, or a key that is literally ``a.b``; when both
    are there, either may match. Through a list of objects it reaches the key of every object, as
    in MongoDB. Positions in a list cannot be addressed. A field cannot begin with ``$``.
Values
    Numbers compare by exact value, ints with floats. Strings compare with strings, by code point
    (so ISO 8601 dates in one form and zone compare by time). ``true`` is not 1. Two objects are
    equal when they have the same keys with equal values, two lists when equal element by element.
    An order comparison between different types does not match; it is no error.
Null and missing
    As in MongoDB, ``{field: None}`` matches a field that is null and one that is missing;
    ``{field: {"$ne": None}}`` asks for a value, and ``$exists`` tells null from missing.
    Order comparisons match neither.
Several operators on one list
    Each operator may be met by a different element: ``{"$gt": 1, "$lt": 5}`` matches ``[0, 9]``.

Operands are JSON values; those of the order comparisons are numbers or strings, and ``$in`` and
``$nin`` take lists. A tuple passes as a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from vecdb.config import FILTER_CONDITIONS, FILTER_DEPTH, FILTER_VALUES
from vecdb.errors import InvalidFilterError, readable, shown
from vecdb.payload.json_value import NotJsonError, check_json
from vecdb.payload.predicate import (
    And,
    Compare,
    Equals,
    Exists,
    Field,
    JsonValue,
    Not,
    OneOf,
    Or,
    Order,
    Predicate,
)

__all__ = ["Predicate", "parse_filter"]

_FIELD_OPERATORS = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not"
_MAX_FIELD_PARTS = 32


def parse_filter(conditions: Mapping[str, object]) -> Predicate:
    """Turn a filter into a predicate on payloads.

    Parameters
    ----------
    conditions
        A mapping as described in this module's documentation.

    Raises
    ------
    InvalidFilterError
        If it is not of that form, nests deeper than `vecdb.config.FILTER_DEPTH`, or has more
        conditions or values than `FILTER_CONDITIONS` and `FILTER_VALUES`. The message names the
        place, such as ``filter.$or[1].year.$gte``.
    """
    return _Parser().filter(conditions, "filter", 1)


class _Parser:
    """One pass over a filter; counts what it has seen against the limits."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def filter(self, conditions: object, place: str, depth: int) -> Predicate:
        if not isinstance(conditions, Mapping):
            _refuse(
                place,
                f"is a {type(conditions).__name__}",
                "must be a mapping of fields or $and, $or, $not",
            )
        self._check_depth(place, depth)
        parts: list[Predicate] = []
        for key, operand in conditions.items():
            if not isinstance(key, str):
                _refuse(place, f"has the key {shown(key)}", "keys must be str")
            inner = f"{place}.{readable(key, 60)}"
            self._count_condition(inner)
            if key in ("$and", "$or"):
                branches = self._branches(operand, inner, depth)
                parts.append(And(branches) if key == "$and" else Or(branches))
            elif key == "$not":
                parts.append(Not(self.filter(operand, inner, depth + 1)))
            elif key.startswith("$"):
                _refuse(
                    inner,
                    "is not an operator for this place",
                    f"here stand field names, $and, $or or $not; after a field {_FIELD_OPERATORS}",
                )
            else:
                parts.append(self._field(_parse_field(key, inner), operand, inner, depth))
        return _all_of(parts)

    def _branches(self, operand: object, place: str, depth: int) -> tuple[Predicate, ...]:
        if not isinstance(operand, list | tuple) or not operand:
            _refuse(place, f"is {shown(operand)}", "must be a non-empty list of filters")
        return tuple(self.filter(f, f"{place}[{n}]", depth + 1) for n, f in enumerate(operand))

    def _field(self, field: Field, operand: object, place: str, depth: int) -> Predicate:
        if isinstance(operand, Mapping) and any(
            isinstance(key, str) and key.startswith("$") for key in operand
        ):
            return self._operators(field, operand, place, depth + 1)
        return Equals(field, self._value(operand, place))

    def _operators(
        self, field: Field, operators: Mapping[object, object], place: str, depth: int
    ) -> Predicate:
        self._check_depth(place, depth)
        parts: list[Predicate] = []
        for key, operand in operators.items():
            if not isinstance(key, str):
                _refuse(place, f"has the key {shown(key)}", "keys must be str")
            inner = f"{place}.{readable(key, 60)}"
            self._count_condition(inner)
            match key:
                case "$eq":
                    parts.append(Equals(field, self._value(operand, inner)))
                case "$ne":
                    parts.append(Not(Equals(field, self._value(operand, inner))))
                case "$in":
                    parts.append(OneOf.of(field, self._list(operand, inner)))
                case "$nin":
                    parts.append(Not(OneOf.of(field, self._list(operand, inner))))
                case "$gt" | "$gte" | "$lt" | "$lte":
                    parts.append(Compare(field, Order(key), self._comparable(operand, inner)))
                case "$exists":
                    if not isinstance(operand, bool):
                        _refuse(inner, f"is {shown(operand)}", "must be true or false")
                    parts.append(Exists(field) if operand else Not(Exists(field)))
                case "$not":
                    if not isinstance(operand, Mapping) or not operand:
                        _refuse(
                            inner,
                            f"is {shown(operand)}",
                            'must be a mapping of operators, such as {"$gt": 3}',
                        )
                    parts.append(Not(self._operators(field, operand, inner, depth + 1)))
                case _:
                    _refuse(inner, "is not an operator", f"known here: {_FIELD_OPERATORS}")
        return _all_of(parts)

    def _value(self, operand: object, place: str) -> JsonValue:
        self._count_values(1, place)
        try:
            check_json(operand, place)
        except NotJsonError as error:
            raise InvalidFilterError(str(error)) from None
        return _plain(operand)

    def _list(self, operand: object, place: str) -> list[JsonValue]:
        if not isinstance(operand, list | tuple):
            _refuse(place, f"is {shown(operand)}", "must be a list of values")
        self._count_values(len(operand), place)
        try:
            check_json(operand, place)
        except NotJsonError as error:
            raise InvalidFilterError(str(error)) from None
        return [_plain(value) for value in operand]

    def _comparable(self, operand: object, place: str) -> int | float | str:
        value = self._value(operand, place)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            _refuse(place, f"is {shown(operand)}", "must be a number or a string to compare by")
        return value

    def _check_depth(self, place: str, depth: int) -> None:
        if depth > FILTER_DEPTH.greatest:
            _refuse(
                place[:60] + "...",
                f"nests {depth} levels",
                f"must be at most {FILTER_DEPTH.greatest}",
            )

    def _count_condition(self, place: str) -> None:
        self._conditions += 1
        if self._conditions > FILTER_CONDITIONS.greatest:
            _refuse(
                place,
                f"is condition number {self._conditions}",
                f"a filter may have {FILTER_CONDITIONS.greatest} (use $in for many values)",
            )

    def _count_values(self, count: int, place: str) -> None:
        self._values += count
        if self._values > FILTER_VALUES.greatest:
            _refuse(
                place,
                f"brings the values to {self._values}",
                f"a filter may have {FILTER_VALUES.greatest}",
            )


def _parse_field(name: str, place: str) -> Field:
    if not name:
        _refuse(place, "is an empty field name", "must be a payload key, with dots for nested keys")
    try:
        check_json(name, place)
    except NotJsonError as error:
        raise InvalidFilterError(str(error)) from None
    if name.count(".") >= _MAX_FIELD_PARTS:
        _refuse(place, f"has {name.count('.') + 1} parts", f"must have at most {_MAX_FIELD_PARTS}")
    return Field.of(str.__str__(name))


def _all_of(parts: list[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _plain(value: object) -> JsonValue:
    """Copy a checked JSON value, so that the caller's later changes to it change no predicate.

    What is of a subclass is copied as its base: a `numpy.float64` would compare inexactly with
    ints, and `str` of an enum's member is its name.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, dict):
        return {str.__str__(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    raise TypeError(f"not a JSON value: {value!r}")


def _refuse(place: str, fault: str, remedy: str) -> NoReturn:
    raise InvalidFilterError(f"{place} {fault}: {remedy}")
