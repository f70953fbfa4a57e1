"""Distances by metric, and the preparation of vectors for them.

Kernels rank by the cheap form, and the correction is added once, to what is returned:

========= ================= ========================== ===========
metric    stored as         cheap form                 correction
========= ================= ========================== ===========
l2        given             ``|q - x|**2``             0
dot       given             ``-<q, x>``                1
cosine    unit norm         ``-<q, x>``                1
========= ================= ========================== ===========
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.simd import dot_four_by_two, dot_one_by_four, l2_four_by_two, l2_one_by_four

L2 = 0
"""The metric number of squared Euclidean distance; every other number means inner product."""
DOT = 1
COSINE = 2


@inline
def distances_to_four(
    metric: Any, queries: Any, q: Any, rows: Any, a: Any, b: Any, c: Any, d: Any, dim: Any
) -> Any:
    """Return the cheap distances of query `q` to four rows."""
    if metric == L2:
        return l2_one_by_four(queries, q, rows, a, b, c, d, dim)
    w, x, y, z = dot_one_by_four(queries, q, rows, a, b, c, d, dim)
    return -w, -x, -y, -z


@inline
def distance(metric: Any, queries: Any, q: Any, rows: Any, row: Any, dim: Any) -> Any:
    """Return the cheap distance of query `q` to one row."""
    return distances_to_four(metric, queries, q, rows, row, row, row, row, dim)[0]


@inline
def distances_four_by_two(
    metric: Any, queries: Any, q: Any, rows: Any, a: Any, b: Any, dim: Any
) -> Any:
    """Return the cheap distances of queries `q` to `q` + 3 to two rows, query-major."""
    if metric == L2:
        return l2_four_by_two(queries, q, rows, a, b, dim)
    s, t, u, v, w, x, y, z = dot_four_by_two(queries, q, rows, a, b, dim)
    return -s, -t, -u, -v, -w, -x, -y, -z


@direct_kernel
def store_rows(vectors: Any, normalise: Any, rows: Any, first: Any) -> None:
    """Copy `vectors` (n, dim) into ``rows[first:, :dim]``, scaled to unit norm if asked.

    The caller has checked that no vector is zero when they are to be normalised.
    """
    count, dim = vectors.shape
    for i in range(count):
        scale = 1.0
        if normalise:
            total = 0.0
            for j in range(dim):
                total += np.float64(vectors[i, j]) * np.float64(vectors[i, j])
            scale = 1.0 / np.sqrt(total)
        factor = np.float64(scale)
        for j in range(dim):
            rows[first + i, j] = np.float32(vectors[i, j] * factor)
        for j in range(dim, min(rows.shape[1], (dim + 15) // 16 * 16)):
            rows[first + i, j] = np.float32(0.0)
    await_interpreter()
