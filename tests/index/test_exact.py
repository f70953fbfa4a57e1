"""Exact search against its plain form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.index.samples import METRICS, assert_exact, awkward_vectors, clustered
from vecdb.index import FlatIndex


def flat(vectors: np.ndarray, metric: str) -> FlatIndex:
    index = FlatIndex(vectors.shape[1], metric)
    index.build(vectors)
    return index


@pytest.mark.parametrize("metric", METRICS)
@given(vectors=awkward_vectors(), k=st.integers(1, 12), queries=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_exact_search_finds_what_the_plain_form_finds(
    metric: str, vectors: np.ndarray, k: int, queries: int, data: st.DataObject
) -> None:
    mask = data.draw(st.none() | st.just(np.arange(len(vectors)) % 3 != 1))
    wanted = vectors[np.arange(queries) % len(vectors)][::-1].copy() + np.float32(0.01)
    answer = flat(vectors, metric).search(wanted, k, filter=mask)
    assert_exact(metric, wanted, vectors, k, mask, answer)


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_has_the_same_answer_in_any_batch_and_on_any_threads(metric: str) -> None:
    vectors, queries = clustered(700, 24), clustered(11, 24, seed=1)
    index = FlatIndex(24, metric)
    index.build(vectors)
    together = index.search(queries, 5)
    np.testing.assert_array_equal(index.search(queries, 5, threads=3)[1], together[1])
    for q, query in enumerate(queries):
        alone = index.search(query, 5)
        np.testing.assert_array_equal(alone[0][0], together[0][q])
        np.testing.assert_array_equal(alone[1][0], together[1][q])


def test_cosine_needs_no_unit_norm() -> None:
    vectors, queries = clustered(60, 10), clustered(4, 10, seed=1)
    rows, _ = flat(vectors, "cosine").search(queries, 7)
    np.testing.assert_array_equal(rows, naive.nearest("cosine", queries, vectors, 7)[0])


def test_l2_keeps_its_digits_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.integers(-8, 8, (50, 20)) / 8 + 4096).astype(np.float32)
    rows, found = flat(vectors, "l2").search(vectors[:5], 3)
    expected_rows, expected = naive.nearest("l2", vectors[:5], vectors, 3)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_no_vectors_and_no_match_are_answered_with_padding() -> None:
    nothing = np.zeros(9, np.bool_)
    for rows, found in (
        flat(clustered(9, 6), "l2").search(clustered(3, 6), 4, filter=nothing),
        FlatIndex(6).search(clustered(3, 6), 4),
    ):
        assert (rows == -1).all()
        assert np.isinf(found).all()
        assert rows.shape == found.shape == (3, 4)


def test_the_greatest_k_returns_everything_in_order() -> None:
    vectors = clustered(300, 8)
    rows, found = flat(vectors, "l2").search(vectors[:2], 10_000)
    expected_rows, _ = naive.nearest("l2", vectors[:2], vectors, 300)
    np.testing.assert_array_equal(rows[:, :300], expected_rows)
    assert (rows[:, 300:] == -1).all()
    assert np.isinf(found[:, 300:]).all()
