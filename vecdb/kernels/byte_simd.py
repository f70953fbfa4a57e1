"""Wide operations on codes of one byte a coordinate, and on the second bytes that refine them.

As in `vecdb.kernels.simd`, each is an intrinsic of generic LLVM vector code, with the same
operation in numpy beside it for when the JIT is off. A coordinate is ``scale * (u - 128)`` of its
byte u, and with its second byte r, which is signed, ``scale * (u - 128 + r / 256)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels.emit import (
    BYTE,
    F32,
    I32,
    I64,
    REORDER,
    llvm,
    load,
    or_python,
    row_address,
    splat,
)  # fmt: skip

ZERO = 128
"""The byte of the coordinate 0."""

_LINE = 64
_LANES = 16
_BYTES = ir.VectorType(BYTE, _LINE)
_PRODUCTS = ir.VectorType(I32, _LINE)
_LANES_I32 = ir.VectorType(I32, _LANES)
_LANES_F32 = ir.VectorType(F32, _LANES)


def _type_dot_bytes(_: Any, rows: Any, row: Any, levels: Any, lane: Any, width: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = row_address(context, builder, sig.args[0], args[0], args[1])
        asked = row_address(context, builder, sig.args[2], args[2], args[3])
        add_up = llvm(builder, f"vector.reduce.add.v{_LINE}i32", I32, _PRODUCTS)
        total = cgutils.alloca_once_value(builder, I32(0))
        with cgutils.for_range(builder, builder.sdiv(args[4], I64(_LINE))) as loop:
            first = builder.mul(loop.index, I64(_LINE))
            x = builder.zext(load(builder, code, first, _BYTES, align=1), _PRODUCTS)
            y = builder.sext(load(builder, asked, first, _BYTES, align=1), _PRODUCTS)
            # Summed at once, LLVM sees what it is: one instruction where the processor has VNNI.
            product = builder.call(add_up, [builder.mul(x, y)])
            builder.store(builder.add(builder.load(total, typ=I32), product), total)
        return builder.sext(builder.load(total, typ=I32), I64)

    index = types.intp
    return types.int64(rows, index, levels, index, index), codegen


def _dot_bytes_in_python(rows: Any, row: int, levels: Any, lane: int, width: int) -> np.int64:
    return np.int64(rows[row, :width].astype(np.int64) @ levels[lane, :width].astype(np.int64))


dot_bytes: Callable[..., Any] = or_python(_type_dot_bytes, _dot_bytes_in_python)
"""Inner product of the bytes at the start of a row with signed levels; `width` is a multiple of 64
and at most 65,536: (rows, row, levels, lane, width)."""


def _type_l2_to_bytes(
    _: Any, rows: Any, residuals: Any, row: Any, refined: Any, queries: Any, q: Any, width: Any,
    scale: Any,
) -> Any:  # fmt: skip
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays, row, is_refined, width = sig.args, args[2], args[3], args[6]
        code = row_address(context, builder, arrays[0], args[0], row)
        query = row_address(context, builder, arrays[4], args[4], args[5])
        sums = cgutils.alloca_once(builder, F32)
        shrink = splat(builder, builder.fneg(args[7]), _LANES)

        def numbers(base: Any, first: Any, *, signed: bool) -> Any:
            levels = load(builder, base, first, ir.VectorType(BYTE, _LANES), align=1)
            widen = builder.sext if signed else builder.zext
            return builder.sitofp(widen(levels, _LANES_I32), _LANES_F32)

        def emit(rest: Any) -> None:
            fma = llvm(builder, f"fma.v{_LANES}f32", _LANES_F32, *[_LANES_F32] * 3)
            add_up = llvm(builder, f"vector.reduce.fadd.v{_LANES}f32", F32, F32, _LANES_F32)
            total = cgutils.alloca_once(builder, _LANES_F32)
            builder.store(ir.Constant(_LANES_F32, [0.0] * _LANES), total)
            middle = ir.Constant(_LANES_F32, [-float(ZERO)] * _LANES)
            fine = ir.Constant(_LANES_F32, [1 / 256] * _LANES)
            with cgutils.for_range(builder, builder.sdiv(width, I64(_LANES))) as loop:
                first = builder.mul(loop.index, I64(_LANES))
                level = builder.fadd(numbers(code, first, signed=False), middle)
                if rest is not None:
                    level = builder.call(fma, [numbers(rest, first, signed=True), fine, level])
                asked = load(builder, query, builder.mul(first, I64(4)), _LANES_F32)
                apart = builder.call(fma, [level, shrink, asked])
                so_far = builder.load(total, typ=_LANES_F32)
                builder.store(builder.call(fma, [apart, apart, so_far]), total)
            lanes = builder.load(total, typ=_LANES_F32)
            builder.store(builder.call(add_up, [F32(0.0), lanes], fastmath=REORDER), sums)

        with builder.if_else(is_refined) as (with_residuals, without):
            with with_residuals:
                emit(row_address(context, builder, arrays[1], args[1], row))
            with without:
                emit(None)
        return builder.load(sums, typ=F32)

    index = types.intp
    return types.float32(
        rows, residuals, index, types.boolean, queries, index, index, types.float32
    ), codegen


def _l2_to_bytes_in_python(
    rows: Any, residuals: Any, row: int, refined: bool, queries: Any, q: int, width: int, scale: Any
) -> np.float32:  # fmt: skip
    levels = rows[row, :width].astype(np.float32) - ZERO
    if refined:
        levels += residuals[row, :width] / np.float32(256)
    apart = queries[q, :width] - levels * np.float32(scale)
    return np.float32(apart @ apart)


l2_to_bytes: Callable[..., Any] = or_python(_type_l2_to_bytes, _l2_to_bytes_in_python)
"""Squared distance of a query to the coordinates of a row, with their second bytes if `refined`;
`width` is a multiple of 64: (rows, residuals, row, refined, queries, q, width, scale)."""
