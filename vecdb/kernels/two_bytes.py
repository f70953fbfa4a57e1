"""Coordinates of 16 bits as two bytes: a code, which comparisons read, and a residual.

Rows are a named tuple with at least `bytes`, whose rows begin with a code byte for each coordinate,
`residuals`, with a signed second byte for each (or with none, when only codes are kept), and
`width`. A coordinate is ``scale * (code - 128 + residual / 256)``; each row has its own scale.

With x a row, y what its code says and ``e = x - y``, and with p, f the same of a query q, their
squared distance is taken for ``|y|**2 - |e|**2 + |p|**2 - |f|**2 - 2 <p, y>``, all of which is
known. That is off by ``2 <q - x, e> - 2 <q - x, f>`` and what e and f have in common: the less, the
nearer the two are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.byte_simd import ZERO, dot_bytes, l2_of_bytes
from vecdb.kernels.jit import inline

_LEVEL = 127 * 256 + 127
"""The largest level of 16 bits: its upper byte, rounded, is 127."""
_TOP = 127
"""That of 8 bits."""


@inline
def split_row(rows: Any, row: Any, coordinates: Any, i: Any) -> Any:
    """Write ``coordinates[i]`` as the codes and residuals of a row.

    Returned are its scale, divided by 256: what a level of 16 bits is worth; and three sums of
    squares in such levels: of codes, of residuals, and of both together.
    """
    most = np.float32(0.0)
    for j in range(rows.width):
        most = max(most, abs(coordinates[i, j]))
    step = most / np.float32(_LEVEL)
    inverse = np.float32(1.0) / step if step > np.float32(1e-37) else np.float32(0.0)
    refined = rows.residuals.shape[1] > 0
    codes, rests, wholes = np.int64(0), np.int64(0), np.int64(0)
    for j in range(rows.width):
        level = np.floor(coordinates[i, j] * inverse + np.float32(0.5))
        level = np.int32(max(min(level, np.float32(_LEVEL)), np.float32(-_LEVEL)))
        upper = (level + 128) >> 8
        lower = level - 256 * upper
        rows.bytes[row, j] = np.uint8(upper + ZERO)
        if refined:
            rows.residuals[row, j] = np.int8(lower)
        codes += 65536 * upper * upper
        rests += lower * lower
        wholes += level * level
    return step, codes, rests, wholes


@inline
def quantise_query(queries: Any, q: Any, width: Any, levels: Any, lane: Any) -> Any:
    """Write a query as signed levels of 8 bits into ``levels[lane]``.

    Returned are what a level is worth, ``|p|**2 - |f|**2``, and what its product with every row's
    bytes has too much because the byte of 0 is 128.
    """
    most, norm = np.float32(0.0), np.float32(0.0)
    for i in range(width):
        most = max(most, abs(queries[q, i]))
        norm += queries[q, i] * queries[q, i]
    step = most / np.float32(_TOP)
    inverse = np.float32(1.0) / step if step > np.float32(1e-37) else np.float32(0.0)
    product, total = np.float32(0.0), np.int32(0)
    for i in range(width):
        level = np.int32(np.floor(queries[q, i] * inverse + np.float32(0.5)))
        product += np.float32(level) * queries[q, i]
        total += level
        levels[lane, i] = np.int8(level)
    return step, np.float32(2.0) * step * product - norm, np.int64(ZERO) * total


@inline
def product_with_code(rows: Any, row: Any, levels: Any, lane: Any, surplus: Any) -> Any:
    """Return the inner product of a query's levels with a row's code, in levels of both."""
    return np.float32(dot_bytes(rows.bytes, row, levels, lane, rows.width) - surplus)


@inline
def decode_coordinates(rows: Any, row: Any, scale: Any, out: Any, line: Any) -> None:
    """Write the coordinates of a row, by all that is kept of it, into ``out[line]``."""
    refined = rows.residuals.shape[1] > 0
    for i in range(rows.width):
        level = np.float32(rows.bytes[row, i]) - np.float32(ZERO)
        if refined:
            level += np.float32(rows.residuals[row, i]) * np.float32(1 / 256)
        out[line, i] = level * scale


@inline
def l2_between(rows: Any, a: Any, scale_a: Any, b: Any, scale_b: Any) -> Any:
    """Return the squared distance of the coordinates of two rows."""
    refined = rows.residuals.shape[1] > 0
    return l2_of_bytes(rows.bytes, rows.residuals, a, b, refined, rows.width, scale_a, scale_b)


@inline
def residuals_equal(rows: Any, a: Any, b: Any) -> Any:
    """Tell whether two rows have the same residuals."""
    equal = True
    for i in range(rows.residuals.shape[1]):
        equal = equal and rows.residuals[a, i] == rows.residuals[b, i]
    return equal
