"""Bounded pools of the best candidates: sorted arrays of 64-bit keys.

A key holds the distance above and the row below, so that keys sort by distance, then row::

    bits 63..32  the distance's float32 bits, mapped so that they order as signed integers
    bits 31..1   the row number
    bit  0       1 once the candidate has been expanded

An insert is a binary search and one block move. Rows must be below 2**31.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.jit import inline
from vecdb.kernels.simd import move_up

EXPANDED = 1
"""The bit of a key that says that the candidate's neighbours have been looked at."""

LARGEST_KEY = (1 << 63) - 1
"""A key behind every real one."""


@inline
def pack_key(distance: Any, row: Any) -> Any:
    """Make the key of an unexpanded candidate."""
    bits = np.int64(np.float32(distance).view(np.int32))
    if bits < 0:
        bits ^= np.int64(0x7FFFFFFF)
    return (bits << np.int64(32)) | (np.int64(row) << np.int64(1))


def pack_keys(distances: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Make keys, as `pack_key` does, of arrays; no distance is negative."""
    bits = (distances + np.float32(0)).view(np.int32).astype(np.int64)
    return bits << 32 | rows.astype(np.int64) << 1


@inline
def key_distance(key: Any) -> Any:
    """Return the distance that a key was made with."""
    bits = key >> np.int64(32)
    if bits < 0:
        bits ^= np.int64(0x7FFFFFFF)
    return np.int32(bits).view(np.float32)


@inline
def key_row(key: Any) -> Any:
    """Return the row that a key was made with."""
    return (key & np.int64(0xFFFFFFFF)) >> np.int64(1)


@inline
def insert_key(pool: Any, size: Any, capacity: Any, key: Any) -> Any:
    """Insert `key` into the sorted ``pool[:size]``, dropping the last key when it is full.

    The caller has checked that a full pool's last key is larger than `key`.

    Returns
    -------
    int
        The place where the key now stands.
    """
    low = 0
    length = size
    while length > 0:
        half = length >> 1
        if pool[low + half] < key:
            low += half + 1
            length -= half + 1
        else:
            length = half
    last = size if size < capacity else capacity - 1
    if last > low:
        move_up(pool, low, last, 1)
    pool[low] = key
    return low


@inline
def offer(pool: Any, size: Any, capacity: Any, distance: Any, row: Any) -> Any:
    """Keep the candidate if it is among the `capacity` best; return the pool's new size."""
    key = pack_key(distance, row)
    if size < capacity:
        insert_key(pool, size, capacity, key)
        return size + 1
    if key < pool[capacity - 1]:
        insert_key(pool, size, capacity, key)
    return size
