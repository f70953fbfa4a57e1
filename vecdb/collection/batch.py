"""What a caller wants to write, checked whole before any of it is applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.config import BATCH_ROWS, STR_ID_BYTES, TEXT_BYTES
from vecdb.errors import (
    DuplicateIdError,
    EmptyBatchError,
    InvalidIdError,
    InvalidTextError,
    LengthMismatchError,
    ResourceExhaustedError,
    shown,
)
from vecdb.payload import encode_payload
from vecdb.types import Matrix, Payload, PointId, is_single

_ID_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Points to be written: row i of each part belongs to ``ids[i]``.

    Attributes
    ----------
    ids
        No id stands in it twice.
    vectors
        float32 (n, dim), as given: not normalised.
    texts, payloads
        None where a point has none; payloads as UTF-8 JSON.
    """

    ids: list[PointId]
    vectors: Matrix
    texts: list[str | None]
    payloads: list[bytes | None]

    @property
    def has_texts(self) -> bool:
        """Whether any point has a text."""
        return self.texts.count(None) < len(self.texts)

    @property
    def has_payloads(self) -> bool:
        """Whether any point has a payload."""
        return self.payloads.count(None) < len(self.payloads)

    def rows(self, first: int, end: int) -> Batch:
        """Return the points from `first` up to `end`."""
        part = slice(first, end)
        return Batch(self.ids[part], self.vectors[part], self.texts[part], self.payloads[part])


def check_ids(ids: Iterable[Any], *, what: str = "ids") -> list[PointId]:
    """Return ids as a list of int and str, none of them twice.

    Raises
    ------
    EmptyBatchError, InvalidIdError, DuplicateIdError, ResourceExhaustedError
    """
    checked = _as_point_ids(listed_ids(ids, what=what))
    if not checked:
        raise EmptyBatchError(f"{what} is empty: give at least one id")
    if len(checked) > BATCH_ROWS.greatest:
        raise ResourceExhaustedError(
            f"{what} has {len(checked)} entries: at most {BATCH_ROWS.greatest} in one batch"
        )
    if len(set(checked)) < len(checked):
        twice = next(point_id for point_id, times in Counter(checked).items() if times > 1)
        raise DuplicateIdError(f"id {shown(twice)} stands twice in {what}: give it once")
    return checked


def listed_ids(ids: Any, *, what: str = "ids") -> list[Any]:
    """Return ids as a list, without a look at them.

    Raises
    ------
    InvalidIdError
        If there is no telling them apart.
    """
    if is_single(ids):
        raise InvalidIdError(f"{what}={shown(ids)}: must be a sequence of ids, not a single one")
    return ids.tolist() if isinstance(ids, np.ndarray) and ids.ndim == 1 else list(ids)


def _as_point_ids(given: list[Any]) -> list[PointId]:
    """Check each id; plain ints, the common case, all at once."""
    if set(map(type, given)) == {int} and min(given) >= 0 and max(given) < _ID_LIMIT:
        return given
    return [_check_id(value) for value in given]


def _check_id(value: Any) -> PointId:
    if isinstance(value, str):
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidIdError(f"id {shown(value)} has a lone surrogate: not UTF-8") from None
        if not STR_ID_BYTES.least <= size <= STR_ID_BYTES.greatest:
            raise InvalidIdError(
                f"id {shown(value)} has {size} bytes in UTF-8: must have "
                f"{STR_ID_BYTES.least} to {STR_ID_BYTES.greatest}"
            )
        return str(value)  # of numpy's strings, say
    if isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_):
        number = int(value)
        if 0 <= number < _ID_LIMIT:
            return number
    raise InvalidIdError(f"id {shown(value)}: must be an int from 0 to 2**64 - 1 or a str")


def check_texts(texts: Sequence[Any] | None, count: int, *, required: bool) -> list[str | None]:
    """Return one text, or None, for each of `count` points.

    Raises
    ------
    InvalidTextError, LengthMismatchError
    """
    if texts is None:
        return [None] * count
    entries = listed(texts, count, "texts")
    return [_check_text(text, i, required=required) for i, text in enumerate(entries)]


def _check_text(text: Any, position: int, *, required: bool) -> str | None:
    if text is None and not required:
        return None
    return check_text(text, f"texts[{position}]")


def check_text(text: Any, name: str) -> str:
    """Return a text that can be embedded.

    Raises
    ------
    InvalidTextError
        If it is not a str, is blank, is over the size limit, or is not Unicode text.
    """
    if not isinstance(text, str):
        raise InvalidTextError(f"{name} is a {type(text).__name__}: must be a str")
    if not text.strip():
        raise InvalidTextError(f"{name} is empty: must hold something besides white space")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidTextError(f"{name} has a lone surrogate at {error.start}: not UTF-8") from None
    if size > TEXT_BYTES.greatest:
        raise InvalidTextError(
            f"{name} has {size} bytes: must have at most {TEXT_BYTES.greatest}; split it first"
        )
    return text


def check_payloads(
    payloads: Sequence[Payload | None] | None, ids: Sequence[PointId]
) -> list[bytes | None]:
    """Return each point's payload as UTF-8 JSON, or None.

    Raises
    ------
    InvalidPayloadError, LengthMismatchError
    """
    if payloads is None:
        return [None] * len(ids)
    entries = listed(payloads, len(ids), "payloads")
    return [
        None if payload is None else encode_payload(payload, f"payload of id {shown(point_id)}")
        for point_id, payload in zip(ids, entries, strict=True)
    ]


def listed(values: Any, count: int, name: str) -> list[Any]:
    """Return what is given beside `count` ids as a list, without a look at it.

    Raises
    ------
    LengthMismatchError
    """
    if isinstance(values, dict) or is_single(values):
        raise LengthMismatchError(
            f"{name} is a {type(values).__name__}: must be a sequence with one entry for each id"
        )
    entries = list(values)
    if len(entries) != count:
        raise LengthMismatchError(
            f"{name} has {len(entries)} entries and ids has {count}: must be as many"
        )
    return entries
