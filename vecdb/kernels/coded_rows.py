"""The rows of a graph that carry their neighbours' codes (SymphonyQG, Gou et al. 2025).

Everything is squared Euclidean distance in a rotated space of `width` coordinates, plus an offset
for each row (see `offset_of`). A row is bytes::

    | own code, `width` bytes | block, ... | scale, base, offset: float32 | padding to 64 bytes |

with a block for each 32 neighbours::

    | codes, width / 64 times 32 words | f_add, 32 float32 | f_scale, 32 float32 | 32 ids |

so that expanding a node is one sequential read. A neighbour's code is RaBitQ's (Gao & Long 2024),
one bit for each coordinate, relative to the node it hangs on. A node's own code is the first byte
of each coordinate (`vecdb.kernels.two_bytes`), which tells distances to a part in a thousand;
`base` is what its distances have in common, the offset left out. The second bytes, with which
distances are as good as exact, stand in an array of their own, because they are read only for the
few rows that a search may return.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.byte_simd import l2_to_bytes
from vecdb.kernels.code_simd import BLOCK, WORD, sign_word
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.simd import prefetch
from vecdb.kernels.two_bytes import (
    decode_coordinates,
    l2_between,
    product_with_code,
    residuals_equal,
    split_row,
)

_CACHE_LINE = 64
_CLOSE = 533.0
"""Squared levels, of a row and a query: nearer than that, codes are off by a tenth of a squared
distance or more."""


class CodedRows(NamedTuple):
    """One memory, seen as several types, each (capacity, stride / its size), and residuals."""

    bytes: NDArray[np.uint8]
    ids: NDArray[np.int32]
    floats: NDArray[np.float32]
    words: NDArray[np.int64]
    residuals: NDArray[np.int8]
    """(capacity, width), or (capacity, 0) when there are none."""
    width: int
    """Coordinates of the rotated space, a multiple of 64."""
    degree: int
    """Neighbours of a node, a multiple of 32."""


def block_bytes(width: int) -> int:
    """Return the length of the block of 32 neighbours."""
    return width // WORD * 8 * BLOCK + 12 * BLOCK


def row_bytes(width: int, degree: int) -> int:
    """Return the length of a row."""
    used = width + degree // BLOCK * block_bytes(width) + 12
    return -(-used // _CACHE_LINE) * _CACHE_LINE


def coded_rows(
    memory: NDArray[np.uint8], residuals: NDArray[np.int8], width: int, degree: int
) -> CodedRows:
    """Return `memory` (capacity, `row_bytes`) as kernels take it."""
    return CodedRows(
        memory, memory.view(np.int32), memory.view(np.float32), memory.view(np.int64), residuals,
        width, degree,
    )  # fmt: skip


@inline
def tail_of(rows: Any) -> Any:
    """Return where the scale stands among a row's floats; the base and the offset are behind it."""
    per_block = rows.width // WORD * 8 * BLOCK + 12 * BLOCK
    return (rows.width + rows.degree // BLOCK * per_block) >> 2


@inline
def offset_of(rows: Any, row: Any) -> Any:
    """Return the offset of a row."""
    return rows.floats[row, tail_of(rows) + 2]


@inline
def ids_of(rows: Any, block: Any) -> Any:
    """Return where the ids of a block stand among a row's int32."""
    per_block = rows.width // WORD * 8 * BLOCK + 12 * BLOCK
    return (rows.width + block * per_block + rows.width // WORD * 8 * BLOCK + 8 * BLOCK) >> 2


@inline
def neighbour_at(rows: Any, row: Any, j: Any) -> Any:
    """Return the `j`-th neighbour of a row, -1 where there is none."""
    return np.int64(rows.ids[row, ids_of(rows, j // BLOCK) + j % BLOCK])


@inline
def _exact(rows: Any, row: Any, queries: Any, q: Any) -> Any:
    """Return the squared distance of a query by code and residual, the offset left out."""
    scale = rows.floats[row, tail_of(rows)]
    return l2_to_bytes(rows.bytes, rows.residuals, row, True, queries, q, rows.width, scale)


@inline
def distance_to(rows: Any, row: Any, queries: Any, q: Any) -> Any:
    """Return the distance of a query by code and residual, with the offset."""
    return _exact(rows, row, queries, q) + offset_of(rows, row)


@inline
def _is_close(squared: Any, scale: Any, step: Any) -> Any:
    """Tell whether a squared distance is so small that codes tell little of it."""
    return squared < np.float32(_CLOSE) * (scale * scale + step * step)


@inline
def distance_by_code(
    rows: Any, row: Any, queries: Any, q: Any, levels: Any, lane: Any, surplus: Any, step: Any,
    norm: Any,
) -> Any:  # fmt: skip
    """Return the squared distance of a query by a row's code, its offset left out.

    Where codes tell little it is that by code and residual. `step`, `norm` and `surplus` are what
    `quantise_query` returned with the levels.
    """
    tail = tail_of(rows)
    scale = rows.floats[row, tail]
    shared = scale * step * product_with_code(rows, row, levels, lane, surplus)
    near = max(norm + rows.floats[row, tail + 1] - np.float32(2.0) * shared, np.float32(0.0))
    if _is_close(near, scale, step) and rows.residuals.shape[1] > 0:
        near = _exact(rows, row, queries, q)
    return near


@inline
def is_beyond(rows: Any, row: Any, distance: Any, step: Any, limit: Any) -> Any:
    """Tell whether a row is farther than a limit, however wrong `distance_by_code` may be.

    `distance` is what that is, with the offset. What a code leaves out lies any way to ``q - x``,
    since rows and queries are rotated at random; along it that has a deviation of a level by the
    root of 12, for the row and for the query. Four of these are allowed for, and the whole of what
    the two have in common.
    """
    scale, squared = rows.floats[row, tail_of(rows)], distance - offset_of(rows, row)
    if _is_close(squared, scale, step):
        return distance > limit
    apart = distance - limit - np.float32(rows.width) * scale * step * np.float32(1.0 / 6.0)
    variance = (scale * scale + step * step) * np.float32(1.0 / 12.0)
    # Squared, since a root takes as long as a third of the comparison.
    return apart > 0 and apart * apart > np.float32(64.0) * squared * variance


@inline
def decode_row(rows: Any, row: Any, out: Any, line: Any) -> None:
    """Write the coordinates of a row into ``out[line]``."""
    decode_coordinates(rows, row, rows.floats[row, tail_of(rows)], out, line)


@inline
def link_row(
    rows: Any, row: Any, own: Any, j: Any, node: Any, other: Any, offset: Any, apart: Any
) -> None:
    """Make `node` the `j`-th neighbour of `row`, or no node at all when it is -1.

    Parameters
    ----------
    rows : CodedRows
    row : int
    own, other : float32 (1, width)
        The coordinates of `row` and of `node`.
    j, node : int
    offset : float32
        That of `node`.
    apart : float32 (1, width)
        Working memory.
    """
    words = rows.width // WORD
    lane = j % BLOCK
    ids = ids_of(rows, j // BLOCK)
    f_add, f_scale = ids - 2 * BLOCK, ids - BLOCK
    codes = (ids >> 1) - BLOCK - words * BLOCK
    rows.ids[row, ids + lane] = node
    if node < 0:
        rows.floats[row, f_add + lane] = np.float32(np.inf)
        rows.floats[row, f_scale + lane] = np.float32(0.0)
        for word in range(words):
            rows.words[row, codes + word * BLOCK + lane] = 0
        return
    norm = np.float32(0.0)
    ones = np.float32(0.0)
    across = np.float32(0.0)
    for i in range(rows.width):
        r = other[0, i] - own[0, i]
        apart[0, i] = r
        norm += r * r
        ones += abs(r)
        across += own[0, i] if r > 0 else -own[0, i]
    for word in range(words):
        rows.words[row, codes + word * BLOCK + lane] = sign_word(apart, 0, word)
    # With z = u - 1/2: <r, z> = ones / 2 and <c, z> = across / 2.
    ratio = np.float32(2.0) * norm / ones if ones > 0 else np.float32(0.0)
    rows.floats[row, f_add + lane] = norm + ratio * across + offset
    rows.floats[row, f_scale + lane] = np.float32(-2.0) * ratio


@inline
def clear_links(rows: Any, row: Any) -> None:
    """Leave a row without neighbours."""
    for j in range(rows.degree):
        ids = ids_of(rows, j // BLOCK)
        lane = j % BLOCK
        rows.ids[row, ids + lane] = -1
        rows.floats[row, ids - 2 * BLOCK + lane] = np.float32(np.inf)
        rows.floats[row, ids - BLOCK + lane] = np.float32(0.0)


@inline
def squared_distance(rows: Any, a: Any, b: Any) -> Any:
    """Return the squared distance of two rows with both offsets: what the graph is built by."""
    tail = tail_of(rows)
    near = l2_between(rows, a, rows.floats[a, tail], b, rows.floats[b, tail])
    return near + offset_of(rows, a) + offset_of(rows, b)


@inline
def ask_for(rows: Any, row: Any, refined: Any) -> None:
    """Ask for what a comparison reads of a row, the residual among it if `refined`."""
    lines = rows.width // _CACHE_LINE
    prefetch(rows.bytes, row, 0, lines)
    prefetch(rows.bytes, row, 4 * tail_of(rows), 1)
    if refined and rows.residuals.shape[1] > 0:
        prefetch(rows.residuals, row, 0, lines)


@inline
def rows_equal(rows: Any, a: Any, b: Any) -> Any:
    """Tell whether two rows have the same coordinates and offset."""
    tail = tail_of(rows)
    equal = residuals_equal(rows, a, b) and rows.floats[a, tail] == rows.floats[b, tail]
    equal = equal and offset_of(rows, a) == offset_of(rows, b)
    for j in range(rows.width >> 3):
        equal = equal and rows.words[a, j] == rows.words[b, j]
    return equal


@kernel
def store_coordinates(rows: Any, places: Any, coordinates: Any, offsets: Any) -> None:
    """Write the coordinates and offsets of rows.

    Parameters
    ----------
    rows : CodedRows
    places : int64 (n,)
        Row numbers.
    coordinates : float32 (n, width)
        Rotated vectors.
    offsets : float32 (n,)
    """
    tail = tail_of(rows)
    for i in range(coordinates.shape[0]):
        row = places[i]
        step, codes, rests, _ = split_row(rows, row, coordinates, i)
        rows.floats[row, tail] = np.float32(256.0) * step
        rows.floats[row, tail + 1] = np.float32(
            np.float64(step) * np.float64(step) * np.float64(codes - rests)
        )
        rows.floats[row, tail + 2] = offsets[i]


@kernel
def link_rows(rows: Any, neighbours: Any, first: Any, last: Any, memory: Any) -> None:
    """Give the rows from `first` to `last` - 1 their neighbours.

    Parameters
    ----------
    rows : CodedRows
        With the coordinates of all rows.
    neighbours : int32 (n, degree)
        -1 after a row's last.
    first, last : int
    memory : tuple of three float32 (1, width)
    """
    own, other, apart = memory
    for row in range(first, last):
        decode_row(rows, row, own, 0)
        for j in range(rows.degree):
            node = np.int64(neighbours[row, j])
            offset = np.float32(0.0)
            if node >= 0:
                decode_row(rows, node, other, 0)
                offset = offset_of(rows, node)
            link_row(rows, row, own, j, node, other, offset, apart)


@kernel
def link_root(root: Any, line: Any, place: Any, rows: Any, seeds: Any, memory: Any) -> None:
    """Make `seeds` (s,) the neighbours of a row of the root; -1 are left out.

    Parameters
    ----------
    root : CodedRows
        With a degree of at least s.
    line : int
        The root's row.
    place : int
        The row at whose place that stands; -1 for the origin.
    rows : CodedRows
        Of which the seeds are some.
    seeds : int32 (s,)
    memory : tuple of three float32 (1, width)
    """
    own, other, apart = memory
    clear_links(root, line)
    own[:] = 0
    if place >= 0:
        decode_row(rows, place, own, 0)
    for j in range(seeds.shape[0]):
        seed = np.int64(seeds[j])
        if seed >= 0:
            decode_row(rows, seed, other, 0)
            link_row(root, line, own, j, seed, other, offset_of(rows, seed), apart)


@kernel
def decode_rows(rows: Any, places: Any, out: Any) -> None:
    """Write the coordinates of the rows at `places` (n,) into `out` (n, width).

    With one column more it receives their offsets.
    """
    for i in range(out.shape[0]):
        decode_row(rows, places[i], out, i)
        if out.shape[1] > rows.width:
            out[i, rows.width] = offset_of(rows, places[i])
