"""Sets of rows as bits: row r is bit ``r % 8`` of byte ``r // 8``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.jit import inline

Bits = NDArray[np.uint8]


@inline
def has_bit(bits: Any, row: Any) -> Any:
    """Tell whether `row` is in the set."""
    return (bits[row >> 3] >> (row & 7)) & 1 != 0


@inline
def set_bit(bits: Any, row: Any) -> None:
    """Put `row` into the set."""
    bits[row >> 3] |= np.uint8(1 << (row & 7))


def pack_mask(mask: NDArray[np.bool_]) -> Bits:
    """Make the set of the rows at which `mask` is true."""
    return np.packbits(mask, bitorder="little")


def unpack_mask(bits: Bits, count: int) -> NDArray[np.bool_]:
    """Make the mask of a set, of `count` rows."""
    return np.unpackbits(bits, count=count, bitorder="little").view(np.bool_)


def count_bits(bits: Bits) -> int:
    """Return how many rows are in the set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
