"""What a JSON value is here: read strictly, and checked so that no input can exhaust the stack."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from vecdb.errors import shown

_INT_BITS = 14_284
"""The most that surely have 4,300 digits at most: Python makes no text of longer ints."""
MAX_DEPTH = 64
"""How many objects and arrays a payload or an operand may nest."""


class NotJsonError(ValueError):
    """A value has no JSON form; the message names the place and what would be right."""


def decode_json(text: str) -> Any:
    """Return the value that JSON text stands for.

    Raises
    ------
    NotJsonError
        If it is not JSON, holds NaN or Infinity, or nests too deep to be read.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from None


def check_json(value: object, where: str, max_depth: int = MAX_DEPTH) -> None:
    """Refuse everything that would not come back from JSON as it went in.

    Tuples pass as arrays. Subclasses of the JSON types (a `numpy.float64`, a `StrEnum`) pass as
    their base.

    Parameters
    ----------
    value
        The value to look at.
    where
        What `value` is called in messages, such as ``"payload"``.
    max_depth
        How many levels of objects and arrays are allowed.

    Raises
    ------
    NotJsonError
        For a type that JSON lacks, NaN or infinity, a key that is not a string, a string that is
        not Unicode text (a lone surrogate), or nesting that is too deep.
    """
    stack: list[tuple[object, str, int]] = [(value, where, 1)]
    while stack:
        item, place, depth = stack.pop()
        if item is None or isinstance(item, bool):
            continue
        if isinstance(item, int):
            if item.bit_length() > _INT_BITS:
                raise NotJsonError(f"{place} is an int of over 4,300 digits: too long for JSON")
            continue
        if isinstance(item, str):
            _check_text(item, place)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise NotJsonError(f"{place} is {shown(item)}: JSON numbers are finite")
        elif isinstance(item, dict | list | tuple):
            if depth > max_depth:
                raise NotJsonError(f"{place} nests deeper than {max_depth} levels")
            stack.extend(_children(item, place, depth + 1))
        else:
            raise NotJsonError(
                f"{place} is a {type(item).__module__}.{type(item).__qualname__}: must be None, "
                "bool, int, float, str, list or dict (convert it first, e.g. int(x), str(x))"
            )


def _children(
    item: dict[Any, Any] | list[Any] | tuple[Any, ...], place: str, depth: int
) -> list[tuple[object, str, int]]:
    if not isinstance(item, dict):
        return [(element, f"{place}[{n}]", depth) for n, element in enumerate(item)]
    children = []
    for key, child in item.items():
        if not isinstance(key, str):
            raise NotJsonError(f"{place} has the key {shown(key)}: keys must be str")
        _check_text(key, f"a key of {place}")
        children.append((child, f"{place}[{shown(key, 40)}]", depth))
    return children


def _check_text(text: str, place: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotJsonError(
            f"{place} is not Unicode text: it holds the lone surrogate "
            f"{text[error.start]!r} at character {error.start}"
        ) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
"""Made once: `json.loads` would make one for each payload."""
