"""Rows that come in an order, or from elsewhere, are found as if they had come at once."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.index.samples import recall
from vecdb.index import FlatIndex, HnswIndex, IvfIndex
from vecdb.index.drift import Landmarks, usual_distance
from vecdb.index.list_drift import ListDrift
from vecdb.kernels.jit import COMPILED

Make = Callable[[int], HnswIndex | IvfIndex]
MAKERS: dict[str, Make] = {
    "rabitq": lambda dim: HnswIndex(dim, "l2", quantization="rabitq"),
    "sq8": lambda dim: HnswIndex(dim, "l2", quantization="sq8"),
    "lists": lambda dim: IvfIndex(dim, "l2"),
}
EVERY_CODED = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
compiled = pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")


@compiled
@EVERY_CODED
def test_rows_from_elsewhere_are_found(make: Make) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6_000, 32), np.float32)
    later, queries = (
        30 + 0.05 * rng.standard_normal((count, 32), np.float32) for count in (2_900, 200)
    )
    index, exact = make(32), FlatIndex(32, "l2")
    for each in (index, exact):
        each.add(first)
        each.add(later)
    truth, _ = exact.search(queries, 10)
    assert recall(index.search(queries, 10, target_recall=0.95)[0], truth) > 0.92


@compiled
@EVERY_CODED
def test_clusters_that_come_one_after_the_other_are_found(make: Make) -> None:
    rng = np.random.default_rng(1)
    centres = 2 * rng.standard_normal((12, 24), np.float32)
    rows = np.repeat(centres, 500, axis=0) + 0.3 * rng.standard_normal((6_000, 24), np.float32)
    queries = centres[rng.integers(0, 12, 200)] + 0.3 * rng.standard_normal((200, 24), np.float32)
    index, exact = make(24), FlatIndex(24, "l2")
    exact.build(rows)
    for start in range(0, len(rows), 250):
        index.add(rows[start : start + 250])
    truth, _ = exact.search(queries, 10)
    assert recall(index.search(queries, 10, target_recall=0.95)[0], truth) > 0.86


def _around(centres: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    noise = 0.4 * rng.standard_normal((count, centres.shape[1]), np.float32)
    return centres[rng.integers(0, len(centres), count)] + noise


@compiled
@pytest.mark.parametrize(
    ("options", "at_once", "bit_by_bit"),
    [({"quantization": "none"}, 0.93, 0.93), ({}, 0.93, 0.93), ({"rerank": "none"}, 0.9, 0.65)],
    ids=str,
)
def test_lists_all_of_whose_rows_were_replaced_suit_the_new_ones(
    options: dict[str, str], at_once: float, bit_by_bit: float
) -> None:
    rng = np.random.default_rng(8)
    count, dim = 6_000, 48
    first = _around(3 + 2 * rng.standard_normal((40, dim), np.float32), count, rng)
    centres = 2 * rng.standard_normal((40, dim), np.float32)
    rows, queries = _around(centres, count, rng), _around(centres, 200, rng)
    exact = FlatIndex(dim, "l2")
    exact.build(rows)
    truth, _ = exact.search(queries, 10)
    for batches, least in ((1, at_once), (10, bit_by_bit)):
        index = IvfIndex(dim, "l2", **options)
        index.build(first)
        for part in np.array_split(np.arange(count), batches):
            index.remove(part)
            index.add(rows[part], ids=part)
        kept = options.get("rerank") != "none"
        how = {"target_recall": 0.95} if kept else {"nprobe": index.list_count}
        assert recall(index.search(queries, 10, **how)[0], truth) > least
        assert index.add(rows[:1]) == 2 * count, "an id that none ever had"


@compiled
@pytest.mark.parametrize(
    "make",
    [
        lambda dim: IvfIndex(dim, "l2", quantization="none"),
        lambda dim: IvfIndex(dim, "l2"),
        lambda dim: HnswIndex(dim, "l2"),
    ],
    ids=["float lists", "lists", "float graph"],
)
def test_rows_in_more_dimensions_than_the_first_are_found(make: Make) -> None:
    rng = np.random.default_rng(1)
    dim = 32
    flat = rng.standard_normal((5_500, 3), np.float32) @ rng.standard_normal((3, dim), np.float32)
    full, queries = (1.7 * rng.standard_normal((n, dim), np.float32) for n in (5_000, 300))
    index, exact = make(dim), FlatIndex(dim, "l2")
    index.build(flat)
    for part in np.array_split(full, 10):
        index.add(part)
    exact.build(np.concatenate([flat, full]))
    truth, _ = exact.search(queries, 10)
    assert recall(index.search(queries, 10, target_recall=0.98)[0], truth) > 0.92


def test_rows_beyond_the_share_of_a_list_are_strays_of_lists() -> None:
    rng = np.random.default_rng(3)
    centroids = rng.standard_normal((50, 8), np.float32)
    length = np.full(50, 20)
    drift = ListDrift(centroids)
    assert drift.strays(length) == 0
    assigned = np.arange(1_000) % 50
    drift.watch(centroids[assigned], assigned, length)
    assert drift.strays(length + 20) == 0
    crowded = length + 1_000 * (np.arange(50) == 7)
    assert 600 < drift.strays(crowded) < 1_000
    drift.watch(100 + centroids[:30], np.arange(30), length)
    assert drift.strays(length) == 30


def test_strays_are_those_far_from_every_landmark() -> None:
    rng = np.random.default_rng(2)
    points = rng.standard_normal((300, 8), np.float32)
    landmarks = Landmarks(points, 2.0)
    assert landmarks.count_strays(points) == 0
    alike = landmarks.count_strays(rng.standard_normal((1_000, 8), np.float32))
    assert alike < 20
    assert landmarks.count_strays(20 + points) == 300
    assert landmarks.count_strays(np.concatenate([points, 20 + points[:7]])) == 7
    assert landmarks.count_strays(points[:0]) == 0


def test_of_one_landmark_nothing_can_be_told() -> None:
    assert Landmarks(np.zeros((1, 3), np.float32), 2.0).count_strays(np.ones((4, 3), "f4")) == 0


def test_what_is_usual_is_told_by_nearly_all_points() -> None:
    points = np.arange(300, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    assert usual_distance(points) == pytest.approx(4)
    points[-1] = 1e4
    assert usual_distance(points) == pytest.approx(4)
    assert usual_distance(points[:1]) == np.inf
