"""Wide operations on codes: sign bits, bit planes, and estimates of 32 neighbours at once.

As in `vecdb.kernels.simd`, each is an intrinsic of generic LLVM vector code, with the same
operation in numpy beside it for when the JIT is off.
"""

from __future__ import annotations

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
    llvm,
    load,
    or_python,
    row_address,
    splat,
    store,
)  # fmt: skip

WORD = 64
"""Bits of a code word, and coordinates that it covers."""
BLOCK = 32
"""Neighbours whose codes lie side by side."""
PLANES = 4
"""Bits of a query's coordinate: two's complement, from -7 to 7."""

_WORDS = ir.VectorType(I64, 8)
_GROUPS = BLOCK // 8
_CODE_BYTES = 8 * BLOCK
_EIGHT_F32 = ir.VectorType(F32, 8)
_EIGHT_I32 = ir.VectorType(I32, 8)


def _type_sign_word(_: Any, values: Any, row: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], args[1])
        wide = ir.VectorType(F32, WORD)
        numbers = load(builder, base, builder.mul(args[2], I64(4 * WORD)), wide)
        positive = builder.fcmp_ordered(">", numbers, ir.Constant(wide, [0.0] * WORD))
        return builder.bitcast(positive, I64)

    return types.int64(values, types.intp, types.intp), codegen


def _sign_word_in_python(values: Any, row: int, word: int) -> np.int64:
    bits = values[row, word * WORD : (word + 1) * WORD] > 0
    return np.int64(np.packbits(bits, bitorder="little").view(np.int64)[0])


sign_word = or_python(_type_sign_word, _sign_word_in_python)
"""Which of 64 coordinates of a row are positive, as bits: (values, row, word)."""


def _type_plane_word(_: Any, levels: Any, row: Any, word: Any, bit: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], args[1])
        wide = ir.VectorType(BYTE, WORD)
        numbers = load(builder, base, builder.mul(args[2], I64(WORD)), wide, align=1)
        one = builder.shl(BYTE(1), builder.trunc(args[3], BYTE))
        there = builder.and_(numbers, splat(builder, one, WORD))
        there = builder.icmp_unsigned("!=", there, ir.Constant(wide, [0] * WORD))
        return builder.bitcast(there, I64)

    return types.int64(levels, types.intp, types.intp, types.intp), codegen


def _plane_word_in_python(levels: Any, row: int, word: int, bit: int) -> np.int64:
    bits = (levels[row, word * WORD : (word + 1) * WORD] >> bit) & 1
    return np.int64(np.packbits(bits.astype(np.bool_), bitorder="little").view(np.int64)[0])


plane_word = or_python(_type_plane_word, _plane_word_in_python)
"""One bit of each of 64 levels, int8, of a row: (levels, row, word, bit)."""


def _type_estimate_block(
    _: Any, rows: Any, row: Any, byte: Any, planes: Any, lane: Any, words: Any, step: Any,
    half: Any, base: Any, limit: Any, keys: Any,
) -> Any:  # fmt: skip
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, _, byte, _, _, words, step, half, base, limit, _ = args
        block = row_address(context, builder, sig.args[0], args[0], args[1])
        block = cgutils.pointer_add(builder, block, byte)
        asked = row_address(context, builder, sig.args[3], args[3], args[4])
        out = row_address(context, builder, sig.args[10], args[10], args[4])
        sums = _emit_plane_sums(builder, block, asked, words)
        factors = cgutils.pointer_add(builder, block, builder.mul(words, I64(_CODE_BYTES)))
        ids = builder.mul(words, I64(_CODE_BYTES))
        ids = cgutils.pointer_add(builder, block, builder.add(ids, I64(8 * BLOCK)))
        wide = _EIGHT_F32
        larger = llvm(builder, "maxnum.v8f32", wide, wide, wide)
        mask = I64(0)
        for group in range(_GROUPS):
            counted = builder.load(sums[0][group], typ=_WORDS)
            for plane in range(1, PLANES):
                more = builder.shl(
                    builder.load(sums[plane][group], typ=_WORDS), ir.Constant(_WORDS, [plane] * 8)
                )
                last = plane == PLANES - 1  # its weight is negative: two's complement
                counted = builder.sub(counted, more) if last else builder.add(counted, more)
            product = builder.sitofp(builder.trunc(counted, _EIGHT_I32), wide)
            product = builder.fmul(product, splat(builder, step, 8))
            product = builder.fsub(product, splat(builder, half, 8))
            add = load(builder, factors, I64(32 * group), wide)
            scale = load(builder, factors, I64(4 * BLOCK + 32 * group), wide)
            estimate = builder.fadd(
                builder.fadd(splat(builder, base, 8), add), builder.fmul(scale, product)
            )
            estimate = builder.call(larger, [estimate, ir.Constant(wide, [0.0] * 8)])
            nodes = load(builder, ids, I64(32 * group), _EIGHT_I32)
            key = builder.shl(builder.zext(nodes, _WORDS), ir.Constant(_WORDS, [1] * 8))
            bits = builder.zext(builder.bitcast(estimate, _EIGHT_I32), _WORDS)
            bits = builder.shl(bits, ir.Constant(_WORDS, [32] * 8))
            store(builder, builder.or_(bits, key), out, I64(64 * group), align=8)
            below = builder.fcmp_ordered("<", estimate, splat(builder, limit, 8))
            bits = builder.zext(builder.bitcast(below, BYTE), I64)
            mask = builder.or_(mask, builder.shl(bits, I64(8 * group)))
        return mask

    index, f32 = types.intp, types.float32
    return types.int64(rows, index, index, planes, index, index, f32, f32, f32, f32, keys), codegen


