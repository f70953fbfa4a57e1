"""The space that coded graphs compare in is that of the rows there are, not of the first ones."""

import numpy as np
import pytest

from tests.index.samples import recall
from vecdb.index import FlatIndex, HnswIndex
from vecdb.index.coded_space import CodedSpace, Moments
from vecdb.kernels.jit import COMPILED
from vecdb.types import Metric

compiled = pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
EVERY_CODED = pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
EVERY_METRIC = pytest.mark.parametrize("metric", Metric)


def _vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 32), np.float32)


def _check(index: HnswIndex, rows: np.ndarray, metric: str) -> None:
    """Compare with what an index finds that has had no other rows."""
    queries, exact = _vectors(100, seed=1), FlatIndex(32, metric)
    exact.build(rows)
    truth, expected = exact.search(queries, 10)
    found, _ = index.search(queries, 10, ef=64)
    assert recall(found, truth) > 0.8
    _, distances = index.search(queries, 10, target_recall=0.999)
    squares = (rows**2).sum(axis=1).max() + (queries**2).sum(axis=1, keepdims=True)
    assert (np.abs(distances - expected) < 1e-4 * squares).mean() > 0.98


@compiled
@EVERY_CODED
@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_rows_that_take_the_place_of_all_others_have_a_space_of_their_own(
    metric: str, quantization: str
) -> None:
    rows = _vectors(3_000)
    before = rows + 100
    before[0] *= 300
    index = HnswIndex(32, metric, quantization=quantization)
    index.build(before)
    index.remove(np.arange(3_000))
    index.add(rows, ids=np.arange(3_000))
    _check(index, rows, metric)


@compiled
@EVERY_CODED
@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_one_odd_row_at_first_does_not_decide_for_good(metric: str, quantization: str) -> None:
    rows = _vectors(3_000)
    index = HnswIndex(32, metric, quantization=quantization)
    index.add(np.full((1, 32), 1e3, np.float32), ids=[9_000])
    index.add(rows[:1_500], ids=np.arange(1_500))
    index.remove([9_000])
    index.add(rows[1_500:], ids=np.arange(1_500, 3_000))
    _check(index, rows, metric)


@EVERY_METRIC
def test_a_space_that_suits_its_rows_is_kept(metric: Metric) -> None:
    rows = _vectors(400)
    space = CodedSpace.of(rows[:100] * 1.5 + 0.1, metric, 3)
    moments = Moments(space)
    for part in np.split(rows, 4):
        moments.include(space.place_vectors(part)[0])
    assert moments.suited() is space


@EVERY_METRIC
def test_a_space_moves_to_where_its_rows_are(metric: Metric) -> None:
    rows = _vectors(400) + 3
    before = CodedSpace.of(rows[:1] * -50, metric, 3)
    moments = Moments(before)
    coordinates, offsets = before.place_vectors(rows)
    moments.include(coordinates)
    space, expected = moments.suited(), CodedSpace.of(rows, metric, 3)
    np.testing.assert_allclose(space.centre, expected.centre, atol=1e-3)
    assert space.norm == pytest.approx(expected.norm, rel=1e-4)
    again, further = space.place_again(coordinates, offsets, before)
    true, true_offsets = space.place_vectors(rows)
    np.testing.assert_allclose(again, true, atol=1e-3)
    np.testing.assert_allclose(further, true_offsets, atol=0.1)


def test_equal_rows_stay_where_they_are() -> None:
    rows = np.full((50, 32), 1.1, np.float32)
    space = CodedSpace.of(rows, Metric.L2, 0)
    moments = Moments(space)
    moments.include(space.place_vectors(rows)[0] + np.float32(1e-5))
    assert moments.suited() is space
