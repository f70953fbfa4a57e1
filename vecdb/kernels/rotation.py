"""The random orthogonal map under RaBitQ codes, in O(D log D).

Four rounds of: random signs; the Hadamard transform of the largest power of two of the dimensions,
taken from the front and from the back in turn; and, where dimensions are left over, a Kac step
(x, y) -> (x + y, x - y) / sqrt(2) between the halves, whose factors are multiplied together at the
end. Vectors are padded with zeros to a multiple of 64 first, so that neither this nor the codes
have a tail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from vecdb.kernels.emit import F32, I32, I64, llvm, load, or_python, row_address, splat, store
from vecdb.kernels.jit import direct_kernel, inline, short_kernel

Floats = NDArray[np.float32]

ROUNDS = 4
"""Of signs and transform; fewer leave structure of the data visible."""

_FEW = 4_096
"""Coordinates that are rotated in a few us."""
_STEP = 64
_LANES = 16
_WIDE = ir.VectorType(F32, _LANES)
_WIDE_BYTES = 4 * _LANES


def rotated_dim(dim: int) -> int:
    """Return how many dimensions a rotated vector has: `dim` rounded up to a multiple of 64."""
    return -(-dim // _STEP) * _STEP


def draw_signs(dim: int, seed: int) -> Floats:
    """Return what decides the map: the same for the same seed, on every machine and for good.

    Parameters
    ----------
    dim
        Dimension of the vectors, before padding.
    seed
        From 0 on.

    Returns
    -------
    ndarray
        float32 (ROUNDS, rotated_dim(dim)) of 1 and -1, read-only.
    """
    words = ROUNDS * rotated_dim(dim) // 64
    # The raw stream of PCG64 is promised to stay; what Generator makes of it is not.
    drawn = np.random.PCG64(seed).random_raw(words).astype("<u8")
    bits = np.unpackbits(drawn.view(np.uint8), bitorder="little")
    signs = np.where(bits != 0, np.float32(1), np.float32(-1)).reshape(ROUNDS, -1)
    signs.flags.writeable = False
    return signs


def _type_flip_and_mix(
    _: Any, rows: Any, r: Any, first: Any, count: Any, signs: Any, i: Any, factor: Any
) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        row = row_address(context, builder, sig.args[0], args[0], args[1])
        flips = row_address(context, builder, sig.args[4], args[4], args[5])
        fma = llvm(builder, f"fma.v{_LANES}f32", _WIDE, _WIDE, _WIDE, _WIDE)
        factors = splat(builder, args[6], _LANES)
        start = builder.mul(args[2], I64(4))
        with cgutils.for_range(builder, builder.sdiv(args[3], I64(_LANES))) as loop:
            byte = builder.add(start, builder.mul(loop.index, I64(_WIDE_BYTES)))
            x = builder.fmul(load(builder, row, byte, _WIDE), load(builder, flips, byte, _WIDE))
            x = builder.fmul(x, factors)
            for apart in (1, 2, 4, 8):
                places = [lane ^ apart for lane in range(_LANES)]
                partner = builder.shuffle_vector(
                    x, x, ir.Constant(ir.VectorType(I32, _LANES), places)
                )
                side = ir.Constant(_WIDE, [-1.0 if n & apart else 1.0 for n in range(_LANES)])
                x = builder.call(fma, [x, side, partner])
            store(builder, x, row, byte)
        return context.get_dummy_value()

    index = types.intp
    return types.void(rows, index, index, index, signs, index, types.float32), codegen


def _flip_and_mix_in_python(
    rows: Any, r: int, first: int, count: int, signs: Any, i: int, factor: Any
) -> None:
    rows[r, first : first + count] *= signs[i, first : first + count] * factor
    for apart in (1, 2, 4, 8):
        _sum_and_difference_in_python(rows, r, first, count, apart)


_flip_and_mix = or_python(_type_flip_and_mix, _flip_and_mix_in_python)
"""Flip signs, multiply by the factor, and transform each 16 of ``rows[r, first:first + count]``."""


def _type_sum_and_difference(_: Any, rows: Any, r: Any, first: Any, count: Any, apart: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        row = row_address(context, builder, sig.args[0], args[0], args[1])
        start = builder.mul(args[2], I64(4))
        half = builder.mul(args[4], I64(4))
        pairs = builder.shl(args[4], I64(1))
        with cgutils.for_range(builder, builder.sdiv(args[3], pairs)) as block:
            low = builder.add(start, builder.mul(block.index, builder.shl(half, I64(1))))
            with cgutils.for_range(builder, builder.sdiv(args[4], I64(_LANES))) as loop:
                byte = builder.add(low, builder.mul(loop.index, I64(_WIDE_BYTES)))
                other = builder.add(byte, half)
                x, y = (load(builder, row, at, _WIDE) for at in (byte, other))
                store(builder, builder.fadd(x, y), row, byte)
                store(builder, builder.fsub(x, y), row, other)
        return context.get_dummy_value()

    index = types.intp
    return types.void(rows, index, index, index, index), codegen


def _sum_and_difference_in_python(
    rows: Any, r: int, first: int, count: int, apart: int
) -> None:  # fmt: skip
    pairs = rows[r, first : first + count].reshape(-1, 2, apart)
    low, high = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
    pairs[:, 0], pairs[:, 1] = low, high


_sum_and_difference = or_python(_type_sum_and_difference, _sum_and_difference_in_python)
"""Make (x, y) to (x + y, x - y) in ``rows[r, first:first + count]``: those `apart`, 16 or more."""


@inline
def rotate_row(rows: Any, r: Any, signs: Any) -> None:
    """Rotate ``rows[r]`` in place.

    Parameters
    ----------
    rows : float32 (n, D)
        D as `rotated_dim` gives it; the vector stands in front, zeros behind it.
    r : int
    signs : float32 (ROUNDS, D)
        As `draw_signs` gives them.
    """
    dim = signs.shape[1]
    power = _STEP
    while 2 * power <= dim:
        power *= 2
    rest = dim - power
    factor = np.float32(1.0 / np.sqrt(np.float64(power)))
    for i in range(ROUNDS):
        first = rest if i % 2 else 0
        outside = 0 if i % 2 else power
        for j in range(outside, outside + rest):
            rows[r, j] *= signs[i, j]
        _flip_and_mix(rows, r, first, power, signs, i, factor)
        apart = _LANES
        while apart < power:
            _sum_and_difference(rows, r, first, power, apart)
            apart *= 2
        if rest > 0:
            _sum_and_difference(rows, r, 0, dim, dim // 2)
    if rest > 0:
        for j in range(dim):
            rows[r, j] *= np.float32(0.25)


@inline
def _rotate_rows(vectors: Any, normalise: Any, centre: Any, signs: Any, out: Any) -> None:
    dim = vectors.shape[1]
    for i in range(vectors.shape[0]):
        scale = 1.0
        if normalise:
            total = 0.0
            for j in range(dim):
                total += np.float64(vectors[i, j]) * np.float64(vectors[i, j])
            scale = 1.0 / np.sqrt(total)
        factor = np.float64(scale)
        for j in range(dim):
            out[i, j] = np.float32(vectors[i, j] * factor) - centre[j]
        for j in range(dim, out.shape[1]):
            out[i, j] = np.float32(0)
        rotate_row(out, i, signs)


@short_kernel
def _rotate_few(vectors: Any, normalise: Any, centre: Any, signs: Any, out: Any) -> None:
    _rotate_rows(vectors, normalise, centre, signs, out)


@direct_kernel
def _rotate_many(vectors: Any, normalise: Any, centre: Any, signs: Any, out: Any) -> None:
    _rotate_rows(vectors, normalise, centre, signs, out)


def rotate(
    vectors: Floats, signs: Floats, centre: Floats | None = None, *, normalise: bool = False
) -> Floats:
    """Rotate vectors: inner products and distances stay, directions become random.

    Parameters
    ----------
    vectors
        float32 (n, dim), C-contiguous.
    signs
        What `draw_signs` returned for `dim` dimensions.
    centre
        float32 (dim,): taken away from each vector before; None for nothing.
    normalise
        Whether vectors, none of them zero, are brought to unit norm before that.

    Returns
    -------
    ndarray
        float32 (n, rotated_dim(dim)).
    """
    out = np.empty((len(vectors), signs.shape[1]), np.float32)
    origin = np.zeros(vectors.shape[1], np.float32) if centre is None else centre
    rotate_them = _rotate_few if out.size <= _FEW else _rotate_many
    rotate_them(vectors, normalise, origin, signs, out)
    return out
