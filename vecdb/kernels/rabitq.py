"""RaBitQ codes: a few bits for each dimension of a rotated vector, relative to a centre.

With r the residual of a rotated vector to its centre c, D dimensions and B bits, the code of
dimension i is ``u_i = floor(r_i / step) + 2**(B - 1)``, kept within 0 and ``2**B - 1``, and
``z = u - (2**B - 1) / 2`` points nearly where r does. The first bit of a code is the sign alone.
From ``g = |r|**2 / <r, z>`` comes the estimate ``<r, q - c> = g * (<z, q> - <z, c>)``, unbiased
over the rotations, with an error of about ``|r| |q - c| tan(r, z) / sqrt(D - 1)`` (Gao and Long,
RaBitQ, SIGMOD 2024; with more bits, SIGMOD 2025). Distances are formed as

- l2: ``f_add + |q - c|**2 + f_scale * <z, q>``, f_add = |r|**2 + 2 g <z, c>, f_scale = -2 g;
- inner product: ``f_add - <q, c> + f_scale * <z, q>``, f_add = g <z, c> - <c, r>, f_scale = -g.

q and c may both be taken relative to any one point in ``<z, .>``: to the mean, so that the rounding
of a query does not depend on how far from the origin the data lie.

A residual of zero has the code of zeros and all factors 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels.distance import L2
from vecdb.kernels.emit import F32, I16, I64, REORDER, llvm, load, or_python, row_address
from vecdb.kernels.jit import inline

ERROR_OF_FIRST_BIT = np.float32(0.6028 / 2)
"""Standard deviation of the error of ``<z, q - c>`` by the first bit, over |q - c|. It depends on
nothing but the sine of the angle between r and its code, which is nearly the same for all vectors
once they are rotated: sqrt(1 - 2 / pi)."""

STEPS = (1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)
"""Steps that lose least of a Gaussian of variance 1, by bits (Max 1960): what a rotation makes of
any vector, times its norm over the square root of D."""

COSINES_SQUARED = (0.6366, 0.8812, 0.9626, 0.98846, 0.99651, 0.99896, 0.9997, 0.99991)
"""Of the angle between such a vector and its code, by bits."""

_LANES = 16
_STRIDE = 64
_WIDE = ir.VectorType(F32, _LANES)


def extra_bytes(dim: int, bits: int) -> int:
    """Return the bytes behind the first bits of a code: planes, then two factors as float32."""
    return (bits - 1) * dim // 8 + 8 if bits > 1 else 0


@inline
def residual_to(vectors: Any, i: Any, centroids: Any, c: Any, mean: Any, residual: Any) -> Any:
    """Write the residual of a rotated vector; return the sums over it that factors are made of.

    Returns
    -------
    tuple of float
        |r|**2, the sum of |r_i|, <c, r>, and <sign(r), c - mean>.
    """
    squares = np.float32(0)
    absolutes = np.float32(0)
    with_centre = np.float32(0)
    signed = np.float32(0)
    for d in range(residual.shape[0]):
        centre = centroids[c, d]
        x = vectors[i, d] - centre
        residual[d] = x
        squares += x * x
        absolutes += abs(x)
        with_centre += x * centre
        off = centre - mean[d]
        signed += off if x >= np.float32(0) else -off
    return squares, absolutes, with_centre, signed


@inline
def factors(metric: Any, squares: Any, along: Any, with_centre: Any, code_centre: Any) -> Any:
    """Return f_add and f_scale from |r|**2, <r, z>, <c, r> and <z, c - mean>."""
    if not along > 0:
        return np.float32(0), np.float32(0)
    g = np.float32(np.float64(squares) / np.float64(along))
    if metric == L2:
        return squares + np.float32(2) * g * code_centre, np.float32(-2) * g
    return g * code_centre - with_centre, -g


@inline
def quantise(residual: Any, squares: Any, bits: Any, step: Any, code: Any) -> None:
    """Write the code of a residual: a number below 2**bits for each dimension."""
    dim = residual.shape[0]
    top = np.float32((1 << bits) - 1)
    half = np.float32(1 << (bits - 1))
    inverse = np.float32(0)
    if squares > 0:
        inverse = np.float32(1.0 / (step * np.sqrt(np.float64(squares) / dim)))
    for d in range(dim):
        place = np.floor(residual[d] * inverse) + half
        code[d] = np.uint8(min(max(place, np.float32(0)), top))


@inline
def along_code(residual: Any, code: Any, bits: Any, centroids: Any, c: Any, mean: Any) -> Any:
    """Return <r, z> and <z, c - mean>."""
    middle = np.float32((1 << bits) - 1) / np.float32(2)
    along = np.float32(0)
    code_centre = np.float32(0)
    for d in range(residual.shape[0]):
        z = np.float32(code[d]) - middle
        along += residual[d] * z
        code_centre += z * (centroids[c, d] - mean[d])
    return along, code_centre


@inline
def pack_planes(code: Any, planes: Any, out: Any, row: Any) -> None:
    """Write bit p of all dimensions, lowest first, ``dim // 8`` bytes each, to ``out[row]``."""
    count = code.shape[0] // 8
    for p in range(planes):
        for byte in range(count):
            packed = 0
            for i in range(8):
                packed |= ((code[8 * byte + i] >> p) & 1) << i
            out[row, p * count + byte] = np.uint8(packed)


