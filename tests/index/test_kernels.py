"""Each kernel against its plain form in `tests.naive`."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.index.samples import METRICS, awkward_vectors
from vecdb.index.base import METRIC_NUMBERS
from vecdb.index.rows import frozen
from vecdb.kernels import bitset, distance, heap, kmeans, pool
from vecdb.kernels.jit import kernel
from vecdb.types import Metric

FLOATS = st.floats(width=32, allow_nan=False)


@kernel
def _all_pairs(metric, queries, rows, dim, out_one, out_four):  # type: ignore[no-untyped-def]
    for q in range(queries.shape[0]):
        for r in range(rows.shape[0]):
            out_one[q, r] = distance.distance(metric, queries, q, rows, r, dim)
    for q in range(0, queries.shape[0] - 3, 4):
        for r in range(rows.shape[0]):
            eight = distance.distances_four_by_two(metric, queries, q, rows, r, r, dim)
            for i in range(4):
                out_four[q + i, r] = eight[2 * i]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 31, 100, 384, 4096])
def test_distances_equal_the_plain_form_however_they_are_computed(metric: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    queries = rng.standard_normal((4, dim)).astype(np.float32)
    rows = rng.standard_normal((3, dim + 5)).astype(np.float32)
    one, four = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)
    _all_pairs(METRIC_NUMBERS[Metric(metric)], frozen(queries), frozen(rows), dim, one, four)
    plain = naive.distances("l2" if metric == "l2" else "dot", queries, rows[:, :dim])
    expected = plain if metric == "l2" else plain - 1
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(one, four)


@kernel
def _offer_all(values, capacity, keys):  # type: ignore[no-untyped-def]
    size = 0
    for row in range(len(values)):
        size = pool.offer(keys, size, capacity, values[row], row)
    return size


@given(st.lists(FLOATS, max_size=60), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_a_pool_keeps_the_best_in_order(values: list[float], capacity: int) -> None:
    keys = np.empty(capacity, np.int64)
    size = _offer_all(np.array(values, np.float32), capacity, keys)
    kept = [(pool.key_distance(key), pool.key_row(key)) for key in keys[:size]]
    # 0.0 and -0.0 are equal, but have different keys.
    signed = sorted((v, np.signbit(np.float32(v)) == 0, i) for i, v in enumerate(values))
    assert kept == [(np.float32(v), i) for v, _, i in signed[:capacity]]


@kernel
def _push_and_pop_all(keys, memory, out):  # type: ignore[no-untyped-def]
    size = 0
    for i in range(len(keys)):
        size = heap.heap_push(memory, size, keys[i])
    for i in range(len(keys)):
        out[i], size = heap.heap_pop(memory, size)


@given(st.lists(st.integers(-(2**62), 2**62), max_size=80))
@settings(max_examples=60, deadline=None)
def test_a_heap_gives_keys_back_in_order(values: list[int]) -> None:
    keys = np.array(values, np.int64)
    out = np.empty_like(keys)
    _push_and_pop_all(keys, np.empty(len(keys) + 1, np.int64), out)
    assert out.tolist() == heapq.nsmallest(len(values), values)


@kernel
def _read_bits(bits, count, out):  # type: ignore[no-untyped-def]
    for row in range(count):
        out[row] = bitset.has_bit(bits, row)


@given(st.lists(st.booleans(), max_size=70))
@settings(max_examples=40, deadline=None)
def test_a_bitset_is_the_mask_it_was_made_of(values: list[bool]) -> None:
    mask = np.array(values, np.bool_)
    bits = bitset.pack_mask(mask)
    out = np.empty(len(mask), np.bool_)
    _read_bits(bits, len(mask), out)
    assert out.tolist() == values
    assert bitset.count_bits(bits) == sum(values)


@given(awkward_vectors(least=2))
@settings(max_examples=30, deadline=None)
def test_assignment_is_to_a_nearest_centroid(vectors: np.ndarray) -> None:
    centroids = np.ascontiguousarray(vectors[::2])
    chosen = kmeans.assign(vectors, centroids)
    table = naive.distances("l2", vectors, centroids)
    norms = (vectors.astype(np.float64) ** 2).sum(1).max()
    assert (table[np.arange(len(vectors)), chosen] <= table.min(1) + 1e-5 * (1 + norms)).all()


def test_kmeans_brings_centroids_nearer_and_is_deterministic() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((8, 16)) * 5
    vectors = np.repeat(centres, 25, axis=0) + rng.standard_normal((200, 16))
    vectors = vectors.astype(np.float32)

    def found(iterations: int) -> np.ndarray:
        rng = np.random.default_rng(3)
        return kmeans.kmeans(vectors, 8, iterations=iterations, spherical=False, rng=rng)

    def mean_distance(centroids: np.ndarray) -> float:
        return float(naive.distances("l2", vectors, centroids).min(1).mean())

    np.testing.assert_array_equal(found(10), found(10))
    assert mean_distance(found(10)) < 0.8 * mean_distance(found(0))


def test_kmeans_splits_clusters_rather_than_leave_one_empty() -> None:
    vectors = np.ones((40, 4), np.float32)
    vectors[:20] += np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    centroids = kmeans.kmeans(
        vectors, 10, iterations=20, spherical=False, rng=np.random.default_rng(0)
    )
    assert len(np.unique(kmeans.assign(vectors, centroids))) >= 5
    assert np.isfinite(centroids).all()
