"""Which rows a search may return, made ready once for many searches."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidParameterError
from vecdb.index.validate import as_mask
from vecdb.kernels.bitset import Bits, count_bits, pack_mask, unpack_mask


class RowFilter:
    """A set of the rows of an index; indexes take one wherever they take a bool array.

    Parameters
    ----------
    mask
        bool (n,): the rows in the set. It is copied.

    Attributes
    ----------
    bits
        The set as bits, see `vecdb.kernels.bitset`.
    row_count
        n.
    count
        How many rows are in it.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.bits: Bits = pack_mask(mask)
        self.row_count = len(mask)
        self.count = count_bits(self.bits)

    @classmethod
    def of(cls, given: Any, row_count: int) -> Self:
        """Return what a caller gave as a filter of an index of so many rows.

        Raises
        ------
        InvalidParameterError
            If it is for another number of rows, or no array of bool.
        """
        if not isinstance(given, cls):
            return cls(as_mask(given, row_count))
        if given.row_count != row_count:
            raise InvalidParameterError(
                f"filter is one of {given.row_count} rows: must be one of {row_count}"
            )
        return given

    def rows(self) -> NDArray[np.int64]:
        """Return the rows in the set, ascending."""
        return np.flatnonzero(unpack_mask(self.bits, self.row_count))
