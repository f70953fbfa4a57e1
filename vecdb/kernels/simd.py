"""What numba cannot express: wide float vectors, prefetch, block moves, locks.

Each operation is an intrinsic that emits generic LLVM vector code, which LLVM lowers for AVX-512,
AVX2 and NEON alike, and beside it the same operation in numpy, used when the JIT is off.

Vectors are rows of 2-D C-contiguous float32 arrays; `dim` counts the floats compared, and a row may
be longer. Every kernel adds up a pair in the same order, sixteen lanes wide, so the distance of a
pair does not depend on which kernel computed it.
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
    tile_addresses,
)

LANES = 16
"""Floats handled at once. Rows padded with zeros to a multiple of it need no scalar tail."""

_LANES_F32 = ir.VectorType(F32, LANES)
_CACHE_LINE = 64


def _emit_tile(builder: Any, l2: bool, queries: list[Any], rows: list[Any], dim: Any) -> list[Any]:
    """Emit the comparison of every query with every row; return the scalars, query-major."""
    wide = f"v{LANES}f32"
    fma = llvm(builder, f"fma.{wide}", _LANES_F32, *[_LANES_F32] * 3)
    add_up = llvm(builder, f"vector.reduce.fadd.{wide}", F32, F32, _LANES_F32)
    pairs = [(q, r) for q in range(len(queries)) for r in range(len(rows))]
    zero = ir.Constant(_LANES_F32, [0.0] * LANES)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in pairs]
    chunks = builder.sdiv(dim, I64(LANES))
    with cgutils.for_range(builder, chunks) as loop:
        byte = builder.mul(loop.index, I64(4 * LANES))
        left = [load(builder, q, byte, _LANES_F32) for q in queries]
        right = [load(builder, r, byte, _LANES_F32) for r in rows]
        for (q, r), total in zip(pairs, sums, strict=True):
            a, b = left[q], right[r]
            if l2:
                a = b = builder.fsub(a, b)
            builder.store(builder.call(fma, [a, b, builder.load(total, typ=_LANES_F32)]), total)
    scalars = []
    for total in sums:
        lanes = builder.load(total, typ=_LANES_F32)
        scalar = builder.call(add_up, [F32(0.0), lanes], fastmath=REORDER)
        scalars.append(cgutils.alloca_once_value(builder, scalar))
    done = builder.mul(chunks, I64(LANES))
    with cgutils.for_range(builder, builder.sub(dim, done)) as loop:
        byte = builder.mul(builder.add(done, loop.index), I64(4))
        left = [load(builder, q, byte, F32) for q in queries]
        right = [load(builder, r, byte, F32) for r in rows]
        for (q, r), total in zip(pairs, scalars, strict=True):
            a, b = left[q], right[r]
            if l2:
                a = b = builder.fsub(a, b)
            product = builder.fmul(a, b, flags=REORDER)
            total_so_far = builder.load(total, typ=F32)
            builder.store(builder.fadd(total_so_far, product, flags=REORDER), total)
    return [builder.load(total, typ=F32) for total in scalars]


def _in_python(l2: bool, left: Any, right: Any) -> np.float32:
    difference = left - right
    return np.float32(difference @ difference) if l2 else np.float32(left @ right)


def _one_by_four(l2: bool) -> Callable[..., Any]:
    """Make the comparison of one query with four rows: (queries, q, rows, a, b, c, d, dim)."""

    def typing(_: Any, qs: Any, q: Any, rows: Any, a: Any, b: Any, c: Any, d: Any, dim: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            query = row_address(context, builder, sig.args[0], args[0], args[1])
            four = [row_address(context, builder, sig.args[2], args[2], r) for r in args[3:7]]
            return cgutils.pack_array(builder, _emit_tile(builder, l2, [query], four, args[7]))

        index = types.intp
        results = types.UniTuple(types.float32, 4)
        return results(qs, index, rows, index, index, index, index, index), codegen

    def python(qs: Any, q: int, rows: Any, a: int, b: int, c: int, d: int, dim: int) -> Any:
        return tuple(_in_python(l2, qs[q, :dim], rows[r, :dim]) for r in (a, b, c, d))

    return or_python(typing, python)


def _four_by_two(l2: bool) -> Callable[..., Any]:
    """Make the comparison of queries q to q + 3 with two rows: (queries, q, rows, a, b, dim)."""

    def typing(_: Any, qs: Any, q: Any, rows: Any, a: Any, b: Any, dim: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            four, two = tile_addresses(context, builder, sig, args)
            return cgutils.pack_array(builder, _emit_tile(builder, l2, four, two, args[5]))

        index = types.intp
        return types.UniTuple(types.float32, 8)(qs, index, rows, index, index, index), codegen

    def python(qs: Any, q: int, rows: Any, a: int, b: int, dim: int) -> Any:
        return tuple(
            _in_python(l2, qs[q + i, :dim], rows[r, :dim]) for i in range(4) for r in (a, b)
        )

    return or_python(typing, python)


dot_one_by_four = _one_by_four(l2=False)
"""Inner products of query `q` with the rows a, b, c, d: four floats."""
l2_one_by_four = _one_by_four(l2=True)
"""Squared distances of query `q` to the rows a, b, c, d: four floats."""
dot_four_by_two = _four_by_two(l2=False)
"""Inner products of queries q to q + 3 with the rows a and b: eight floats, query-major."""
l2_four_by_two = _four_by_two(l2=True)
"""Squared distances of queries q to q + 3 to the rows a and b: eight floats, query-major."""


def _type_prefetch(_: Any, array: Any, row: Any, first: Any, lines: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], args[1])
        base = cgutils.pointer_add(builder, base, args[2])
        fetch = llvm(builder, "prefetch.p0", ir.VoidType(), BYTE.as_pointer(), I32, I32, I32)
        with cgutils.for_range(builder, args[3]) as loop:
            line = builder.mul(loop.index, I64(_CACHE_LINE))
            address = cgutils.pointer_add(builder, base, line)
            builder.call(fetch, [address, I32(0), I32(2), I32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), codegen


def _prefetch_in_python(array: Any, row: int, first: int, lines: int) -> None:
    """Do nothing: without the JIT there is nothing to hide the wait behind."""


prefetch = or_python(_type_prefetch, _prefetch_in_python)
"""Ask for `lines` cache lines of a row from byte `first` on: (array, row, first, lines)."""


def _type_move_up(_: Any, array: Any, start: Any, stop: Any, by: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = row_address(context, builder, sig.args[0], args[0], args[1])
        width = sig.args[0].dtype.bitwidth // 8
        target = cgutils.pointer_add(builder, source, builder.mul(args[3], I64(width)))
        cgutils.raw_memmove(builder, target, source, builder.sub(args[2], args[1]), width)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), codegen


def _move_up_in_python(array: Any, start: int, stop: int, by: int) -> None:
    array[start + by : stop + by] = array[start:stop].copy()


move_up = or_python(_type_move_up, _move_up_in_python)
"""Move ``array[start:stop]`` up by some places, as one block: (array, start, stop, by)."""


def _type_try_lock(_: Any, locks: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = row_address(context, builder, sig.args[0], args[0], args[1])
        address = builder.bitcast(address, I32.as_pointer())
        outcome = builder.cmpxchg(address, I32(0), I32(1), "acq_rel", "monotonic")
        return builder.extract_value(outcome, 1)

    return types.boolean(locks, types.intp), codegen


def _try_lock_in_python(locks: Any, index: int) -> bool:
    """Succeed always: without the JIT a build uses one thread."""
    locks[index] = 1
    return True


try_lock = or_python(_type_try_lock, _try_lock_in_python)
"""Set ``locks[index]`` (int32) from 0 to 1 atomically; True when this call did: (locks, index)."""


def _type_unlock(_: Any, locks: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = row_address(context, builder, sig.args[0], args[0], args[1])
        address = builder.bitcast(address, I32.as_pointer())
        builder.store_atomic(I32(0), address, "release", 4)
        return context.get_dummy_value()

    return types.void(locks, types.intp), codegen


def _unlock_in_python(locks: Any, index: int) -> None:
    locks[index] = 0


unlock = or_python(_type_unlock, _unlock_in_python)
"""Set ``locks[index]`` back to 0, after everything written under the lock: (locks, index)."""


def _type_lowest_bit(_: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen


def _lowest_bit_in_python(bits: int) -> int:
    return (int(bits) & -int(bits)).bit_length() - 1


lowest_bit = or_python(_type_lowest_bit, _lowest_bit_in_python)
"""The number of the lowest bit that is set; there must be one."""