def _type_plane_sum(_: Any, codes: Any, row: Any, planes: Any, query: Any, q: Any, dim: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = row_address(context, builder, sig.args[0], args[0], args[1])
        floats = row_address(context, builder, sig.args[3], args[3], args[4])
        add_up = llvm(builder, f"vector.reduce.fadd.v{_LANES}f32", F32, F32, _WIDE)
        nothing = ir.Constant(_WIDE, [0.0] * _LANES)
        mask_type = ir.VectorType(ir.IntType(1), _LANES)
        total = cgutils.alloca_once_value(builder, F32(0.0))
        sums = [cgutils.alloca_once(builder, _WIDE) for _ in range(_STRIDE // _LANES)]
        plane_bytes = builder.sdiv(args[5], I64(8))
        last = builder.sub(args[2], I64(1))
        with cgutils.for_range(builder, args[2]) as plane:
            start = builder.mul(builder.sub(last, plane.index), plane_bytes)
            for each in sums:
                builder.store(nothing, each)
            with cgutils.for_range(builder, builder.sdiv(args[5], I64(_STRIDE))) as loop:
                for n, each in enumerate(sums):
                    byte = builder.add(builder.mul(loop.index, I64(_STRIDE // 8)), I64(2 * n))
                    bits = load(builder, code, builder.add(start, byte), I16, align=1)
                    byte = builder.add(builder.mul(loop.index, I64(4 * _STRIDE)), I64(64 * n))
                    x = load(builder, floats, byte, _WIDE)
                    before = builder.load(each, typ=_WIDE)
                    after = builder.fadd(before, x)
                    chosen = builder.select(builder.bitcast(bits, mask_type), after, before)
                    builder.store(chosen, each)
            a, b, c, d = (builder.load(each, typ=_WIDE) for each in sums)
            lanes = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
            scalar = builder.call(add_up, [F32(0.0), lanes], fastmath=REORDER)
            doubled = builder.fmul(builder.load(total, typ=F32), F32(2.0))
            builder.store(builder.fadd(doubled, scalar), total)
        return builder.load(total, typ=F32)

    index = types.intp
    return types.float32(codes, index, index, query, index, index), codegen


def _plane_sum_in_python(
    codes: Any, row: int, planes: int, query: Any, q: int, dim: int
) -> np.float32:
    bits = np.unpackbits(codes[row, : planes * dim // 8], bitorder="little").reshape(planes, dim)
    sums = bits.astype(np.float32) @ query[q, :dim]
    return np.float32((sums * 2.0 ** np.arange(planes)).sum())


plane_sum = or_python(_type_plane_sum, _plane_sum_in_python)
"""Return the inner product of a query with the code that planes spell.

Arguments: (planes as `pack_planes` wrote them uint8 (n, bytes), row, number of planes,
query float32 (m, D), row, D).
"""
