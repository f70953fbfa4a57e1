"""What is particular to the graph: its construction, its invariants, its plans."""

from typing import Any

import numpy as np
import pytest

from tests import naive
from tests.index.samples import MANY, METRICS, check_graph, clustered, recall
from vecdb.errors import CorruptFileError
from vecdb.index import FlatIndex, HnswIndex, float_graph
from vecdb.index.base import METRIC_NUMBERS
from vecdb.index.hnsw_state import draw_levels
from vecdb.index.rows import frozen
from vecdb.index.scratch import make_scratch
from vecdb.kernels.graph import Graph, search_layer, start_pool
from vecdb.kernels.graph_build import select_neighbours
from vecdb.kernels.jit import COMPILED, kernel
from vecdb.kernels.pool import key_row, pack_key
from vecdb.types import Metric

EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)


def _never_scan(ef: int, allowed: int, rows: int) -> bool:
    return False


def _graph(metric: str, vectors: np.ndarray, links: np.ndarray) -> Graph:
    """Make a graph of one layer."""
    rows = np.hstack([vectors, links.view(np.float32)])
    nothing = frozen(np.empty((0, 2), np.int32))
    return Graph(
        frozen(rows), frozen(rows.view(np.int32)), nothing, frozen(np.empty(0, np.int32)),
        frozen(np.full(len(rows), -1, np.int32)),
        vectors.shape[1], links.shape[1], METRIC_NUMBERS[Metric(metric)],
    )  # fmt: skip


@kernel
def _search_one(graph, queries, q, entry, entry_distance, ef, scratch):  # type: ignore[no-untyped-def]
    start_pool(entry, entry_distance, scratch)
    return search_layer(graph, 0, queries, q, ef, 1, scratch)


@EVERY_METRIC
def test_a_layer_is_searched_as_algorithm_2_says(metric: str) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = clustered(150, 16), clustered(8, 16, seed=1)
    links = np.full((150, 6), -1, np.int32)
    for node in range(150):
        count = rng.integers(0, 7)
        links[node, :count] = rng.choice(150, count, replace=False)
    plain = {n: [int(link) for link in links[n] if link >= 0] for n in range(150)}
    graph, scratch = _graph(metric, vectors, links), make_scratch(150, 60, 6)
    form = "l2" if metric == "l2" else "dot"
    for ef in (1, 5, 60):
        for q in range(len(queries)):
            entry = int(rng.integers(150))
            there = naive.distance(form, queries[q], vectors[entry]) - (metric != "l2")
            size = _search_one(graph, frozen(queries), q, entry, np.float32(there), ef, scratch)
            found = [key_row(key) for key in scratch.pool[:size]]
            assert found == naive.search_layer(form, vectors, plain, queries[q], entry, ef)


@kernel
def _select(graph, keys, size, most, kept, scales):  # type: ignore[no-untyped-def]
    return select_neighbours(graph, 0, keys, size, most, kept, scales)


@EVERY_METRIC
@pytest.mark.parametrize(("candidates", "most"), [(3, 5), (5, 5), (40, 8), (60, 60)])
def test_neighbours_are_selected_as_algorithm_4_says(
    metric: str, candidates: int, most: int
) -> None:
    form = "l2" if metric == "l2" else "dot"
    for seed in range(10):
        vectors = clustered(80, 16, seed)
        order = np.argsort(naive.distances(form, vectors[:1], vectors)[0][1:])[:candidates] + 1
        keys = np.array(
            [
                pack_key(
                    np.float32(naive.distance(form, vectors[0], vectors[n]) - (form != "l2")), n
                )
                for n in order
            ]
        )
        kept = np.empty(most, np.int64)
        graph = _graph(metric, vectors, np.full((80, 2), -1, np.int32))
        count = _select(graph, keys, len(keys), most, kept, np.empty(most, np.float32))
        hiding = "cosine" if metric == "dot" else form  # unnormalised vectors: by direction
        expected = naive.select_neighbours(hiding, vectors, 0, order.tolist(), most)
        assert kept[:count].tolist() == expected