def _emit_plane_sums(builder: Any, block: Any, asked: Any, words: Any) -> list[list[Any]]:
    """Emit the counts of common bits of every plane with every code; return where they are."""
    zero = ir.Constant(_WORDS, [0] * 8)
    sums = [
        [cgutils.alloca_once_value(builder, zero) for _ in range(_GROUPS)] for _ in range(PLANES)
    ]
    count = llvm(builder, "ctpop.v8i64", _WORDS, _WORDS)
    with cgutils.for_range(builder, words) as loop:
        first = builder.mul(loop.index, I64(_CODE_BYTES))
        codes = [
            load(builder, block, builder.add(first, I64(64 * group)), _WORDS, align=8)
            for group in range(_GROUPS)
        ]
        for plane in range(PLANES):
            at = builder.add(builder.mul(loop.index, I64(PLANES)), I64(plane))
            word = load(builder, asked, builder.mul(at, I64(8)), I64, align=8)
            word = splat(builder, word, 8)
            for group in range(_GROUPS):
                common = builder.call(count, [builder.and_(codes[group], word)])
                total = builder.load(sums[plane][group], typ=_WORDS)
                builder.store(builder.add(total, common), sums[plane][group])
    return sums


def _estimate_block_in_python(
    rows: Any, row: int, byte: int, planes: Any, lane: int, words: int, step: Any, half: Any,
    base: Any, limit: Any, keys: Any,
) -> np.int64:  # fmt: skip
    end = byte + words * _CODE_BYTES
    codes = rows[row, byte:end].view(np.uint64).reshape(words, BLOCK)
    asked = planes[lane, : words * PLANES].view(np.uint64).reshape(words, PLANES)
    common = np.bitwise_count(codes[:, None, :] & asked[:, :, None]).sum(axis=0, dtype=np.int64)
    weights = np.array([1 << p for p in range(PLANES - 1)] + [-(1 << (PLANES - 1))])
    product = (weights @ common).astype(np.float32) * np.float32(step) - np.float32(half)
    add, scale = rows[row, end : end + 8 * BLOCK].view(np.float32).reshape(2, BLOCK)
    estimates = np.maximum(np.float32(base) + add + scale * product, np.float32(0))
    nodes = rows[row, end + 8 * BLOCK : end + 12 * BLOCK].view(np.uint32).astype(np.int64)
    keys[lane, :BLOCK] = estimates.view(np.uint32).astype(np.int64) << 32 | nodes << 1
    below = np.packbits(estimates < limit, bitorder="little")
    return np.int64(below.view(np.uint32)[0])


estimate_block = or_python(_type_estimate_block, _estimate_block_in_python)
"""Estimate the squared distances of 32 codes to a query; return which are below a limit, as bits.

(rows, row, byte, planes, lane, words, step, half, base, limit, keys): `byte` is where the block
starts in the row; the query's levels are ``planes[lane]``, a level is worth `step`, and `half` is
half the sum of its coordinates; `base` is the squared distance of the node that the codes hang on.
``keys[lane]`` receives the keys (`vecdb.kernels.pool`) of the neighbours; an estimate below 0
becomes 0. A neighbour that is missing has an infinite one."""


