"""Where searches of flat graphs start: also where rows lie in more clusters than are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.index.samples import MANY, check_graph, clustered, recall
from vecdb.errors import CorruptFileError
from vecdb.index import FlatIndex, HnswIndex, coded_seeds
from vecdb.index.coded_seeds import MOST_LOOKED_AT, check_seeds, cover_clusters
from vecdb.index.graph_bulk import BulkGraph, bulk_graph
from vecdb.index.workers import Workers
from vecdb.kernels.jit import COMPILED
from vecdb.kernels.walk import SEED_LISTS
from vecdb.types import Metric

CODED = pytest.mark.parametrize("quantization", ["rabitq", "sq8"])


def _lists(index: HnswIndex) -> int:
    """Of how many lists the seeds of an index are."""
    arrays = index.arrays()
    return len(arrays["seeds"]) if "seeds" in arrays else max(1, len(arrays["root"]) - 1)


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@CODED
def test_no_tight_cluster_goes_without_a_seed(
    quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded_seeds, "SEEDS", 64)
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((400, 24))
    vectors = centres[rng.integers(400, size=60_400)] + 0.1 * rng.standard_normal((60_400, 24))
    vectors, queries = vectors[:-400].astype(np.float32), vectors[-400:].astype(np.float32)
    index, exact = HnswIndex(24, "l2", quantization=quantization), FlatIndex(24, "l2")
    for each in (index, exact):
        each.build(vectors, threads=2)
    nearest = exact.search(queries, 10)[0]
    assert _lists(index) == 32
    for each in (index, HnswIndex.from_arrays(index.arrays())):
        rows, _ = each.search(queries, 10, target_recall=0.99)
        assert recall(rows, nearest) > 0.98, ".94 and .965 with the 64 drawn alone"


@CODED
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_graph_whose_seeds_are_in_lists_is_searched_and_changed_as_any_other(
    metric: str, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded_seeds, "SEEDS", 32)
    monkeypatch.setattr(coded_seeds, "_FAR", 0)  # no link is short: every row is a seed
    vectors, queries = clustered(MANY, 16), clustered(20, 16, seed=1)
    part = len(vectors) * 9 // 10
    index = HnswIndex(16, metric, quantization=quantization)
    index.build(vectors[:part])
    assert _lists(index) >= 32
    index.add(vectors[part:])
    index.remove(np.arange(0, len(vectors), 7))
    check_graph(index)
    live = np.arange(len(vectors)) % 7 > 0
    exact = FlatIndex(16, metric)
    exact.build(vectors)
    for each in (index, HnswIndex.from_arrays(index.arrays())):
        for allowed in (live, live & (np.arange(len(vectors)) % 2 > 0)):
            rows, _ = each.search(queries, 5, ef=100, filter=allowed)
            assert recall(rows, exact.search(queries, 5, filter=allowed)[0]) > 0.95
        rows, distances = each.search(queries, 1, ef=1)
        assert live[rows].all()
        assert np.isfinite(distances).all()


def test_each_seed_is_on_one_list_behind_its_leader() -> None:
    points = clustered(2_000, 8)
    points[:1_500] = points[0] + 1e-3 * points[:1_500]  # nearly all belong to one leader
    chosen = np.random.default_rng(0).permutation(len(points)).astype(np.int32)
    listed = coded_seeds._listed(points, chosen)
    assert sorted(listed[listed >= 0].tolist()) == list(range(len(points)))
    assert (listed[:, 0] == chosen[: len(listed)]).all()
    assert (np.diff((listed >= 0).astype(int), axis=1) <= 0).all(), "a gap in a list"
    check_seeds(listed, len(points))


def test_most_seeds_are_not_too_many_for_a_search() -> None:
    for count in (257, 1_025, 4_097, coded_seeds.MOST_SEEDS):
        points = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
        listed = coded_seeds._listed(points, np.arange(count, dtype=np.int32))
        assert listed.shape[1] * SEED_LISTS <= MOST_LOOKED_AT
        check_seeds(listed, count)


def _short_links(vectors: np.ndarray, graph: BulkGraph, far: float) -> np.ndarray:
    """Whether each link is short, by numpy."""
    away = vectors[graph.neighbours] - vectors[:, None]
    squares = np.where(graph.neighbours >= 0, (away**2).sum(axis=2), np.inf)
    typical = np.sort(squares, axis=1)[:, graph.neighbours.shape[1] // 32]
    return squares <= far * np.minimum(typical[:, None], typical[graph.neighbours])


def test_short_links_lead_from_the_seeds_to_every_node() -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((MANY // 50, 16))
    vectors = centres[rng.integers(len(centres), size=MANY)] + 0.02 * rng.standard_normal(
        (MANY, 16)
    )
    vectors = vectors.astype(np.float32)
    graph = bulk_graph(vectors, Metric.L2, 32)
    drawn = np.array([graph.entry], np.int32)
    chosen = cover_clusters(vectors, graph, drawn, Workers(2), np.random.default_rng(0))
    assert chosen[0] == graph.entry
    assert len(set(chosen.tolist())) == len(chosen) < len(vectors) // 5
    short = _short_links(vectors, graph, coded_seeds._FAR)
    reached = np.zeros(len(vectors), bool)
    pending = chosen.tolist()
    while pending:
        node = pending.pop()
        if not reached[node]:
            reached[node] = True
            pending.extend(graph.neighbours[node][short[node]].tolist())
    assert reached.all()


@pytest.mark.parametrize(
    "seeds",
    [
        None,
        np.zeros((1, 4), np.int64),
        np.zeros(4, np.int32),
        np.empty((0, 4), np.int32),
        np.full((1, 4), -1, np.int32),
        np.full((1, 4), 10, np.int32),
        np.full((1, 4), -2, np.int32),
        np.array([[1, 2], [-1, -1]], np.int32),
        np.zeros((1, MOST_LOOKED_AT + 1), np.int32),
        np.zeros((SEED_LISTS, MOST_LOOKED_AT // SEED_LISTS + 1), np.int32),
    ],
)
def test_seeds_from_a_file_are_refused_where_they_cannot_be_searched_from(seeds: Any) -> None:
    with pytest.raises(CorruptFileError, match="array 'seeds' must be lists of row numbers"):
        check_seeds(seeds, 10)


def test_a_root_of_a_wrong_shape_is_refused() -> None:
    index = HnswIndex(16, quantization="rabitq")
    index.build(clustered(100, 16))
    arrays = index.arrays()
    root = arrays["root"]
    wrong = [root[:0], root[:, :-64], root[0], np.repeat(root, 300, axis=0)]
    for each in wrong:
        with pytest.raises(CorruptFileError):
            HnswIndex.from_arrays(arrays | {"root": each})
