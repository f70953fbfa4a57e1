"""The flat graph that is built all at once: what holds for every graph, and how good one is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.samples import METRICS, awkward_vectors, clustered
from vecdb.index.graph_bulk import BulkGraph, BulkSettings, bulk_graph
from vecdb.index.graph_carve import carve, words_of
from vecdb.index.rows import frozen
from vecdb.index.workers import Workers
from vecdb.kernels.graph_bulk import measure_keys
from vecdb.kernels.jit import COMPILED
from vecdb.kernels.pool import key_distance, key_row, pack_key, pack_keys
from vecdb.types import Metric

MANY = 2_000 if COMPILED else 120
SMALL = BulkSettings(leaf=64, rounds=2, listed=96)
"""Settings under which few rows go through every step."""


def check(graph: BulkGraph, vectors: np.ndarray, metric: str, degree: int) -> None:
    """Every promise about a graph."""
    count = len(vectors)
    assert graph.neighbours.shape == (count, degree)
    assert graph.neighbours.dtype == graph.twins.dtype == graph.order.dtype == np.int32
    space = vectors + np.float32(0)
    if metric == "cosine":
        space = space / np.linalg.norm(space.astype(np.float64), axis=1, keepdims=True)
        space = space.astype(np.float32)
    behind = np.zeros(count, np.bool_)
    before = np.flatnonzero(graph.twins >= 0)
    assert (graph.twins[before] > before).all()
    behind[graph.twins[before]] = True
    assert behind.sum() == len(before), "a row behind two others"
    tolerance = 1e-6 if metric == "cosine" else 0
    np.testing.assert_allclose(space[before], space[graph.twins[before]], rtol=tolerance)
    nodes = np.flatnonzero(~behind)
    if metric != "cosine":
        assert len(nodes) == len(np.unique(space, axis=0)), "equal rows that are no twins"
    assert sorted(graph.order.tolist()) == nodes.tolist()
    assert (graph.neighbours[behind] == -1).all()
    for node in nodes.tolist():
        links = graph.neighbours[node]
        used = links[links >= 0]
        assert len(used) == min(degree, len(nodes) - 1)
        assert (links[: len(used)] >= 0).all()
        assert len(set(used.tolist())) == len(used)
        assert node not in used
        assert not behind[used].any()
    assert not behind[graph.entry]
    reached, todo = {graph.entry}, [graph.entry]
    while todo:
        for other in graph.neighbours[todo.pop()].tolist():
            if other >= 0 and other not in reached:
                reached.add(other)
                todo.append(other)
    assert reached == set(nodes.tolist())


@settings(max_examples=60 if COMPILED else 15, deadline=None)
@given(awkward_vectors(), st.sampled_from(METRICS))
def test_awkward_rows(vectors: np.ndarray, metric: str) -> None:
    check(bulk_graph(vectors, Metric(metric), 32), vectors, metric, 32)


@settings(max_examples=20 if COMPILED else 4, deadline=None)
@given(awkward_vectors(least=100, most=300), st.sampled_from(METRICS))
def test_more_awkward_rows(vectors: np.ndarray, metric: str) -> None:
    graph = bulk_graph(vectors, Metric(metric), 32, settings=SMALL)
    check(graph, vectors, metric, 32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 2, 100, 200])
def test_any_dimension(metric: str, dim: int) -> None:
    vectors = clustered(MANY // 5, dim)
    check(bulk_graph(vectors, Metric(metric), 32, settings=SMALL), vectors, metric, 32)


def test_no_rows() -> None:
    graph = bulk_graph(np.empty((0, 5), np.float32), Metric.L2, 32)
    assert graph.neighbours.shape == (0, 32)
    assert graph.entry == -1


@pytest.mark.parametrize("count", [1, 2, 3, 32, 33, 34, 40, 65, 66])
@pytest.mark.parametrize("degree", [6, 32, 64])
def test_few_rows(count: int, degree: int) -> None:
    vectors = clustered(count, 7)
    check(bulk_graph(vectors, Metric.L2, degree), vectors, "l2", degree)


@pytest.mark.parametrize("metric", METRICS)
def test_all_rows_equal(metric: str) -> None:
    vectors = np.full((MANY, 5), 2.5, np.float32)
    graph = bulk_graph(vectors, Metric(metric), 32)
    check(graph, vectors, metric, 32)
    assert graph.twins.tolist() == [*range(1, MANY), -1]


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates(metric: str) -> None:
    """30 % of the rows are copies, and one row is there more often than a node has links."""
    rng = np.random.default_rng(0)
    vectors = clustered(MANY, 16)
    copies = rng.choice(MANY, MANY * 3 // 10, replace=False)
    vectors[copies] = vectors[rng.integers(0, MANY, len(copies))]
    vectors[rng.choice(MANY, 60, replace=False)] = vectors[7]
    check(bulk_graph(vectors, Metric(metric), 32, settings=SMALL), vectors, metric, 32)


def test_rows_almost_equal() -> None:
    """Leaders cannot part rows like these, and squares of their differences almost vanish."""
    rng = np.random.default_rng(0)
    vectors = np.ones((MANY, 8), np.float32)
    vectors += rng.integers(0, 3, vectors.shape).astype(np.float32) * np.float32(1e-6)
    vectors[: MANY // 2] += 3
    check(bulk_graph(vectors, Metric.L2, 32, settings=SMALL), vectors, "l2", 32)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
@pytest.mark.parametrize("metric", METRICS)
def test_extreme_scales(scale: float, metric: str) -> None:
    vectors = (clustered(150, 8).astype(np.float64) * scale).astype(np.float32)
    check(bulk_graph(vectors, Metric(metric), 32, settings=SMALL), vectors, metric, 32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1, 5, MANY // 2])
def test_a_cluster_far_away_is_found(metric: str, size: int) -> None:
    vectors = clustered(MANY, 16)
    far = clustered(size, 16, seed=1)
    vectors[:size] = far * 0.01 + (np.arange(16) == 3) * 100
    graph = bulk_graph(vectors, Metric(metric), 32, settings=SMALL)
    check(graph, vectors, metric, 32)
    found = _search(graph, vectors, metric, vectors[: min(size, 20)], 16)
    assert all(row < size for row in found)


def _scores(vectors: np.ndarray, metric: str, query: np.ndarray) -> np.ndarray:
    """Less for nearer rows."""
    if metric == "l2":
        return np.asarray(((vectors - query) ** 2).sum(axis=1))
    lengths = np.linalg.norm(vectors, axis=1) if metric == "cosine" else 1
    return np.asarray(-(vectors @ query) / lengths)


def _search(
    graph: BulkGraph, vectors: np.ndarray, metric: str, queries: np.ndarray, ef: int
) -> list[int]:
    """The nearest row found of each query, by a search that keeps `ef` nodes."""
    nearest = []
    for query in queries:
        scores = _scores(vectors, metric, query)
        seen, expanded = {graph.entry}, set()
        while True:
            best = sorted(seen, key=lambda row: (scores[row], row))[:ef]
            todo = [row for row in best if row not in expanded]
            if not todo:
                break
            expanded.add(todo[0])
            seen.update(row for row in graph.neighbours[todo[0]].tolist() if row >= 0)
        nearest.append(best[0])
    return nearest


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_row_is_found(metric: str) -> None:
    both = clustered(MANY + 60, 24)
    vectors, queries = both[60:], both[:60]
    graph = bulk_graph(vectors, Metric(metric), 32, settings=SMALL)
    found = _search(graph, vectors, metric, queries, 16)
    truth = [int(np.argmin(_scores(vectors, metric, query))) for query in queries]
    assert np.mean(np.array(found) == truth) >= 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_depends_on_the_seed_and_not_on_threads(metric: str) -> None:
    vectors = clustered(MANY if COMPILED else MANY // 2, 16)
    vectors.flags.writeable = False
    one, three, same, other = (
        bulk_graph(vectors, Metric(metric), 32, workers=Workers(threads), seed=seed, settings=SMALL)
        for threads, seed in ((1, 5), (3, 5), (2, 5), (2, 6))
    )
    for graph in (three, same):
        np.testing.assert_array_equal(one.neighbours, graph.neighbours)
        np.testing.assert_array_equal(one.order, graph.order)
        assert one.entry == graph.entry
    if COMPILED:  # without the JIT there are too few rows for leaders to be drawn
        assert (one.neighbours != other.neighbours).any()


@pytest.mark.parametrize("fanouts", [(1,), (2, 1), (4, 2)])
def test_leaves_cover_all_rows_and_are_neither_small_nor_large(fanouts: tuple[int, ...]) -> None:
    vectors = np.zeros((MANY, 16), np.float32)
    vectors[:, :5] = clustered(MANY, 5)
    vectors[: MANY // 3, 0] = 50
    words, workers = words_of(vectors, Workers(2)), Workers(2)
    leaves, far = carve(words, leaf=64, least=20, fanouts=fanouts, seed=[1], workers=workers)
    assert set(np.concatenate(leaves).tolist()) == set(range(MANY))
    for leaf in leaves:
        assert 20 <= len(leaf) <= 84
        assert (np.diff(leaf) > 0).all()
    assert far.shape == (MANY, fanouts[0])
    about = far.copy()
    measure_keys(vectors, frozen(np.zeros(MANY, np.float32)), far)
    for row in range(0, MANY, 37):
        for key, coarse in zip(far[row], about[row], strict=True):
            there = float(((vectors[row] - vectors[key_row(key)]) ** 2).sum())
            assert key_distance(key) == pytest.approx(there, rel=1e-5)
            assert key_distance(coarse) == pytest.approx(there, rel=0.05, abs=1e-4)


def test_keys_of_arrays_are_those_of_numbers() -> None:
    distances = np.array([0.0, 1e-30, 0.5, 3e38], np.float32)
    rows = np.array([0, 5, 2**30, 2**31 - 1], np.int32)
    expected = [int(_pack(d, r)) for d, r in zip(distances, rows.tolist(), strict=True)]
    assert pack_keys(distances, rows).tolist() == expected


def _pack(distance: np.float32, row: int) -> int:
    return int(pack_key(distance, row))
