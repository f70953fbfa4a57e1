"""Checks on arrays that come from a file, before an index is made over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vecdb.errors import CorruptFileError, NewerFormatError

Expected = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]


def read_header(
    arrays: Mapping[str, NDArray[Any]], newest: int, length: int, oldest: int = 1
) -> list[int]:
    """Return the numbers of the array ``header`` behind the first, which is the layout's version.

    Raises
    ------
    NewerFormatError
        If the version is above `newest`.
    CorruptFileError
        If it is below `oldest`, or if there is no header of `length` numbers.
    """
    header = arrays.get("header")
    if header is None or header.dtype != np.int64 or header.ndim != 1 or not header.size:
        raise CorruptFileError("the arrays have no header of int64 numbers")
    numbers: list[int] = header.tolist()
    version = numbers.pop(0)
    if version > newest:
        raise NewerFormatError(
            f"the arrays have layout {version}; this vecdb reads layouts up to {newest}"
        )
    if version < oldest:
        raise CorruptFileError(
            f"the arrays have layout {version}; this vecdb reads layouts from {oldest} on: build "
            "the index again"
        )
    if header.size != length:
        raise CorruptFileError(f"the header has {header.size} numbers: must be {length}")
    return numbers


def check_arrays(arrays: Mapping[str, NDArray[Any]], expected: Expected) -> None:
    """Compare the arrays with what they must be.

    Raises
    ------
    CorruptFileError
        If one is missing, or of another dtype or shape.
    """
    for name, (dtype, shape) in expected.items():
        array = arrays.get(name)
        if array is None:
            raise CorruptFileError(f"array {name!r} is missing")
        if array.dtype != dtype or array.shape != shape:
            raise CorruptFileError(
                f"array {name!r} has dtype {array.dtype} and shape {array.shape}: "
                f"must be {np.dtype(dtype)} and {shape}"
            )


def rows_in(arrays: Mapping[str, NDArray[Any]], name: str) -> int:
    """Return the length of an array, 0 if it is missing: what the others are checked against."""
    array = arrays.get(name)
    return 0 if array is None or array.ndim == 0 else len(array)
