"""FastScan: first bits of 32 codes at a time, looked up four dimensions by four.

A block holds the codes of 32 vectors, dimension-major, so that one byte shuffle looks up the same
four dimensions of sixteen codes in a table of sixteen bytes. With D dimensions (a multiple of 64)
a block is ``4 * D + 256`` bytes:

=============== =========== ===================================================================
bytes           dtype       content
=============== =========== ===================================================================
0 .. 4D         16 a group  byte i of group g: bits 4g to 4g + 3 of code i, of code i + 16 above
4D .. +128      float32     f_add of each code
.. +256         float32     f_scale
=============== =========== ===================================================================

With S the sum looked up, the estimate is ``f_add + centre + f_scale * (delta * S + shift)``.
f_scale is never above 0, and the error of an estimate is a multiple of it, so that a larger shift
makes a lower bound.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels.emit import BYTE, F32, I16, I32, I64, llvm, load, or_python, row_address, splat
from vecdb.kernels.emit import store as store_at

BLOCK = 32
"""Codes in a block."""

TAIL = 256
"""Bytes behind the codes of a block."""

FAR = np.float32(3e38)
"""f_add where there is no code: behind every real distance, and finite."""

_CHUNK = 64
_CHUNKS_BEFORE_OVERFLOW = 256
"""So many times 255 fit 16 bits."""
_BYTES = ir.VectorType(BYTE, _CHUNK)
_WORDS = ir.VectorType(I16, _CHUNK // 2)
_SIXTEEN_I32 = ir.VectorType(I32, 16)
_SIXTEEN_F32 = ir.VectorType(F32, 16)


def _shuffle_of_this_processor() -> tuple[str, int]:
    """Return the LLVM name and the width of the byte shuffle; no name when there is none.

    Looking bytes up in a table by bytes is the one thing that generic vector code cannot say.
    """
    config: Any = numba.config
    features = config.CPU_FEATURES
    if features is None:
        features = llvmlite.binding.get_host_cpu_features().flatten()
    known = set(features.split(","))
    if llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64")):
        return "aarch64.neon.tbl1.v16i8", 16
    for feature, name, width in (
        ("+avx512bw", "x86.avx512.pshuf.b.512", 64),
        ("+avx2", "x86.avx2.pshuf.b", 32),
        ("+ssse3", "x86.ssse3.pshuf.b.128", 16),
    ):
        if feature in known:
            return name, width
    return "", 16


def emit_shuffle(builder: Any, table: Any, places: Any, how: tuple[str, int]) -> Any:
    """Emit the lookup of 64 places, each below 16, in the 16 bytes of the table of its quarter."""
    name, width = how
    part = ir.VectorType(BYTE, width)
    parts = []
    for first in range(0, _CHUNK, width):
        lanes = ir.Constant(ir.VectorType(I32, width), [*range(first, first + width)])
        its_table = builder.shuffle_vector(table, table, lanes)
        its_places = builder.shuffle_vector(places, places, lanes)
        if name:
            shuffle = llvm(builder, name, part, part, part)
            parts.append(builder.call(shuffle, [its_table, its_places]))
            continue
        found = ir.Constant(part, ir.Undefined)
        for lane in range(width):
            place = builder.zext(builder.extract_element(its_places, I32(lane)), I32)
            byte = builder.extract_element(its_table, place)
            found = builder.insert_element(found, byte, I32(lane))
        parts.append(found)
    while len(parts) > 1:
        joined = ir.Constant(ir.VectorType(I32, 2 * width), [*range(2 * width)])
        parts = [
            builder.shuffle_vector(a, b, joined)
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
        width *= 2
    return parts[0]


def _emit_sums(builder: Any, block: Any, table: Any, chunks: Any) -> list[Any]:
    """Emit the sums of table entries: codes 0 to 15, and codes 16 to 31, as 16 int32 each."""
    how = _shuffle_of_this_processor()
    low_four = ir.Constant(_BYTES, [15] * _CHUNK)
    four, eight = (ir.Constant(_WORDS, [n] * (_CHUNK // 2)) for n in (4, 8))
    nothing = ir.Constant(_WORDS, [0] * (_CHUNK // 2))
    totals = [
        cgutils.alloca_once_value(builder, ir.Constant(_SIXTEEN_I32, [0] * 16)) for _ in range(2)
    ]
    # Each sum twice: of whole words, and of their upper bytes, which the former are too large by.
    sums = [cgutils.alloca_once(builder, _WORDS) for _ in range(4)]
    limit = I64(_CHUNKS_BEFORE_OVERFLOW)
    stretches = builder.sdiv(builder.add(chunks, I64(_CHUNKS_BEFORE_OVERFLOW - 1)), limit)
    with cgutils.for_range(builder, stretches) as stretch:
        first = builder.mul(stretch.index, limit)
        left = builder.sub(chunks, first)
        count = builder.select(builder.icmp_signed("<", left, limit), left, limit)
        for each in sums:
            builder.store(nothing, each)
        with cgutils.for_range(builder, count) as loop:
            byte = builder.mul(builder.add(first, loop.index), I64(_CHUNK))
            codes = load(builder, block, byte, _BYTES, align=_CHUNK)
            entries = load(builder, table, byte, _BYTES, align=_CHUNK)
            upper = builder.bitcast(builder.lshr(builder.bitcast(codes, _WORDS), four), _BYTES)
            for n, half in enumerate((codes, upper)):
                places = builder.and_(half, low_four)
                found = builder.bitcast(emit_shuffle(builder, entries, places, how), _WORDS)
                whole, high = sums[2 * n], sums[2 * n + 1]
                builder.store(builder.add(builder.load(whole, typ=_WORDS), found), whole)
                shifted = builder.lshr(found, eight)
                builder.store(builder.add(builder.load(high, typ=_WORDS), shifted), high)
        for n, total in enumerate(totals):
            high = builder.load(sums[2 * n + 1], typ=_WORDS)
            whole = builder.load(sums[2 * n], typ=_WORDS)
            even = _add_quarters(builder, builder.sub(whole, builder.shl(high, eight)))
            odd = _add_quarters(builder, high)
            order = ir.Constant(_SIXTEEN_I32, [n for i in range(8) for n in (i, 8 + i)])
            both = builder.shuffle_vector(even, odd, order)
            builder.store(builder.add(builder.load(total, typ=_SIXTEEN_I32), both), total)
    return [builder.load(total, typ=_SIXTEEN_I32) for total in totals]


def _add_quarters(builder: Any, words: Any) -> Any:
    """Emit the sum of the quarters of 32 words, as 8 int32."""
    total = None
    for quarter in range(4):
        lanes = ir.Constant(ir.VectorType(I32, 8), [*range(8 * quarter, 8 * quarter + 8)])
        part = builder.zext(
            builder.shuffle_vector(words, words, lanes), ir.VectorType(I32, 8)
        )  # fmt: skip
        total = part if total is None else builder.add(total, part)
    return total


def _type_scan_block(
    _: Any, blocks: Any, b: Any, dim: Any, tables: Any, line: Any, limit: Any, lowers: Any,
    at: Any, sums: Any,
) -> Any:  # fmt: skip
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = row_address(context, builder, sig.args[0], args[0], args[1])
        zero = I64(0)
        table = row_address(context, builder, sig.args[3], args[3], zero)
        low_out = row_address(context, builder, sig.args[6], args[6], args[7])
        sum_out = row_address(context, builder, sig.args[8], args[8], zero)
        numbers = [splat(builder, builder.extract_value(args[4], i), 16) for i in range(3)]
        delta, shift, centre = numbers
        limits = splat(builder, args[5], 16)
        chunks = builder.sdiv(args[2], I64(_CHUNK // 4))
        behind = builder.mul(args[2], I64(4))
        mask = I32(0)
        for n, found in enumerate(_emit_sums(builder, block, table, chunks)):
            add, scale = (
                load(builder, block, builder.add(behind, I64(128 * f + 64 * n)), _SIXTEEN_F32)
                for f in range(2)
            )
            product = builder.fadd(builder.fmul(builder.sitofp(found, _SIXTEEN_F32), delta), shift)
            low = builder.fadd(builder.fadd(add, centre), builder.fmul(scale, product))
            store_at(builder, low, low_out, I64(64 * n))
            store_at(builder, found, sum_out, I64(64 * n))
            bits = builder.bitcast(builder.fcmp_ordered("<", low, limits), I16)
            mask = builder.or_(mask, builder.shl(builder.zext(bits, I32), I32(16 * n)))
        return builder.zext(mask, I64)

    index = types.intp
    three = types.UniTuple(types.float32, 3)
    results = types.int64
    return results(blocks, index, index, tables, three, types.float32, lowers, index, sums), codegen


def _scan_block_in_python(
    blocks: Any, b: int, dim: int, tables: Any, line: Any, limit: Any, lowers: Any, at: int,
    sums: Any,
) -> int:  # fmt: skip
    block = blocks[b]
    groups = block[: 4 * dim].reshape(-1, 16)
    nibbles = np.concatenate([groups & 15, groups >> 4], axis=1)
    table = tables[0].reshape(-1, 16).astype(np.int64)
    found = np.take_along_axis(table, nibbles.astype(np.int64), axis=1).sum(0)
    add, scale = block[4 * dim :].view(np.float32).reshape(2, BLOCK)
    delta, shift, centre = (np.float32(x) for x in line)
    low = add + centre + scale * (found.astype(np.float32) * delta + shift)
    lowers[at], sums[0] = low, found
    return int(np.packbits(low < limit, bitorder="little").view("<u4")[0])


scan_block = or_python(_type_scan_block, _scan_block_in_python)
"""Bound the distances of a block's codes from below; return the bits of those below the limit.

