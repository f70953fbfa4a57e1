"""The predicate tree that a filter is parsed into, and its evaluation on one payload.

The tree is immutable and small: `And`, `Or` and `Not` over the four leaves `Equals`, `OneOf`,
`Compare` and `Exists`. A leaf holds when *some* value of its field meets it; negation is always
an explicit `Not`. `vecdb.payload.filter` gives the rules in the user's terms.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from vecdb.types import Payload

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class Predicate(ABC):
    """Something that holds or does not hold for a payload."""

    __slots__ = ()

    @abstractmethod
    def matches(self, payload: Payload | None) -> bool:
        """Whether it holds for `payload`; a point without a payload has no fields."""


class Order(StrEnum):
    """The order comparisons."""

    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"


_COMPARISONS: dict[Order, Callable[[Any, Any], Any]] = {
    Order.GT: operator.gt,
    Order.GTE: operator.ge,
    Order.LT: operator.lt,
    Order.LTE: operator.le,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field's name, and for each of its parts the keys that could stand there.

    Attributes
    ----------
    name
        The name as written, such as ``"a.b.c"``.
    steps
        ``steps[i]`` pairs every key that may be looked up from part ``i`` on with the part to go
        on from: for ``"a.b.c"``, ``steps[0]`` is ``(("a", 1), ("a.b", 2), ("a.b.c", 3))``.
    """

    name: str
    steps: tuple[tuple[tuple[str, int], ...], ...] = field(repr=False)

    @classmethod
    def of(cls, name: str) -> Field:
        """Work out the steps of `name`."""
        parts = name.split(".")
        last = len(parts)
        return cls(
            name,
            tuple(
                tuple((".".join(parts[i:j]), j) for j in range(i + 1, last + 1))
                for i in range(last)
            ),
        )

    def values(self, payload: Payload | None) -> Iterator[Any]:
        """Yield the values that the field has in `payload`; none when it is missing.

        One object is reached by at most one sequence of keys, so the work is bounded by the
        payload's size times the number of parts.
        """
        if payload is not None:
            yield from self._values(payload, 0)

    def _values(self, value: Any, part: int) -> Iterator[Any]:
        if part == len(self.steps):
            yield value
        elif isinstance(value, dict):
            for key, following in self.steps[part]:
                if key in value:
                    yield from self._values(value[key], following)
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, dict):
                    yield from self._values(element, part)

    def candidates(self, payload: Payload | None) -> Iterator[Any]:
        """Yield the field's values and, of those that are lists, the elements."""
        for value in self.values(payload):
            yield value
            if isinstance(value, list):
                yield from value


@dataclass(frozen=True, slots=True)
class And(Predicate):
    """All of the parts hold; true when there are none."""

    parts: tuple[Predicate, ...]

    def matches(self, payload: Payload | None) -> bool:
        """Whether all of the parts hold."""
        return all(part.matches(payload) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or(Predicate):
    """One of the parts holds."""

    parts: tuple[Predicate, ...]

    def matches(self, payload: Payload | None) -> bool:
        """Whether one of the parts holds."""
        return any(part.matches(payload) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Predicate):
    """The part does not hold."""

    part: Predicate

    def matches(self, payload: Payload | None) -> bool:
        """Whether the part does not hold."""
        return not self.part.matches(payload)


@dataclass(frozen=True, slots=True)
class Exists(Predicate):
    """The field is there, be it null."""

    field: Field

    def matches(self, payload: Payload | None) -> bool:
        """Whether the field is there."""
        return any(True for _ in self.field.values(payload))


@dataclass(frozen=True, slots=True)
class Equals(Predicate):
    """A value of the field equals `value`; null also equals a missing field."""

    field: Field
    value: JsonValue

    def matches(self, payload: Payload | None) -> bool:
        """Whether a value of the field, or an element of one, equals `value`."""
        missing = True
        for candidate in self.field.candidates(payload):
            if equal(candidate, self.value):
                return True
            missing = False
        return missing and self.value is None


@dataclass(frozen=True, slots=True)
class OneOf(Predicate):
    """`Equals` holds for one of several values.

    Attributes
    ----------
    scalars
        The values that are no list or object, as `scalar_key` gives them.
    compounds
        The lists and objects.
    """

    field: Field
    scalars: frozenset[Hashable]
    compounds: tuple[JsonValue, ...]

    @classmethod
    def of(cls, field: Field, values: list[JsonValue]) -> OneOf:
        """Sort `values` into scalars and compounds."""
        return cls(
            field,
            frozenset(scalar_key(v) for v in values if not isinstance(v, list | dict)),
            tuple(v for v in values if isinstance(v, list | dict)),
        )

    def matches(self, payload: Payload | None) -> bool:
        """Whether a value of the field, or an element of one, is among the values."""
        missing = True
        for candidate in self.field.candidates(payload):
            missing = False
            if isinstance(candidate, list | dict):
                if any(equal(candidate, value) for value in self.compounds):
                    return True
            elif scalar_key(candidate) in self.scalars:
                return True
        return missing and scalar_key(None) in self.scalars


@dataclass(frozen=True, slots=True)
class Compare(Predicate):
    """A value of the field stands in the given order to `value`, which has the same type."""

    field: Field
    order: Order
    value: int | float | str

    def matches(self, payload: Payload | None) -> bool:
        """Whether a value of the field, or an element of one, stands in that order."""
        return any(self._holds(candidate) for candidate in self.field.candidates(payload))

    def _holds(self, candidate: Any) -> bool:
        if isinstance(candidate, bool):
            return False
        kind = str if isinstance(self.value, str) else (int, float)
        if not isinstance(candidate, kind):
            return False
        return bool(_COMPARISONS[self.order](candidate, self.value))


def scalar_key(value: Any) -> Hashable:
    """Return a key that is equal for equal scalars: 1 and 1.0 share one, 1 and true do not."""
    return (value,) if isinstance(value, bool) else value


def equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, with true apart from 1, also inside lists and objects."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(equal(value, right[key]) for key, value in left.items())
        )
    if isinstance(left, list):
        return (
            isinstance(right, list)
            and len(left) == len(right)
            and all(equal(a, b) for a, b in zip(left, right, strict=True))
        )
    return bool(left == right)
