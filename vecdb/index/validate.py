"""The one place where vectors, ids and filters from outside are checked and brought into form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import (
    DimensionMismatchError,
    DuplicateIdError,
    EmptyBatchError,
    InvalidIdError,
    InvalidParameterError,
    InvalidVectorError,
    LengthMismatchError,
    shown,
)
from vecdb.types import Matrix, MatrixLike, Metric, VectorLike

_FLOAT32 = np.dtype(np.float32)
_LARGEST_SQUARED_NORM = 1e37
"""Above it the distance of two such vectors could overflow float32."""
_SAFE_SQUARED_NORM = 1e-30
"""Below it a float32 sum of squares may have lost its digits, and is taken again in float64."""


def as_metric(metric: str) -> Metric:
    """Return the metric of that name.

    Raises
    ------
    InvalidParameterError
        If there is none.
    """
    try:
        return Metric(metric)
    except ValueError:
        names = ", ".join(Metric)
        raise InvalidParameterError(f"metric={shown(metric)}: must be one of {names}") from None


def as_matrix(
    vectors: VectorLike | MatrixLike, dim: int, metric: Metric, *, name: str = "vectors"
) -> Matrix:
    """Return vectors as float32 rows, checked, and otherwise as given.

    Parameters
    ----------
    vectors
        Floats or integers, shape (n, dim) with n at least 1, or (dim,) for one vector.
    dim
        The dimension that they must have.
    metric
        Under cosine a vector must have a direction.
    name
        What the vectors are called in messages.

    Returns
    -------
    ndarray
        float32 (n, dim), C-contiguous; the argument itself when it is that already.

    Raises
    ------
    DimensionMismatchError
        If the vectors are not of dimension `dim`.
    EmptyBatchError
        If there is no vector.
    InvalidVectorError
        If they have another dtype or shape, or hold NaN, infinity, numbers so large that distances
        would overflow or, under cosine, a vector of zeros.
    """
    rows = _as_rows(vectors, name)
    if rows.shape[1] != dim and rows.size:
        raise DimensionMismatchError(
            f"{_has(name)} dimension {rows.shape[1]}, but dimension {dim} is needed"
        )
    if rows.shape[0] == 0:
        raise EmptyBatchError(f"{name} are empty: at least one vector is needed")
    if rows.shape[1] == 0:
        raise DimensionMismatchError(f"{_has(name)} dimension 0, but dimension {dim} is needed")
    matrix = _as_float32(rows)
    if len(matrix) == 1:  # one query: the loops over rows would cost more than the work
        least = greatest = float(np.vdot(matrix, matrix))  # `dot` would warn of an overflow
    else:
        norms = np.einsum("ij,ij->i", matrix, matrix)
        least, greatest = float(norms.min()), float(norms.max())
    if not greatest < _LARGEST_SQUARED_NORM:
        _raise_for_values(rows, matrix, name)
    if metric is Metric.COSINE and least < _SAFE_SQUARED_NORM:
        zero = np.flatnonzero(~matrix.any(axis=1))
        if zero.size:
            raise InvalidVectorError(
                f"{name}[{zero[0]}] is zero: under the cosine metric a vector must have a direction"
            )
    return matrix


def _has(name: str) -> str:
    return f"{name} {'have' if name.endswith('s') else 'has'}"


def _as_rows(vectors: Any, name: str) -> NDArray[Any]:
    """Return the argument as a 2-D array of numbers."""
    if type(vectors) is np.ndarray and vectors.ndim == 2 and vectors.dtype == _FLOAT32:
        return vectors  # what a server passes for each search
    try:
        rows = np.asarray(vectors)
    except ValueError as error:
        raise InvalidVectorError(f"{name} are not of one length: {error}") from None
    if rows.size == 0 and rows.dtype == np.float64:
        rows = rows.astype(np.float32)  # what an empty list becomes
    if rows.dtype.kind not in "fiu":
        raise InvalidVectorError(
            f"{name} have dtype {rows.dtype}: must be float32, or floats or integers to convert"
        )
    if rows.ndim == 1:
        rows = rows.reshape(1, -1) if rows.size else rows.reshape(0, 0)
    if rows.ndim != 2:
        raise InvalidVectorError(f"{name} have shape {rows.shape}: must be (n, dim) or (dim,)")
    return rows


def _as_float32(rows: NDArray[Any]) -> Matrix:
    """Return the rows as C-contiguous float32; what does not fit becomes infinite."""
    if rows.dtype == _FLOAT32:
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def _raise_for_values(given: NDArray[Any], matrix: Matrix, name: str) -> None:
    """Say which number cannot be used."""
    norms = np.einsum("ij,ij->i", matrix, matrix)
    row = int(np.flatnonzero(~(norms < _LARGEST_SQUARED_NORM))[0])
    bad = np.flatnonzero(~np.isfinite(matrix[row]))
    if bad.size:
        column = int(bad[0])
        raise InvalidVectorError(
            f"{name}[{row}, {column}] is {given[row, column]}: must be a finite float32"
        )
    raise InvalidVectorError(
        f"{name}[{row}] has the squared norm {norms[row]:.3g}: must be below "
        f"{_LARGEST_SQUARED_NORM:g}, or distances would overflow float32"
    )


def as_ids(ids: Any, count: int | None = None) -> NDArray[np.int64]:
    """Return ids as int64, checked to be non-negative and without repetition.

    Parameters
    ----------
    ids
        Integers.
    count
        How many there must be; None for any number but 0.

    Raises
    ------
    EmptyBatchError, LengthMismatchError, InvalidIdError, DuplicateIdError
    """
    array = np.asarray(ids)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.size == 0 and count is None:
        raise EmptyBatchError("ids are empty: at least one id is needed")
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidIdError(
            f"ids have dtype {array.dtype} and shape {array.shape}: must be integers in one row"
        )
    if count is not None and array.size != count:
        raise LengthMismatchError(f"{array.size} ids were given for {count} vectors")
    limit = np.iinfo(np.int64).max
    too_large = array > np.uint64(limit) if array.dtype == np.uint64 else False
    wrong = np.flatnonzero((array < 0) | too_large)
    if wrong.size:
        raise InvalidIdError(f"id {array[wrong[0]]}: must be from 0 to {limit}")
    result = array.astype(np.int64)
    values, counts = np.unique(result, return_counts=True)
    if values.size != result.size:
        raise DuplicateIdError(f"id {values[counts > 1][0]} stands more than once in the batch")
    return result


def as_mask(mask: Any, count: int) -> NDArray[np.bool_]:
    """Return a filter as a bool array, one entry for each row.

    Raises
    ------
    InvalidParameterError
        If it has another dtype or length.
    """
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (count,):
        raise InvalidParameterError(
            f"filter has dtype {array.dtype} and shape {array.shape}: must be bool and ({count},), "
            "one entry for each row"
        )
    return array
