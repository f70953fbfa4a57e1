"""The rows of a compact graph: one code of a byte a coordinate, and links.

Everything is squared Euclidean distance in a rotated space of `width` coordinates, plus an offset
for each row (see `vecdb.index.coded_space`). A row is bytes::

    | code, `width` bytes | scale, base, error, offset: float32 | ids, `degree` int32 | padding |

of which a comparison reads the front, up to the floats, and an expansion the ids. The code is the
upper byte of 16-bit levels; the lower one, the residual, stands in an array of its own, which is
read for few rows only, and may lie in a file or be missing.

With x a row, y what its code says and ``e = x - y``, `base` is ``|y|**2 - error``. The error is
``|e|**2``: `vecdb.kernels.two_bytes` says how far a distance is then off, the less, the nearer the
row. Where distances stand for inner products, no query is near, and `error` is ``|y|**2 - |x|**2``:
what the row contributes is then off by ``2 <q, e>``, however long it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.byte_simd import l2_to_bytes
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.simd import prefetch
from vecdb.kernels.two_bytes import decode_coordinates, l2_between, residuals_equal, split_row

_CACHE_LINE = 64
_FLOATS = 4


class CompactRows(NamedTuple):
    """One memory, seen as several types, each (capacity, stride / its size), and residuals."""

    bytes: NDArray[np.uint8]
    ids: NDArray[np.int32]
    floats: NDArray[np.float32]
    residuals: NDArray[np.int8]
    """(capacity, width), or (capacity, 0) when there are none."""
    width: int
    """Coordinates of the rotated space, a multiple of 64."""
    degree: int


def compact_bytes(width: int, degree: int) -> int:
    """Return the length of a row."""
    used = width + 4 * _FLOATS + 4 * degree
    return -(-used // _CACHE_LINE) * _CACHE_LINE


def compact_rows(
    memory: NDArray[np.uint8], residuals: NDArray[np.int8], width: int, degree: int
) -> CompactRows:
    """Return `memory` (capacity, `compact_bytes`) as kernels take it."""
    return CompactRows(
        memory, memory.view(np.int32), memory.view(np.float32), residuals, width, degree
    )  # fmt: skip


@inline
def scale_of(rows: Any, row: Any) -> Any:
    """Return what a level of a row's code is worth."""
    return rows.floats[row, rows.width >> 2]


@inline
def base_of(rows: Any, row: Any) -> Any:
    """Return what a row's distances have in common, the offset included."""
    first = rows.width >> 2
    return rows.floats[row, first + 1] + rows.floats[row, first + 3]


@inline
def offset_of(rows: Any, row: Any) -> Any:
    """Return the offset of a row."""
    return rows.floats[row, (rows.width >> 2) + 3]


@inline
def neighbour_at(rows: Any, row: Any, j: Any) -> Any:
    """Return the `j`-th neighbour of a row, -1 where there is none."""
    return np.int64(rows.ids[row, (rows.width >> 2) + _FLOATS + j])


@inline
def set_neighbour(rows: Any, row: Any, j: Any, node: Any) -> None:
    """Make `node` the `j`-th neighbour of a row."""
    rows.ids[row, (rows.width >> 2) + _FLOATS + j] = node


@inline
def distance_to(rows: Any, row: Any, queries: Any, q: Any) -> Any:
    """Return the distance of a query by all that is kept of a row."""
    refined = rows.residuals.shape[1] > 0
    near = l2_to_bytes(
        rows.bytes, rows.residuals, row, refined, queries, q, rows.width, scale_of(rows, row)
    )  # fmt: skip
    if not refined:
        near = max(near - rows.floats[row, (rows.width >> 2) + 2], np.float32(0.0))
    return near + offset_of(rows, row)


@inline
def is_beyond(rows: Any, row: Any, distance: Any, step: Any, limit: Any) -> Any:
    """Tell whether a row is farther than a limit, as far as a distance by its code tells.

    `distance` is that, with the offset; `step` is what a level of the query is worth. What codes
    leave out lies any way to ``q - x``, since rows and queries are rotated at random; along it that
    has a deviation of a level by the root of 12, for the row and for the query. Two of these are
    allowed for (four find no more; bench/notes/coded.md), and the squares of what is left out.
    """
    scale, offset = scale_of(rows, row), offset_of(rows, row)
    squares = scale * scale + step * step
    apart = distance - limit - np.float32(rows.width) * squares * np.float32(1.0 / 6.0)
    farther = max(distance, limit) - offset
    return apart > 0 and apart * apart > np.float32(16.0 / 12.0) * farther * squares


@inline
def decode_row(rows: Any, row: Any, out: Any, line: Any) -> None:
    """Write the coordinates of a row into ``out[line]``."""
    decode_coordinates(rows, row, scale_of(rows, row), out, line)


@inline
def squared_distance(rows: Any, a: Any, b: Any) -> Any:
    """Return the squared distance of two rows with both offsets: what the graph is built by."""
    near = l2_between(rows, a, scale_of(rows, a), b, scale_of(rows, b))
    return near + offset_of(rows, a) + offset_of(rows, b)


@inline
def ask_for(rows: Any, row: Any, refined: Any) -> None:
    """Ask for what a comparison reads of a row, the residual among it if `refined`."""
    lines = rows.width // _CACHE_LINE
    prefetch(rows.bytes, row, 0, lines + 1)
    if refined and rows.residuals.shape[1] > 0:
        prefetch(rows.residuals, row, 0, lines)


@inline
def rows_equal(rows: Any, a: Any, b: Any) -> Any:
    """Tell whether two rows have the same coordinates and offset."""
    equal = residuals_equal(rows, a, b)
    for j in range((rows.width >> 2) + _FLOATS):
        equal = equal and rows.ids[a, j] == rows.ids[b, j]
    return equal


@kernel
def store_codes(rows: Any, places: Any, coordinates: Any, offsets: Any, products: Any) -> None:
    """Write the codes, floats and residuals of rows.

    Parameters
    ----------
    rows : CompactRows
    places : int64 (n,)
        Row numbers.
    coordinates : float32 (n, width)
        Rotated vectors.
    offsets : float32 (n,)
    products : bool
        Whether distances stand for inner products.
    """
    first = rows.width >> 2
    for i in range(coordinates.shape[0]):
        row = places[i]
        step, codes, rests, wholes = split_row(rows, row, coordinates, i)
        square = np.float64(step) * np.float64(step)
        error = codes - wholes if products else rests
        rows.floats[row, first] = np.float32(256.0) * step
        rows.floats[row, first + 1] = np.float32(square * np.float64(codes - error))
        rows.floats[row, first + 2] = np.float32(square * np.float64(error))
        rows.floats[row, first + 3] = offsets[i]


@kernel
def write_links(rows: Any, neighbours: Any) -> None:
    """Give every row its neighbours, int32 (n, degree), -1 after a row's last."""
    for row in range(neighbours.shape[0]):
        for j in range(rows.degree):
            set_neighbour(rows, row, j, neighbours[row, j])


@kernel
def decode_codes(rows: Any, places: Any, out: Any) -> None:
    """Write the coordinates of the rows at `places` (n,) into `out` (n, width).

    With one column more it receives their offsets.
    """
    for i in range(out.shape[0]):
        decode_row(rows, places[i], out, i)
        if out.shape[1] > rows.width:
            out[i, rows.width] = offset_of(rows, places[i])