def _type_count_below(_: Any, keys: Any, count: Any, key: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], I64(0))
        limit = splat(builder, args[2], 8)
        total = cgutils.alloca_once_value(builder, ir.Constant(_WORDS, [0] * 8))
        with cgutils.for_range(builder, _groups_of(builder, args[1])) as loop:
            some = load(builder, base, builder.mul(loop.index, I64(64)), _WORDS, align=8)
            below = builder.icmp_signed("<", some, limit)
            builder.store(
                builder.sub(builder.load(total, typ=_WORDS), builder.sext(below, _WORDS)), total
            )
        add_up = llvm(builder, "vector.reduce.add.v8i64", I64, _WORDS)
        return builder.call(add_up, [builder.load(total, typ=_WORDS)])

    return types.int64(keys, types.intp, types.int64), codegen


def _groups_of(builder: Any, count: Any) -> Any:
    return builder.sdiv(builder.add(count, I64(7)), I64(8))


def _count_below_in_python(keys: Any, count: int, key: int) -> int:
    return int((keys[:count] < key).sum())


count_below = or_python(_type_count_below, _count_below_in_python)
"""How many of the first `count` int64 keys are below `key`; those up to a multiple of 8 must exist
and be no smaller: (keys, count, key)."""


def _type_lowest_key(_: Any, keys: Any, count: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], I64(0))
        numbers = ir.Constant(_WORDS, list(range(8)))
        least = cgutils.alloca_once_value(builder, load(builder, base, I64(0), _WORDS, align=8))
        where = cgutils.alloca_once_value(builder, numbers)
        with cgutils.for_range(builder, _groups_of(builder, args[1]), start=I64(1)) as loop:
            some = load(builder, base, builder.mul(loop.index, I64(64)), _WORDS, align=8)
            first = splat(builder, builder.mul(loop.index, I64(8)), 8)
            lowest, place = builder.load(least, typ=_WORDS), builder.load(where, typ=_WORDS)
            lower = builder.icmp_signed("<", some, lowest)
            builder.store(builder.select(lower, some, lowest), least)
            builder.store(builder.select(lower, builder.add(first, numbers), place), where)
        smallest = llvm(builder, "vector.reduce.smin.v8i64", I64, _WORDS)
        lowest = builder.load(least, typ=_WORDS)
        best = splat(builder, builder.call(smallest, [lowest]), 8)
        equal = builder.bitcast(builder.icmp_signed("==", lowest, best), BYTE)
        lane = builder.cttz(builder.zext(equal, I32), ir.IntType(1)(1))
        return builder.extract_element(builder.load(where, typ=_WORDS), lane)

    return types.int64(keys, types.intp), codegen


def _lowest_key_in_python(keys: Any, count: int) -> int:
    return int(keys[:count].argmin())


lowest_key = or_python(_type_lowest_key, _lowest_key_in_python)
"""Where the lowest of the first `count` int64 keys stands, of which there is one at least; those
up to a multiple of 8 must exist and be no lower: (keys, count)."""


_BLOCK_GROUPS = 8


def _type_block_minimum(_: Any, keys: Any, start: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], args[1])
        smaller = llvm(builder, "smin.v8i64", _WORDS, _WORDS, _WORDS)
        some = [load(builder, base, I64(64 * i), _WORDS, align=8) for i in range(_BLOCK_GROUPS)]
        while len(some) > 1:
            pairs = zip(some[::2], some[1::2], strict=True)
            some = [builder.call(smaller, [x, y]) for x, y in pairs]
        smallest = llvm(builder, "vector.reduce.smin.v8i64", I64, _WORDS)
        return builder.call(smallest, some)

    return types.int64(keys, types.intp), codegen


def _block_minimum_in_python(keys: Any, start: int) -> np.int64:
    return np.int64(keys[start : start + 8 * _BLOCK_GROUPS].min())


block_minimum = or_python(_type_block_minimum, _block_minimum_in_python)
"""The lowest of the 64 int64 keys from place `start` on: (keys, start)."""


def _type_place_in_block(_: Any, keys: Any, start: Any, key: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = row_address(context, builder, sig.args[0], args[0], args[1])
        asked = splat(builder, args[2], 8)
        there = I64(0)
        for group in range(_BLOCK_GROUPS):
            some = load(builder, base, I64(64 * group), _WORDS, align=8)
            equal = builder.bitcast(builder.icmp_signed("==", some, asked), BYTE)
            there = builder.or_(there, builder.shl(builder.zext(equal, I64), I64(8 * group)))
        return builder.cttz(there, ir.IntType(1)(1))

    return types.int64(keys, types.intp, types.int64), codegen


def _place_in_block_in_python(keys: Any, start: int, key: int) -> int:
    return int((keys[start : start + 8 * _BLOCK_GROUPS] == key).argmax())


place_in_block = or_python(_type_place_in_block, _place_in_block_in_python)
"""Where `key` stands among the 64 int64 keys from place `start` on; it must: (keys, start, key)."""