Arguments: (blocks uint8 (n, stride), block number, D, tables uint8 (1, 4D),
(delta, shift, centre), limit, lowers float32 (n, 32), the row of it to fill, sums int32
(1, 32)). The bounds and the sums S are left in `lowers` and `sums`.
"""


def _type_fill_tables(
    _: Any, query: Any, q: Any, dim: Any, inverse: Any, tables: Any, exact: Any
) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        row = row_address(context, builder, sig.args[0], args[0], args[1])
        out = row_address(context, builder, sig.args[4], args[4], I64(0))
        floats = row_address(context, builder, sig.args[5], args[5], I64(0))
        inverse = splat(builder, args[3], 16)
        half = ir.Constant(_SIXTEEN_F32, [0.5] * 16)
        zero = ir.Constant(_SIXTEEN_F32, [0.0] * 16)
        with cgutils.for_range(builder, builder.sdiv(args[2], I64(4))) as loop:
            total, least = zero, zero
            for i in range(4):
                byte = builder.add(builder.mul(loop.index, I64(16)), I64(4 * i))
                x = splat(builder, load(builder, row, byte, F32), 16)
                chosen = ir.Constant(_SIXTEEN_F32, [float(n >> i & 1) for n in range(16)])
                total = builder.fadd(total, builder.fmul(x, chosen))
                negative = builder.fcmp_ordered("<", x, zero)
                least = builder.fadd(least, builder.select(negative, x, zero))
            store_at(builder, total, floats, builder.mul(loop.index, I64(64)))
            scaled = builder.fmul(builder.fsub(total, least), inverse)
            whole = builder.fptoui(builder.fadd(scaled, half), _SIXTEEN_I32)
            narrow = builder.trunc(whole, ir.VectorType(BYTE, 16))
            store_at(builder, narrow, out, builder.mul(loop.index, I64(16)), align=16)
        return context.get_dummy_value()

    index = types.intp
    return types.void(query, index, index, types.float32, tables, exact), codegen


def _fill_tables_in_python(
    query: Any, q: int, dim: int, inverse: Any, tables: Any, exact: Any
) -> None:
    groups = query[q, :dim].reshape(-1, 4)
    chosen = (np.arange(16)[:, None] >> np.arange(4)) & 1
    sums = (groups[:, None, :] * chosen.astype(np.float32)).sum(2, dtype=np.float32)
    least = np.minimum(groups, 0).sum(1, dtype=np.float32)
    exact[0] = sums.reshape(-1)
    scaled = (sums - least[:, None]) * np.float32(inverse) + np.float32(0.5)
    tables[0] = scaled.astype(np.uint8).reshape(-1)


fill_tables = or_python(_type_fill_tables, _fill_tables_in_python)
"""Make a query's tables: (query float32 (n, D), row, D, 1 / delta, tables, exact float32 (1, 4D)).

Entry m of group g is the sum of the query at those of 4g to 4g + 3 of which m has the bit: as it is
in `exact`; less the least entry, over delta and rounded in `tables`.
"""
