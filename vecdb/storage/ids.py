"""Point ids as columns, and finding a row by its id without a dictionary of all ids.

An int is its own 64-bit key, a str is found by a 64-bit hash and then compared, so a collision
costs a comparison and never a wrong row. Keys are kept sorted, beside the rows they belong to: a
lookup is a binary search over memory-mapped arrays, and opening them costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidIdError, shown
from vecdb.types import PointId

_HASH_BYTES = 8
_U64 = 1 << 64


def hash_id(encoded: bytes) -> int:
    """Return the 64-bit key of a str id, given as UTF-8: BLAKE2b of 8 bytes, little-endian."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=_HASH_BYTES).digest(), "little")


class IdBatch:
    """Ids split into ints and strs, with the keys they are looked up by.

    Attributes
    ----------
    ids
        All of them, in order.
    int_rows, int_keys
        Positions (int64) and values (uint64) of the ints.
    str_rows, strings
        Positions (int64) and UTF-8 of the strs.

    Raises
    ------
    InvalidIdError
        If one of `ids` is neither an int in [0, 2**64) nor a str.
    """

    def __init__(self, ids: Sequence[PointId]) -> None:
        self.ids = ids
        self.strings: list[bytes] = []
        if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < _U64:  # type: ignore[operator]
            self.int_rows = np.arange(len(ids))
            self.int_keys = np.array(ids, np.uint64)
            self.str_rows = np.empty(0, np.int64)
            return
        int_rows: list[int] = []
        ints: list[int] = []
        str_rows: list[int] = []
        for row, point_id in enumerate(ids):
            if isinstance(point_id, str):
                try:
                    self.strings.append(point_id.encode())
                except UnicodeEncodeError as error:
                    raise InvalidIdError(f"id {shown(point_id)} is not valid Unicode") from error
                str_rows.append(row)
            elif type(point_id) is int and 0 <= point_id < _U64:
                ints.append(point_id)
                int_rows.append(row)
            else:
                raise InvalidIdError(f"id {shown(point_id)}: must be an int in [0, 2**64) or a str")
        self.int_rows = np.array(int_rows, np.int64)
        self.int_keys = np.array(ints, np.uint64)
        self.str_rows = np.array(str_rows, np.int64)

    @cached_property
    def str_keys(self) -> NDArray[np.uint64]:
        """The hashes of the strs, uint64."""
        return np.array([hash_id(string) for string in self.strings], np.uint64)

    def is_str(self) -> NDArray[np.bool_]:
        """Return which positions hold a str."""
        found = np.zeros(len(self.ids), np.bool_)
        found[self.str_rows] = True
        return found


def find_first(
    sorted_keys: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each key first stands in `sorted_keys`, and whether it stands there at all."""
    if not len(sorted_keys) or not len(keys) or keys.min() > sorted_keys[-1]:
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)  # new ids, mostly
    places = np.searchsorted(sorted_keys, keys)
    there = places < len(sorted_keys)
    there[there] = sorted_keys[places[there]] == keys[there]
    return places, there
