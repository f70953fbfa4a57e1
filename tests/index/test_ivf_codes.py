"""Inverted lists of RaBitQ codes: kernels against plain forms, and searches against `FlatIndex`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numba import types

from tests.index.samples import MANY, METRICS, assert_true_distances, clustered, recall
from tests.naive import distances
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, IvfIndex
from vecdb.kernels import emit, ivf_scan, rabitq, simd
from vecdb.kernels.jit import COMPILED, kernel

EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)


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


@st.composite
def _points(draw: st.DrawFn) -> np.ndarray:
    dim, count = draw(st.integers(1, 200)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    kind = draw(st.sampled_from(["noise", "equal", "duplicates", "far", "large", "small"]))
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, count // 3), count)]
    elif kind == "far":
        vectors[: count // 2] += 1_000
    else:
        vectors *= {"noise": 1, "large": 1e15, "small": 1e-12}[kind]
    return vectors


@EVERY_METRIC
@pytest.mark.parametrize("rerank", ["memory", "none"])
@given(vectors=_points(), bits=st.integers(1, 8), k=st.integers(1, 12), data=st.data())
@settings(max_examples=20, deadline=None)
def test_answers_are_complete_and_allowed_whatever_the_data(
    metric: str, rerank: str, vectors: np.ndarray, bits: int, k: int, data: st.DataObject
) -> None:
    count, dim = vectors.shape
    index = IvfIndex(dim, metric, bits=bits, rerank=rerank)
    first = data.draw(st.integers(1, count))
    index.build(vectors[:first])
    if first < count:
        index.add(vectors[first:])
    gone = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    if gone:
        index.remove(gone)
    allowed = np.ones(count, np.bool_)
    allowed[gone] = False
    mask = data.draw(st.none() | st.just(np.arange(count) % 2 == 0))
    allowed = allowed if mask is None else allowed & mask
    ids, found = index.search(vectors[:3], k, filter=mask, nprobe=1)
    assert ((ids >= 0).sum(1) == min(k, allowed.sum())).all()
    assert allowed[ids[ids >= 0]].all()
    assert np.isfinite(found[ids >= 0]).all()
    if rerank == "memory":
        assert_true_distances(metric, vectors[:3], vectors, ids, found)


@EVERY_METRIC
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_all_lists_searched_with_vectors_kept_is_nearly_exact(metric: str, bits: int) -> None:
    vectors, queries = clustered(MANY, 70), clustered(50, 70, seed=1)
    exact, index = FlatIndex(70, metric), IvfIndex(70, metric, bits=bits)
    for each in (exact, index):
        each.build(vectors)
    truth, _ = exact.search(queries, 10)
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    assert recall(ids, truth) > 0.97
    assert_true_distances(metric, queries, vectors, ids, found)


@EVERY_METRIC
def test_more_bits_alone_tell_distances_better(metric: str) -> None:
    vectors, queries = clustered(MANY, 96), clustered(50, 96, seed=1)
    exact = FlatIndex(96, metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    recalls, errors = [], []
    for bits in (1, 4, 7):
        index = IvfIndex(96, metric, bits=bits, rerank="none")
        index.build(vectors)
        ids, found = index.search(queries, 10, nprobe=index.list_count)
        table = distances(metric, queries, vectors)
        true = np.take_along_axis(table, ids, axis=1)
        recalls.append(recall(ids, truth))
        errors.append(float(np.abs(found - true).mean() / table.std()))
    assert recalls[1] > 0.8
    assert recalls[2] > 0.95
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 0.01


@EVERY_METRIC
def test_clusters_far_apart_do_not_drown_in_rounding(metric: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MANY // 2, 48)).astype(np.float32)
    vectors[: len(vectors) // 2] += 300
    queries = vectors[:: len(vectors) // 20] + np.float32(0.1)
    exact, index = FlatIndex(48, metric), IvfIndex(48, metric)
    for each in (exact, index):
        each.build(vectors)
    _, near = exact.search(queries, 10)
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    assert_true_distances(metric, queries, vectors, ids, found)
    if metric == "dot":
        return  # the codes tell little of a query near the origin, far from all centres
    scale = 1e-6 * np.abs(distances(metric, queries, vectors)).max()
    assert (found <= near[:, -1:] + scale).mean() > 0.9


def test_a_batch_is_answered_as_its_queries_one_by_one() -> None:
    vectors, queries = clustered(MANY, 40), clustered(70, 40, seed=1)
    index = IvfIndex(40)
    index.build(vectors)
    ids, found = index.search(queries, 5, threads=2)
    for i, query in enumerate(queries):
        one, near = index.search(query, 5)
        np.testing.assert_array_equal(one[0], ids[i])
        np.testing.assert_array_equal(near[0], found[i])


def test_more_lists_than_are_sorted_at_once_are_searched_too() -> None:
    vectors = clustered(MANY, 8)
    count = 600 if COMPILED else 60
    index, exact = IvfIndex(8, "l2", nlist=count), FlatIndex(8, "l2")
    for each in (index, exact):
        each.build(vectors)
    queries = clustered(40, 8, seed=1)
    ids, _ = index.search(queries, 10, nprobe=count)
    assert recall(ids, exact.search(queries, 10)[0]) > 0.98


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05])
@pytest.mark.parametrize("rerank", ["memory", "none"])
def test_filters_keep_their_recall(share: float, rerank: str) -> None:
    vectors, queries = clustered(MANY, 32), clustered(40, 32, seed=1)
    index, exact = IvfIndex(32, bits=8, rerank=rerank), FlatIndex(32)
    for each in (index, exact):
        each.build(vectors)
    mask = np.random.default_rng(2).random(MANY) < share
    truth, _ = exact.search(queries, 10, filter=mask)
    ids, _ = index.search(queries, 10, nprobe=max(1, index.list_count // 2), filter=mask)
    assert ((ids >= 0) == (truth >= 0)).all()
    assert mask[ids[ids >= 0]].all()
    assert recall(ids, truth) > 0.9


@pytest.mark.parametrize("rerank", ["memory", "mmap", "none"])
def test_lists_are_made_anew_as_an_index_grows(rerank: str) -> None:
    vectors, queries = clustered(MANY, 24), clustered(40, 24, seed=1)
    grown, exact = IvfIndex(24, bits=8, rerank=rerank), FlatIndex(24)
    exact.build(vectors)
    first = MANY // 20
    grown.add(vectors[:first])
    lists = grown.list_count
    for start in range(first, MANY, MANY // 9):
        grown.add(vectors[start : start + MANY // 9])
    assert grown.list_count > lists
    ids, _ = grown.search(queries, 10, nprobe=grown.list_count)
    assert recall(ids, exact.search(queries, 10)[0]) > 0.9


@EVERY_METRIC
@pytest.mark.parametrize(
    "options", [{"quantization": "none"}, {"bits": 1}, {}, {"bits": 8, "rerank": "none"}], ids=str
)
def test_removed_rows_give_their_places_to_new_ones(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    vectors, queries = clustered(MANY // 2, 24), clustered(40, 24, seed=1)
    index, exact = IvfIndex(24, metric, **options), FlatIndex(24, metric)
    for each in (index, exact):
        each.build(vectors)
    before = sum(array.nbytes for array in index.arrays().values())
    rng = np.random.default_rng(5)
    for part in range(3):
        gone = rng.choice(len(vectors), len(vectors) // 2, replace=False)
        index.remove(gone)
        if part == 1:  # as from a file, whose arrays are read-only
            index.save(tmp_path / "i")
            index = IvfIndex.load(tmp_path / "i")
        for some in np.array_split(gone, 3):
            index.add(vectors[some], ids=some)
        assert index.row_count == len(index) == len(vectors)
    assert sum(array.nbytes for array in index.arrays().values()) < 1.3 * before
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    truth, _ = exact.search(queries, 10)
    assert recall(ids, truth) > 0.9
    if options.get("rerank") != "none":
        assert_true_distances(metric, queries, vectors, ids, found)
    assert index.add(vectors[:1] * 2)[0] > len(vectors), "an id that none ever had"


@EVERY_METRIC
@pytest.mark.parametrize("options", [{"bits": 1}, {"rerank": "mmap"}, {"rerank": "none"}], ids=str)
def test_saved_and_loaded_answers_the_same(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    vectors, queries = clustered(MANY // 3, 20), clustered(20, 20, seed=1)
    index = IvfIndex(20, metric, **options)
    index.build(vectors)
    index.remove([3, 5])
    index.save(tmp_path / "i")
    loaded = IvfIndex.load(tmp_path / "i")
    assert (loaded.bits, loaded.rerank) == (index.bits, index.rerank)
    for each in (index, loaded):
        each.add(vectors[:7], ids=range(MANY, MANY + 7))
    for a, b in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lists_of_float32_from_before_there_were_codes_can_be_read() -> None:
    index = IvfIndex(6, quantization="none")
    index.build(clustered(30, 6))
    arrays = index.arrays()
    header = arrays["header"][:6].copy()
    header[0] = 1
    old = IvfIndex.from_arrays(arrays | {"header": header})
    assert old.quantization == "none"
    for a, b in zip(old.search(clustered(3, 6)), index.search(clustered(3, 6)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_is_that_of_the_codes_when_vectors_are_not_kept() -> None:
    index = IvfIndex(384, bits=4, rerank="none", nlist=4)
    index.build(clustered(640 if COMPILED else 128, 384))
    per_vector = sum(a.nbytes for n, a in index.arrays().items() if n != "centroids")
    per_vector /= len(index)
    assert per_vector < 384 * 4 / 8 * 2


def _broken(index: IvfIndex, **changes: Any) -> Callable[[], IvfIndex]:
    return lambda: IvfIndex.from_arrays(index.arrays() | changes)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    index = IvfIndex(8)
    index.build(clustered(40, 8))
    arrays = index.arrays()
    header, fewer = arrays["header"].copy(), arrays["header"].copy()
    header[-2], fewer[-1] = 7, 39
    with pytest.raises(CorruptFileError, match="39 ids"):
        _broken(index, header=fewer)()
    for name, changed in {
        "header": header,
        "extra": arrays["extra"][:-1],
        "blocks": arrays["blocks"][:-1],
        "vectors": arrays["vectors"][:, :-1],
        "mean": arrays["mean"][:-1],
    }.items():
        with pytest.raises(CorruptFileError):
            _broken(index, **{name: changed})()


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 0},
        {"bits": 9},
        {"rerank": "disk"},
        {"quantization": "sq8"},
        {"quantization": "none", "bits": 4},
        {"quantization": "none", "rerank": "none"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        IvfIndex(8, **options)
    assert "must be" in str(caught.value) or "need" in str(caught.value)
