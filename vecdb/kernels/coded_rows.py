"""The rows of a graph that carry their neighbours' codes (SymphonyQG, Gou et al. 2025).

Everything is squared Euclidean distance in a rotated space of `width` coordinates, plus an offset
for each row (see `CodedRows.offset`). A row is bytes::

    | own coordinates, `width` int16 | block, ... | scale, offset: float32 | padding to 64 bytes |

with a block for each 32 neighbours::

    | codes, width / 64 times 32 words | f_add, 32 float32 | f_scale, 32 float32 | 32 ids |

so that expanding a node is one sequential read. A neighbour's code is RaBitQ's (Gao & Long 2024),
one bit for each coordinate, relative to the node it hangs on. A node's own coordinates are 16-bit
levels, times the row's scale, which is as good as exact: they are 3e-5 of the largest apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.code_simd import BLOCK, WORD, l2_of_levels, sign_word
from vecdb.kernels.jit import inline, kernel

_LEVEL = 32767
_CACHE_LINE = 64


class CodedRows(NamedTuple):
    """One memory, seen as several types, each (capacity, stride / its size)."""

    bytes: NDArray[np.uint8]
    levels: NDArray[np.int16]
    ids: NDArray[np.int32]
    floats: NDArray[np.float32]
    words: NDArray[np.int64]
    width: int
    """Coordinates of the rotated space, a multiple of 64."""
    degree: int
    """Neighbours of a node, a multiple of 32."""


def block_bytes(width: int) -> int:
    """Return the length of the block of 32 neighbours."""
    return width // WORD * 8 * BLOCK + 12 * BLOCK


def row_bytes(width: int, degree: int) -> int:
    """Return the length of a row."""
    used = 2 * width + degree // BLOCK * block_bytes(width) + 8
    return -(-used // _CACHE_LINE) * _CACHE_LINE


def coded_rows(memory: NDArray[np.uint8], width: int, degree: int) -> CodedRows:
    """Return `memory` (capacity, `row_bytes`) as kernels take it."""
    return CodedRows(
        memory, memory.view(np.int16), memory.view(np.int32), memory.view(np.float32),
        memory.view(np.int64), width, degree,
    )  # fmt: skip


@inline
def tail_of(rows: Any) -> Any:
    """Return where the scale stands among a row's floats; the offset is behind it."""
    per_block = rows.width // WORD * 8 * BLOCK + 12 * BLOCK
    return (2 * rows.width + rows.degree // BLOCK * per_block) >> 2


@inline
def offset_of(rows: Any, row: Any) -> Any:
    """Return the offset of a row."""
    return rows.floats[row, tail_of(rows) + 1]


@inline
def ids_of(rows: Any, block: Any) -> Any:
    """Return where the ids of a block stand among a row's int32."""
    per_block = rows.width // WORD * 8 * BLOCK + 12 * BLOCK
    return (2 * rows.width + block * per_block + rows.width // WORD * 8 * BLOCK + 8 * BLOCK) >> 2


@inline
def neighbour_at(rows: Any, row: Any, j: Any) -> Any:
    """Return the `j`-th neighbour of a row, -1 where there is none."""
    return np.int64(rows.ids[row, ids_of(rows, j // BLOCK) + j % BLOCK])


@inline
def decode_row(rows: Any, row: Any, out: Any, line: Any) -> None:
    """Write the coordinates of a row into ``out[line]``."""
    scale = rows.floats[row, tail_of(rows)]
    for i in range(rows.width):
        out[line, i] = np.float32(rows.levels[row, i]) * scale


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
    near = l2_of_levels(rows.bytes, a, b, rows.width, rows.floats[a, tail], rows.floats[b, tail])
    return near + rows.floats[a, tail + 1] + rows.floats[b, tail + 1]


@inline
def rows_equal(rows: Any, a: Any, b: Any) -> Any:
    """Tell whether two rows have the same coordinates and offset."""
    tail = tail_of(rows)
    equal = rows.floats[a, tail] == rows.floats[b, tail]
    equal = equal and rows.floats[a, tail + 1] == rows.floats[b, tail + 1]
    for j in range(rows.width >> 2):
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
        most = np.float32(0.0)
        for j in range(rows.width):
            most = max(most, abs(coordinates[i, j]))
        scale = most / np.float32(_LEVEL)
        inverse = np.float32(1.0) / scale if scale > np.float32(1e-37) else np.float32(0.0)
        for j in range(rows.width):
            level = np.floor(coordinates[i, j] * inverse + np.float32(0.5))
            rows.levels[row, j] = np.int16(max(min(level, _LEVEL), -_LEVEL))
        rows.floats[row, tail] = scale
        rows.floats[row, tail + 1] = offsets[i]


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
def link_root(root: Any, rows: Any, seeds: Any, memory: Any) -> None:
    """Make `seeds` (s,) the neighbours of the root, whose coordinates are all 0.

    Parameters
    ----------
    root : CodedRows
        One row of zeros, with a degree of at least s.
    rows : CodedRows
        Of which the seeds are some.
    seeds : int64 (s,)
    memory : tuple of three float32 (1, width)
    """
    own, other, apart = memory
    clear_links(root, 0)
    own[:] = 0
    for j in range(seeds.shape[0]):
        decode_row(rows, seeds[j], other, 0)
        link_row(root, 0, own, j, seeds[j], other, offset_of(rows, seeds[j]), apart)


@kernel
def decode_rows(rows: Any, places: Any, out: Any) -> None:
    """Write the coordinates of the rows at `places` (n,) into `out` (n, width).

    With one column more it receives their offsets.
    """
    tail = tail_of(rows)
    for i in range(out.shape[0]):
        decode_row(rows, places[i], out, i)
        if out.shape[1] > rows.width:
            out[i, rows.width] = rows.floats[places[i], tail + 1]
