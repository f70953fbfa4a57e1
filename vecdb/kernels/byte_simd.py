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
_LANES_I32 = ir.VectorType(I32, _LANES)
_LANES_F32 = ir.VectorType(F32, _LANES)


def _type_dot_bytes(_: Any, rows: Any, row: Any, levels: Any, lane: Any, width: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = row_address(context, builder, sig.args[0], args[0], args[1])
        asked = row_address(context, builder, sig.args[2], args[2], args[3])
        total = cgutils.alloca_once_value(builder, I32(0))

        def add(first: Any, length: int) -> None:
            kind, products = ir.VectorType(BYTE, length), ir.VectorType(I32, length)
            add_up = llvm(builder, f"vector.reduce.add.v{length}i32", I32, products)
            x = builder.zext(load(builder, code, first, kind, align=1), products)
            y = builder.sext(load(builder, asked, first, kind, align=1), products)
            # Summed at once, LLVM sees what it is: one instruction where the processor has VNNI.
            product = builder.call(add_up, [builder.mul(x, y)])
            builder.store(builder.add(builder.load(total, typ=I32), product), total)

        # To add up the lanes takes longer than to multiply a line: several lines at once.
        done = I64(0)
        for length in (4 * _LINE, 2 * _LINE, _LINE):
            pieces = builder.sdiv(builder.sub(args[4], done), I64(length))
            with cgutils.for_range(builder, pieces) as loop:
                add(builder.add(done, builder.mul(loop.index, I64(length))), length)
            done = builder.add(done, builder.mul(pieces, I64(length)))
        return builder.sext(builder.load(total, typ=I32), I64)

    index = types.intp
    return types.int64(rows, index, levels, index, index), codegen


def _dot_bytes_in_python(rows: Any, row: int, levels: Any, lane: int, width: int) -> np.int64:
    return np.int64(rows[row, :width].astype(np.int64) @ levels[lane, :width].astype(np.int64))


dot_bytes: Callable[..., Any] = or_python(_type_dot_bytes, _dot_bytes_in_python)
"""Inner product of the bytes at the start of a row with signed levels; `width` is a multiple of 64
and at most 65,536: (rows, row, levels, lane, width)."""


def _emit_coordinates(builder: Any, code: Any, rest: Any, first: Any) -> Any:
    """Emit the sixteen coordinates of a row from `first` on, not scaled yet."""

    def numbers(base: Any, *, signed: bool) -> Any:
        levels = load(builder, base, first, ir.VectorType(BYTE, _LANES), align=1)
        widen = builder.sext if signed else builder.zext
        return builder.sitofp(widen(levels, _LANES_I32), _LANES_F32)

    middle = ir.Constant(_LANES_F32, [-float(ZERO)] * _LANES)
    level = builder.fadd(numbers(code, signed=False), middle)
    if rest is None:
        return level
    fma = llvm(builder, f"fma.v{_LANES}f32", _LANES_F32, *[_LANES_F32] * 3)
    fine = ir.Constant(_LANES_F32, [1 / 256] * _LANES)
    return builder.call(fma, [numbers(rest, signed=True), fine, level])


def _emit_l2(builder: Any, width: Any, apart: Callable[[Any], Any]) -> Any:
    """Emit the sum of the squares of what `apart` emits for sixteen coordinates each."""
    fma = llvm(builder, f"fma.v{_LANES}f32", _LANES_F32, *[_LANES_F32] * 3)
    add_up = llvm(builder, f"vector.reduce.fadd.v{_LANES}f32", F32, F32, _LANES_F32)
    zero = ir.Constant(_LANES_F32, [0.0] * _LANES)
    # Four sums, or each addition would wait for the one before.
    totals = [cgutils.alloca_once(builder, _LANES_F32) for _ in range(_LINE // _LANES)]
    for total in totals:
        builder.store(zero, total)
    with cgutils.for_range(builder, builder.sdiv(width, I64(_LINE))) as loop:
        start = builder.mul(loop.index, I64(_LINE))
        for part, total in enumerate(totals):
            some = apart(builder.add(start, I64(part * _LANES)))
            so_far = builder.load(total, typ=_LANES_F32)
            builder.store(builder.call(fma, [some, some, so_far]), total)
    a, b, c, d = (builder.load(total, typ=_LANES_F32) for total in totals)
    lanes = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
    return builder.call(add_up, [F32(0.0), lanes], fastmath=REORDER)


def _emit_either(builder: Any, is_refined: Any, emit: Callable[[bool], Any]) -> Any:
    """Emit what a float32 is with residuals, and what it is without."""
    result = cgutils.alloca_once(builder, F32)
    with builder.if_else(is_refined) as (with_residuals, without):
        with with_residuals:
            builder.store(emit(True), result)
        with without:
            builder.store(emit(False), result)
    return builder.load(result, typ=F32)


def _type_l2_to_bytes(
    _: Any, rows: Any, residuals: Any, row: Any, refined: Any, queries: Any, q: Any, width: Any,
    scale: Any,
) -> Any:  # fmt: skip
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = row_address(context, builder, sig.args[0], args[0], args[2])
        query = row_address(context, builder, sig.args[4], args[4], args[5])
        shrink = splat(builder, builder.fneg(args[7]), _LANES)
        fma = llvm(builder, f"fma.v{_LANES}f32", _LANES_F32, *[_LANES_F32] * 3)

        def emit(with_residuals: bool) -> Any:
            rest = None
            if with_residuals:
                rest = row_address(context, builder, sig.args[1], args[1], args[2])

            def apart(first: Any) -> Any:
                asked = load(builder, query, builder.mul(first, I64(4)), _LANES_F32)
                level = _emit_coordinates(builder, code, rest, first)
                return builder.call(fma, [level, shrink, asked])

            return _emit_l2(builder, args[6], apart)

        return _emit_either(builder, args[3], emit)

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


def _type_l2_of_bytes(
    _: Any, rows: Any, residuals: Any, a: Any, b: Any, refined: Any, width: Any, scale: Any,
    other: Any,
) -> Any:  # fmt: skip
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        codes = [row_address(context, builder, sig.args[0], args[0], r) for r in args[2:4]]
        scales = splat(builder, args[6], _LANES), splat(builder, builder.fneg(args[7]), _LANES)
        fma = llvm(builder, f"fma.v{_LANES}f32", _LANES_F32, *[_LANES_F32] * 3)

        def emit(with_residuals: bool) -> Any:
            rests = [None, None]
            if with_residuals:
                rests = [row_address(context, builder, sig.args[1], args[1], r) for r in args[2:4]]

            def apart(first: Any) -> Any:
                x, y = (
                    _emit_coordinates(builder, code, rest, first)
                    for code, rest in zip(codes, rests, strict=True)
                )
                return builder.call(fma, [y, scales[1], builder.fmul(x, scales[0])])

            return _emit_l2(builder, args[5], apart)

        return _emit_either(builder, args[4], emit)

    index, f32 = types.intp, types.float32
    return types.float32(rows, residuals, index, index, types.boolean, index, f32, f32), codegen


def _l2_of_bytes_in_python(
    rows: Any, residuals: Any, a: int, b: int, refined: bool, width: int, scale: Any, other: Any
) -> np.float32:  # fmt: skip
    x, y = (rows[r, :width].astype(np.float32) - ZERO for r in (a, b))
    if refined:
        x += residuals[a, :width] / np.float32(256)
        y += residuals[b, :width] / np.float32(256)
    apart = x * np.float32(scale) - y * np.float32(other)
    return np.float32(apart @ apart)


l2_of_bytes: Callable[..., Any] = or_python(_type_l2_of_bytes, _l2_of_bytes_in_python)
"""Squared distance of the coordinates of two rows, as of `l2_to_bytes`:
(rows, residuals, a, b, refined, width, scale of a, scale of b)."""
