"""Which rows serve as queries, and that copies of rows do not make searches seem better."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.index.samples import clustered
from vecdb.index import FlatIndex, HnswIndex, IvfIndex
from vecdb.index.query_rows import draw_sample, hashes_of, hold_out
from vecdb.index.workers import Workers
from vecdb.kernels.jit import COMPILED

Make = Callable[[int], HnswIndex | IvfIndex]
MAKERS: dict[str, Make] = {
    "rabitq": lambda dim: HnswIndex(dim, "l2", quantization="rabitq"),
    "sq8": lambda dim: HnswIndex(dim, "l2", quantization="sq8"),
    "float graph": lambda dim: HnswIndex(dim, "l2"),
    "codes": lambda dim: IvfIndex(dim, "l2"),
    "lists": lambda dim: IvfIndex(dim, "l2", quantization="none"),
}


def _hashes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint64) + np.uint64(7)


def test_a_sample_is_one_row_in_25() -> None:
    sample = draw_sample(np.arange(5, 9_005), 0)
    assert len(np.unique(sample)) == len(sample) == 360
    assert sample.min() >= 5
    assert draw_sample(np.arange(3), 0).size == 1
    assert draw_sample(np.arange(0), 0).size == 0


def test_of_few_rows_none_are_held_out() -> None:
    assert hold_out(np.arange(1_999), _hashes(np.arange(1_999)), 0).rows.size == 0
    later = np.arange(9_000) >= 7_001
    assert hold_out(np.arange(9_000), _hashes(np.arange(9_000)), 0, among=later).rows.size == 0


def test_rows_without_copies_are_held_out_by_themselves() -> None:
    rows = np.arange(5, 9_005)
    held = hold_out(rows, _hashes(rows), 0)
    np.testing.assert_array_equal(held.queries, draw_sample(rows, 0))
    np.testing.assert_array_equal(held.rows, np.sort(held.queries))


def test_all_copies_of_a_query_are_held_out_with_it() -> None:
    values = np.random.default_rng(0).integers(0, 1_000, 9_000)
    rows = np.arange(9_000) * 2
    held = hold_out(rows, _hashes(values), 0)
    drawn = values[held.queries // 2]
    assert len(np.unique(drawn)) == len(drawn) == 80
    np.testing.assert_array_equal(held.rows, rows[np.isin(values, drawn)])


def test_a_value_of_many_rows_is_not_drawn() -> None:
    values = np.maximum(np.arange(9_000) - 8_800, 0)
    held = hold_out(np.arange(9_000), _hashes(values), 0)
    assert len(held.rows) == 199 // 4
    assert held.rows.min() > 8_800


def test_rows_that_are_in_the_index_already_leave_their_copies_there() -> None:
    values = np.arange(9_000) % 4_000
    later = np.arange(9_000) >= 5_000
    held = hold_out(np.arange(9_000), _hashes(values), 0, among=later)
    assert held.rows.size == 0
    later = np.arange(9_000) >= 2_000
    held = hold_out(np.arange(9_000), _hashes(values), 0, among=later)
    assert held.rows.size > 0
    assert held.rows.min() >= 2_000
    assert (values[held.rows] >= 2_000).all()


def test_equal_vectors_have_equal_hashes() -> None:
    vectors = clustered(3_000, 5)
    hashes = hashes_of(vectors, Workers(2))
    assert len(np.unique(hashes)) == 3_000
    backwards = hashes_of(vectors[::-1], Workers(1))
    np.testing.assert_array_equal(hashes, backwards[::-1])
    zeros = np.zeros((2, 4), np.float32)
    assert len(np.unique(hashes_of(np.concatenate([zeros, -zeros]), Workers()))) == 1


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_new_queries_get_their_recall_where_rows_have_copies(make: Make, share: float) -> None:
    rng = np.random.default_rng(3)
    distinct, queries = np.split(
        rng.standard_normal((12_600, 24), np.float32), [int(12_000 * (1 - share))]
    )
    rows = np.concatenate([distinct, distinct[rng.integers(0, len(distinct), 12_000)]])[:12_000]
    index, exact = make(24), FlatIndex(24, "l2")
    index.build(rows[rng.permutation(12_000)], threads=2)
    exact.build(distinct)
    _, farthest = exact.search(queries[-600:], 1)
    luck = 0.03 if share < 0.5 else 0.06  # a hundred values are measured with, or so
    for target in (0.8, 0.9, 0.95):
        _, distances = index.search(queries[-600:], 1, target_recall=target)
        assert (distances <= farthest * 1.0002).mean() > target - luck, target
