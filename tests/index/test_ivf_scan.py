"""Kernels of inverted lists of RaBitQ codes against their plain forms."""

from typing import Any

import llvmlite.binding
import numpy as np
import pytest
from llvmlite import ir
from numba import types

from vecdb.kernels import emit, ivf_scan, rabitq, simd
from vecdb.kernels.jit import COMPILED, kernel


@kernel
def _scan(blocks, b, dim, tables, line, limit, lowers, sums):  # type: ignore[no-untyped-def]
    return ivf_scan.scan_block(blocks, b, dim, tables, line, limit, lowers, 1, sums)


@kernel
def _fill(query, inverse, tables, exact):  # type: ignore[no-untyped-def]
    ivf_scan.fill_tables(query, 0, query.shape[1], inverse, tables, exact)


@kernel
def _planes(codes, count, query):  # type: ignore[no-untyped-def]
    return rabitq.plane_sum(codes, 1, count, query, 0, query.shape[1])


@kernel
def _lowest(bits):  # type: ignore[no-untyped-def]
    return simd.lowest_bit(bits)


def _on_line(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _code_bits(block: np.ndarray, dim: int) -> np.ndarray:
    """Return the first bits (32, dim) of a block's codes, as the layout says."""
    groups = block[: 4 * dim].reshape(-1, 16)
    nibbles = np.concatenate([groups & 15, groups >> 4], axis=1).T
    return ((nibbles[:, :, None] >> np.arange(4, dtype=np.uint8)) & 1).reshape(32, dim) != 0


@pytest.mark.parametrize("dim", [64, 192, 384, 8192])
def test_a_block_is_bounded_as_the_plain_form_says(dim: int) -> None:
    rng = np.random.default_rng(dim)
    blocks = _on_line((2, 4 * dim + ivf_scan.TAIL), np.uint8)
    blocks[:, : 4 * dim] = rng.integers(0, 256, (2, 4 * dim))
    factors = blocks.view(np.float32)[:, dim:].reshape(2, 2, 32)
    factors[:] = rng.standard_normal((2, 2, 32))
    query = rng.standard_normal((1, dim)).astype(np.float32)
    tables, exact = _on_line((1, 4 * dim), np.uint8), np.zeros((1, 4 * dim), np.float32)
    delta = np.float32(np.abs(query).reshape(-1, 4).sum(1).max() / 255)
    _fill(query, np.float32(1) / delta, tables, exact)

    bits = _code_bits(blocks[1], dim)
    products = bits @ query[0].astype(np.float64)
    groups = query.reshape(-1, 4)
    least = np.minimum(groups, 0).sum(1)
    places = (bits.reshape(32, -1, 4) << np.arange(4)).sum(2)
    plain = exact.reshape(-1, 16)[np.arange(dim // 4), places].sum(1, dtype=np.float64)
    np.testing.assert_allclose(plain, products, atol=1e-4 * dim)
    entries = tables.reshape(-1, 16)[np.arange(dim // 4), places].sum(1, dtype=np.int64)
    np.testing.assert_allclose(entries * float(delta) + least.sum(), products, atol=dim / 8 * delta)

    lowers, sums = np.zeros((2, 32), np.float32), np.zeros((1, 32), np.int32)
    line = (delta, np.float32(0.5), np.float32(2))
    mask = _scan(blocks, 1, dim, tables, line, np.float32(1), lowers, sums)
    np.testing.assert_array_equal(sums[0], entries)
    expected = factors[1, 0] + 2 + factors[1, 1] * (entries * delta + np.float32(0.5))
    np.testing.assert_allclose(lowers[1], expected, rtol=1e-4, atol=1e-3)
    assert not lowers[0].any()
    assert [bool(mask >> j & 1) for j in range(32)] == (lowers[1] < 1).tolist()


def _ways() -> list[tuple[str, int]]:
    if llvmlite.binding.get_process_triple().startswith("x86_64"):
        features = llvmlite.binding.get_host_cpu_features()
        ways = [("x86.ssse3.pshuf.b.128", 16)]
        ways += [("x86.avx2.pshuf.b", 32)] if features.get("avx2") else []
        ways += [("x86.avx512.pshuf.b.512", 64)] if features.get("avx512bw") else []
        return [("", 16), *ways]
    return [("", 16)]


@pytest.mark.skipif(not COMPILED, reason="about the code that is compiled")
@pytest.mark.parametrize("how", _ways(), ids=str)
def test_bytes_are_shuffled_alike_on_every_processor(how: tuple[str, int]) -> None:
    bytes_type = ir.VectorType(emit.BYTE, 64)

    def typing(_: Any, table: Any, places: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rows = [
                emit.row_address(context, builder, t, a, emit.I64(0))
                for t, a in zip(sig.args, args, strict=True)
            ]
            zero = emit.I64(0)
            table, places = (emit.load(builder, r, zero, bytes_type, align=1) for r in rows[:2])
            found = ivf_scan.emit_shuffle(builder, table, places, how)
            emit.store(builder, found, rows[2], zero, align=1)
            return context.get_dummy_value()

        return types.void(table, places, out), codegen

    shuffle = emit.or_python(typing, lambda: None)

    @kernel
    def run(table, places, out):  # type: ignore[no-untyped-def]
        shuffle(table, places, out)

    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (1, 64)).astype(np.uint8)
    places = rng.integers(0, 16, (1, 64)).astype(np.uint8)
    out = np.zeros((1, 64), np.uint8)
    run(table, places, out)
    quarters = np.arange(64) // 16 * 16
    np.testing.assert_array_equal(out[0], table[0][quarters + places[0]])


@pytest.mark.parametrize("dim", [64, 384, 1024])
@pytest.mark.parametrize("planes", [1, 3, 7])
def test_the_sum_over_planes_is_the_product_with_the_code(dim: int, planes: int) -> None:
    rng = np.random.default_rng(planes)
    code = rng.integers(0, 1 << planes, dim)
    packed = [np.packbits(code >> p & 1, bitorder="little") for p in range(planes)]
    codes = np.zeros((2, planes * dim // 8 + 8), np.uint8)
    codes[1, : planes * dim // 8] = np.concatenate(packed)
    query = rng.standard_normal((1, dim)).astype(np.float32)
    found = _planes(codes, planes, query)
    np.testing.assert_allclose(found, code @ query[0].astype(np.float64), atol=1e-4 * (1 << planes))


def test_the_lowest_bit_is_found() -> None:
    assert [_lowest(np.int64(1 << i | 1 << 40)) for i in range(40)] == list(range(40))
