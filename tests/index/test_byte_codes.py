"""Exact search by way of codes of one byte, against its plain form."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.index.samples import METRICS, assert_exact, awkward_vectors, clustered
from vecdb.errors import InvalidParameterError
from vecdb.index import ByteCodes, HnswIndex, Queries, RowFilter
from vecdb.index.rows import frozen
from vecdb.kernels.byte_scan import FACTS, NORM, REST, STEP, encode_bytes
from vecdb.types import Metric


@pytest.mark.parametrize("metric", METRICS)
@given(vectors=awkward_vectors(), k=st.integers(1, 12), queries=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_finds_what_the_plain_form_finds(
    metric: str, vectors: np.ndarray, k: int, queries: int, data: st.DataObject
) -> None:
    mask = data.draw(st.none() | st.just(np.arange(len(vectors)) % 3 != 1))
    wanted = vectors[np.arange(queries) % len(vectors)][::-1].copy() + np.float32(0.01)
    allowed = None if mask is None else RowFilter(mask)
    codes = ByteCodes(Metric(metric))
    first = data.draw(st.integers(0, len(vectors)))  # the rest is appended after a search
    asked = Queries(wanted, Metric(metric))
    codes.search(asked, vectors[:first], k)
    answer = codes.search(asked, vectors, k, allowed, threads=2)
    assert_exact(metric, wanted, vectors, k, mask, answer)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 63, 64, 65, 1_000])
def test_rows_that_are_nearly_alike_are_told_apart(metric: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    middle = rng.standard_normal(dim)
    vectors = (middle + 1e-3 * rng.standard_normal((3_000, dim))).astype(np.float32)
    queries = (middle + 1e-3 * rng.standard_normal((3, dim))).astype(np.float32)
    asked = Queries(queries, Metric(metric))
    _, found = ByteCodes(Metric(metric)).search(asked, vectors, 5)
    _, expected = naive.nearest(metric, queries, vectors, 5)
    scale = np.abs(naive.distances(metric, queries, vectors)).max()
    np.testing.assert_allclose(found, expected, atol=1e-6 * (1 + scale))


@pytest.mark.parametrize("magnitude", [1e-25, 1e-12, 1.0, 1e12])
def test_cosine_takes_vectors_of_any_length(magnitude: float) -> None:
    vectors, queries = clustered(200, 24) * np.float32(magnitude), clustered(3, 24, seed=1)
    asked = Queries(queries, Metric.COSINE)
    _, found = ByteCodes(Metric.COSINE).search(asked, vectors, 7)
    _, expected = naive.nearest("cosine", queries, vectors, 7)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_l2_keeps_its_digits_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.integers(-8, 8, (50, 20)) / 8 + 4096).astype(np.float32)
    rows, found = ByteCodes(Metric.L2).search(Queries(vectors[:5], Metric.L2), vectors, 3)
    expected_rows, expected = naive.nearest("l2", vectors[:5], vectors, 3)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_the_greatest_k_returns_everything_in_order() -> None:
    vectors = clustered(300, 8)
    rows, found = ByteCodes(Metric.L2).search(Queries(vectors[:2], Metric.L2), vectors, 10_000)
    expected_rows, _ = naive.nearest("l2", vectors[:2], vectors, 300)
    np.testing.assert_array_equal(rows[:, :300], expected_rows)
    assert (rows[:, 300:] == -1).all()
    assert np.isinf(found[:, 300:]).all()


@given(vectors=awkward_vectors())
@settings(max_examples=60, deadline=None)
def test_the_facts_of_a_row_bound_what_its_code_leaves_out(vectors: np.ndarray) -> None:
    count, dim = vectors.shape
    codes = np.zeros((count, 64 * (-(-dim // 64))), np.uint8)
    facts, inverse_norms = np.zeros((count, FACTS), np.float32), np.zeros(count, np.float32)
    encode_bytes(frozen(vectors), 0, count, codes, facts, inverse_norms)
    decoded = (codes[:, :dim].astype(np.float64) - 128) * facts[:, [STEP]]
    apart = np.linalg.norm(vectors.astype(np.float64) - decoded, axis=1)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(facts[:, REST], apart, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(facts[:, NORM], norms, rtol=1e-6, atol=1e-37)


def test_nothing_to_find_is_answered_with_padding() -> None:
    queries, empty = Queries(clustered(3, 6), Metric.L2), np.empty((0, 6), np.float32)
    nothing = RowFilter(np.zeros(9, np.bool_))
    for rows, found in (
        ByteCodes(Metric.L2).search(queries, empty, 4),
        ByteCodes(Metric.L2).search(queries, clustered(9, 6), 4, nothing),
    ):
        assert (rows == -1).all()
        assert np.isinf(found).all()
        assert rows.shape == found.shape == (3, 4)


def test_codes_are_made_once_and_counted() -> None:
    codes = ByteCodes(Metric.DOT)
    vectors = clustered(5_000, 40)
    asked = Queries(vectors[:1], Metric.DOT)
    assert codes.memory_bytes == 0
    codes.search(asked, vectors[:10], 1)
    first = codes.memory_bytes
    assert first >= 10 * 64
    codes.search(asked, vectors[:20], 1)
    assert codes.memory_bytes == first
    codes.search(asked, vectors, 1)
    assert codes.memory_bytes >= 5_000 * 64
    rows, _ = codes.search(asked, vectors[:10], 1)  # fewer than have codes
    assert rows[0, 0] < 10


def test_threads_that_search_while_rows_come_in_find_what_they_asked_among() -> None:
    vectors = clustered(20_000, 16)
    codes, wrong = ByteCodes(Metric.L2), []

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for count in np.sort(rng.integers(1, len(vectors), 40)).tolist():
            asked = int(rng.integers(count))
            query = Queries(vectors[asked : asked + 1], Metric.L2)
            rows, found = codes.search(query, vectors[:count], 1)
            if not (0 <= rows[0, 0] < count and found[0, 0] == 0):
                wrong.append((count, asked, rows, found))

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_row_filter_is_as_good_as_the_array_it_was_made_of() -> None:
    vectors = clustered(300, 12)
    mask = np.arange(300) % 4 == 1
    allowed = RowFilter(mask)
    assert allowed.count == 75
    np.testing.assert_array_equal(allowed.rows(), np.flatnonzero(mask))
    index = HnswIndex(12, quantization="rabitq")
    index.build(vectors)
    for removed in (False, True):
        if removed:
            index.remove([1, 2, 5])
        given, prepared = (index.search(vectors[:5], 8, filter=f) for f in (mask, allowed))
        np.testing.assert_array_equal(given[0], prepared[0])
        np.testing.assert_array_equal(given[1], prepared[1])
        assert removed == (1 not in given[0])
    with pytest.raises(InvalidParameterError, match="one of 300 rows: must be one of 301"):
        RowFilter.of(allowed, 301)