@EVERY_METRIC
@pytest.mark.parametrize("threads", [1, 4])
def test_graphs_keep_their_invariants_as_they_grow(metric: str, threads: int) -> None:
    vectors = clustered(MANY, 20)
    index = HnswIndex(20, metric, m=6, ef_construction=40)
    index.build(vectors[: MANY // 2], threads=threads)
    check_graph(index)
    index.add(vectors[MANY // 2 :], threads=threads)
    check_graph(index)
    index.remove(range(0, MANY, 3))
    index.add(vectors[::3], ids=range(0, MANY, 3), threads=threads)
    check_graph(index)


def test_one_thread_and_one_seed_make_one_graph() -> None:
    vectors = clustered(MANY, 12)

    def built(seed: int, vectors: np.ndarray) -> dict[str, np.ndarray]:
        index = HnswIndex(12, seed=seed)
        index.build(vectors)
        return index.arrays()

    first, second = built(5, vectors), built(5, vectors.copy())
    for name, array in first.items():
        np.testing.assert_array_equal(array.view(np.uint8), second[name].view(np.uint8))
    assert (built(6, vectors)["levels"] != first["levels"]).any()


def test_layers_thin_out_by_m_and_do_not_depend_on_batches() -> None:
    levels = draw_levels(1, 0, 200_000, 16)
    for level in (1, 2, 3):
        assert (levels >= level).mean() == pytest.approx(16.0**-level, rel=0.3)
    parts = [draw_levels(1, first, 1_000, 16) for first in (0, 1_000)]
    np.testing.assert_array_equal(np.concatenate(parts), levels[:2_000])


def test_hardly_a_node_is_left_that_no_other_leads_to() -> None:
    index = HnswIndex(20, "l2")
    index.build(clustered(MANY, 20))
    links = index.arrays()["rows"].view(np.int32)[:, 32:64]
    assert len(np.unique(links[links >= 0])) > 0.99 * MANY


@pytest.mark.skipif(not COMPILED, reason="without the JIT one thread builds")
@EVERY_METRIC
def test_threads_build_as_good_a_graph(metric: str) -> None:
    vectors, queries = clustered(8_000, 24), clustered(200, 24, seed=1)
    exact = FlatIndex(24, metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    found = {}
    for threads, builds in ((1, 1), (4, 4)):  # those of several threads differ by chance
        recalls = []
        for _ in range(builds):
            index = HnswIndex(24, metric, m=8, ef_construction=60)
            index.build(vectors, threads=threads)
            recalls.append(recall(index.search(queries, 10, ef=30)[0], truth))
        found[threads] = np.mean(recalls)
    assert found[4] > found[1] - 0.03


def test_few_matches_are_scanned_and_many_walked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert float_graph.scan_is_cheaper(64, 0, 100_000)
    assert float_graph.scan_is_cheaper(64, 1_000, 100_000)
    assert not float_graph.scan_is_cheaper(64, 50_000, 100_000)
    assert not float_graph.scan_is_cheaper(64, 100_000, 100_000)
    assert float_graph.scan_is_cheaper(64, 500, 500)
    vectors = clustered(MANY, 8)
    index = HnswIndex(8)
    index.build(vectors)
    calls = []

    def scanned(self: Any, queries: np.ndarray, k: int, allowed: Any, threads: int) -> Any:
        calls.append(len(queries))
        return np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)

    monkeypatch.setattr(float_graph.FloatGraph, "_scan", scanned)
    mask = np.zeros(MANY, np.bool_)
    mask[:5] = True
    index.search(vectors[:3], 2, filter=mask)
    assert calls == [3]
    monkeypatch.setattr(float_graph, "scan_is_cheaper", _never_scan)
    index.search(vectors[:3], 2)
    assert calls == [3]
    # The walk sees more nodes than match before it has found them all, and is given up.
    index.search(vectors[:3], 5, ef=5, filter=mask)
    assert calls == [3, 3]


@EVERY_METRIC
@pytest.mark.parametrize("kind", ["one value often", "each value often", "all equal", "grid"])
@pytest.mark.parametrize("threads", [1, 4])
def test_equal_vectors_are_all_found(
    metric: str, kind: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_graph, "scan_is_cheaper", _never_scan)
    rng = np.random.default_rng(0)
    vectors = clustered(MANY, 8)
    if kind == "one value often":
        vectors[rng.random(MANY) < 0.3] = vectors[0]
    elif kind == "each value often":
        vectors = vectors[rng.integers(0, MANY // 50, MANY)]
    elif kind == "all equal":
        vectors[:] = vectors[0]
    else:
        vectors = (rng.integers(0, 3, (MANY, 4)) + 1).astype(np.float32)
    queries = vectors[:: MANY // 30] + np.float32(0.05)
    index, exact = HnswIndex(vectors.shape[1], metric), FlatIndex(vectors.shape[1], metric)
    index.build(vectors[: MANY // 2], threads=threads)
    index.add(vectors[MANY // 2 :], threads=threads)
    exact.build(vectors)
    check_graph(index)
    for mask in (None, rng.random(MANY) < 0.4):
        _, truth = exact.search(queries, 20, filter=mask)
        ids, found = index.search(queries, 20, ef=60, filter=mask)
        assert mask is None or mask[ids].all()
        # Under dot a vector may lose all links to longer ones, and with it what is equal to it.
        least = 0.85 if metric == "dot" and threads > 1 else 0.97
        assert (np.abs(found - truth) <= 1e-5 * (1 + np.abs(truth))).mean() > least


def test_a_removed_vector_does_not_hide_its_twins() -> None:
    vectors = np.repeat(clustered(20, 6), 3, axis=0)
    index = HnswIndex(6, "l2")
    index.build(vectors)
    index.remove(range(0, 60, 3))
    ids, found = index.search(vectors[::3], 2)
    assert (found == 0).all()
    assert not (ids % 3 == 0).any()


def test_nodes_that_cannot_be_reached_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_graph, "scan_is_cheaper", _never_scan)
    index = HnswIndex(4)
    index.build(clustered(60, 4))
    arrays = {name: array.copy() for name, array in index.arrays().items()}
    arrays["rows"].view(np.int32)[:, 16:48] = -1
    arrays["upper"][:] = -1
    cut = HnswIndex.from_arrays(arrays)
    vectors = clustered(60, 4)
    np.testing.assert_array_equal(cut.search(vectors, 3)[0], index.search(vectors, 3, ef=60)[0])


def test_arrays_are_used_where_they_are_until_something_is_added() -> None:
    vectors = clustered(300, 16)
    index = HnswIndex(16)
    index.build(vectors)
    arrays = {name: frozen(array.copy()) for name, array in index.arrays().items()}
    taken = HnswIndex.from_arrays(arrays)
    assert np.shares_memory(taken.arrays()["rows"], arrays["rows"])
    np.testing.assert_array_equal(taken.search(vectors, 5)[0], index.search(vectors, 5)[0])
    taken.remove([4])
    assert arrays["alive"].all()
    taken.add(vectors[:3])
    assert not np.shares_memory(taken.arrays()["rows"], arrays["rows"])
    check_graph(taken)


def test_an_entry_point_that_is_none_is_refused() -> None:
    index = HnswIndex(4)
    index.build(clustered(50, 4))
    arrays = index.arrays()
    for place, value in ((7, 50), (7, -1), (8, 25)):
        header = arrays["header"].copy()
        header[place] = value
        with pytest.raises(CorruptFileError, match="entry point"):
            HnswIndex.from_arrays(arrays | {"header": header})


def test_parameters_survive_saving(tmp_path: Any) -> None:
    index = HnswIndex(5, "dot", m=7, ef_construction=33, seed=9)
    index.add(clustered(10, 5))
    index.save(tmp_path / "i")
    loaded = HnswIndex.load(tmp_path / "i")
    assert (loaded.dim, loaded.metric, loaded.m, loaded.ef_construction, loaded.seed) == (
        5, Metric.DOT, 7, 33, 9,
    )  # fmt: skip
