"""Inverted lists of RaBitQ codes: their arrays, and the kernels that write and read back codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.distance import L2
from vecdb.kernels.ivf_scan import BLOCK, TAIL
from vecdb.kernels.jit import allocating_kernel, inline, kernel
from vecdb.kernels.rabitq import (
    along_code,
    factors,
    pack_planes,
    quantise,
    residual_to,
)

Floats = NDArray[np.float32]


class CodeBlocks(NamedTuple):
    """Codes as kernels take them: blocks as `vecdb.kernels.ivf_scan` describes them, and planes."""

    codes: NDArray[np.uint8]
    """(blocks, stride)."""
    floats: Floats
    """(blocks, stride / 4): the same memory."""
    rows: NDArray[np.int32]
    """(blocks, 32): the row number of each code, -1 where there is none."""
    extra: NDArray[np.uint8]
    """(rows, bytes): of each row the planes behind the first bit, and two factors."""
    extra_floats: Floats
    """(rows, bytes / 4): the same memory."""
    bits: int
    """Of a code, all in all."""
    metric: int
    """Number of the metric in `vecdb.kernels.distance`."""


@inline
def _write_first_bits(blocks: Any, slot: Any, code: Any, dim: Any) -> None:
    """Write the upper bits of a code into the place of `slot`."""
    b, j = slot // BLOCK, slot % BLOCK
    upper = np.uint8(blocks.bits - 1)
    shift = j // 16 * 4
    keep = np.uint8(0xF0 >> shift)
    for group in range(dim // 4):
        nibble = 0
        for i in range(4):
            nibble |= (code[4 * group + i] >> upper & 1) << i
        at = group * 16 + j % 16
        blocks.codes[b, at] = (blocks.codes[b, at] & keep) | np.uint8(nibble << shift)


@allocating_kernel
def encode(
    vectors: Any, rows: Any, assigned: Any, slots: Any, centroids: Any, mean: Any, step: Any,
    blocks: Any,
) -> None:  # fmt: skip
    """Write the codes of vectors to their slots.

    Parameters
    ----------
    vectors : float32 (n, D)
        Rotated.
    rows : int64 (n,)
        Their row numbers.
    assigned : int64 (n,)
        The list of each.
    slots : int64 (n,)
        The slot of each: 32 times the block, plus the place in it. Two calls at a time must not
        write to one block.
    centroids : float32 (lists, D)
    mean : float32 (D,)
    step : float
        Of `vecdb.kernels.rabitq.STEPS`.
    blocks : CodeBlocks
    """
    dim = vectors.shape[1]
    residual = np.empty(dim, np.float32)
    code = np.empty(dim, np.uint8)
    bits = blocks.bits
    for i in range(vectors.shape[0]):
        c = assigned[i]
        squares, absolutes, with_centre, signed = residual_to(
            vectors, i, centroids, c, mean, residual
        )
        quantise(residual, squares, bits, step, code)
        half = np.float32(0.5)
        add, scale = factors(
            blocks.metric, squares, half * absolutes, with_centre, half * signed
        )  # fmt: skip
        b, at = slots[i] // BLOCK, dim + slots[i] % BLOCK
        _write_first_bits(blocks, slots[i], code, dim)
        blocks.floats[b, at] = add
        blocks.floats[b, at + BLOCK] = scale
        blocks.rows[b, at - dim] = rows[i]
        if bits > 1:
            along, code_centre = along_code(residual, code, bits, centroids, c, mean)
            add, scale = factors(blocks.metric, squares, along, with_centre, code_centre)
            pack_planes(code, bits - 1, blocks.extra, rows[i])
            behind = (bits - 1) * dim // 32
            blocks.extra_floats[rows[i], behind] = add
            blocks.extra_floats[rows[i], behind + 1] = scale


@kernel
def move_codes(sources: Any, targets: Any, blocks: Any) -> None:
    """Move the codes of some slots to others, both int64 (n,), one after the other.

    What stands by row stays where it is.
    """
    groups = (blocks.codes.shape[1] - TAIL) // 16
    for i in range(sources.shape[0]):
        b, j = sources[i] // BLOCK, sources[i] % BLOCK
        c, k = targets[i] // BLOCK, targets[i] % BLOCK
        keep = np.uint8(0xF0 >> (k // 16 * 4))
        for group in range(groups):
            nibble = blocks.codes[b, group * 16 + j % 16] >> (j // 16 * 4) & 15
            at = group * 16 + k % 16
            moved = np.uint8(nibble << (k // 16 * 4))
            blocks.codes[c, at] = (blocks.codes[c, at] & keep) | moved
        for factor in range(4 * groups, 4 * groups + 2 * BLOCK, BLOCK):
            blocks.floats[c, factor + k] = blocks.floats[b, factor + j]
        blocks.rows[c, k] = blocks.rows[b, j]


@inline
def _read_code(blocks: Any, slot: Any, row: Any, code: Any) -> None:
    """Read the whole code of a slot: one float for each dimension."""
    b, j = slot // BLOCK, slot % BLOCK
    dim = code.shape[0]
    for d in range(dim):
        byte = blocks.codes[b, d // 4 * 16 + j % 16]
        value = (byte >> (j // 16 * 4 + d % 4)) & 1
        for p in range(blocks.bits - 2, -1, -1):
            at = p * (dim // 8) + d // 8
            value = 2 * value + ((blocks.extra[row, at] >> (d % 8)) & 1)
        code[d] = np.float32(value)


@allocating_kernel
def decode(
    slots: Any, assigned: Any, centroids: Any, cosine_squared: Any, blocks: Any, out: Any
) -> None:
    """Write the rotated vectors that codes stand for, as nearly as they tell.

    Parameters
    ----------
    slots, assigned : int64 (n,)
        Slots, and the list of each.
    centroids : float32 (lists, D)
    cosine_squared : float32
        Of `vecdb.kernels.rabitq.COSINES_SQUARED`.
    blocks : CodeBlocks
    out : float32 (n, D)
    """
    dim = centroids.shape[1]
    code = np.empty(dim, np.float32)
    middle = np.float32((1 << blocks.bits) - 1) / np.float32(2)
    for i in range(slots.shape[0]):
        b, j = slots[i] // BLOCK, slots[i] % BLOCK
        row = blocks.rows[b, j]
        _read_code(blocks, slots[i], row, code)
        if blocks.bits > 1:
            scale = blocks.extra_floats[row, (blocks.bits - 1) * dim // 32 + 1]
        else:
            scale = blocks.floats[b, dim + BLOCK + j]
        # The factor is g = |r|**2 / <r, z>; the multiple of z nearest to r is g cos(r, z)**2.
        g = -scale if blocks.metric != L2 else -scale / np.float32(2)
        for d in range(dim):
            out[i, d] = centroids[assigned[i], d] + g * cosine_squared * (code[d] - middle)
