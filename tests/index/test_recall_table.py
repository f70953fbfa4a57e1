"""`target_recall` of float32 graphs and of lists: what was measured, and that it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.samples import MANY, METRICS, clustered, recall
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, HnswIndex, IvfIndex, query_rows, recall_table
from vecdb.index.float_graph import FloatGraph
from vecdb.index.query_rows import HeldOut
from vecdb.index.recall_table import RecallTable, measure, without_themselves
from vecdb.index.workers import Workers
from vecdb.kernels.jit import COMPILED

Make = Callable[[int, str], HnswIndex | IvfIndex]

MAKERS: dict[str, Make] = {
    "graph": lambda dim, metric: HnswIndex(dim, metric),
    "codes": lambda dim, metric: IvfIndex(dim, metric),
    "lists": lambda dim, metric: IvfIndex(dim, metric, quantization="none"),
}
EVERY_INDEX = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

TABLE = np.array([[1, 4, 16], [0.6, 0.9, 0.99], [0.5, 0.8, 0.98], [0.4, 0.7, 0.9]], np.float32)


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@EVERY_INDEX
@pytest.mark.parametrize("metric", METRICS)
def test_queries_that_were_not_measured_with_get_the_recall(metric: str, make: Make) -> None:
    vectors = clustered(12_400, 32)
    vectors, queries = vectors[:-400], vectors[-400:]
    index, exact = make(32, metric), FlatIndex(32, metric)
    index.build(vectors, threads=2)
    exact.build(vectors)
    half = np.random.default_rng(1).random(len(vectors)) < 0.5
    # Of half of a cluster less than 100 are left: for more than that nothing was measured.
    for mask, ks in ((None, (1, 10, 100)), (half, (1, 10))):
        truth, _ = exact.search(queries, 100, filter=mask)
        for target in (0.8, 0.9, 0.95, 0.99):
            for k in ks:
                found, _ = index.search(queries, k, target_recall=target, filter=mask)
                assert recall(found, truth[:, :k]) >= target - 0.03, (target, k)
    few, _ = index.search(queries, 10, target_recall=0.5)
    most, _ = index.search(queries, 10, target_recall=0.999)
    truth, _ = exact.search(queries, 10)
    assert recall(few, truth) < recall(most, truth), "more than asked for costs time"


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@pytest.mark.parametrize("which", ["codes", "lists"])
@pytest.mark.parametrize("seed", [1, 2])
def test_rows_far_from_the_queries_get_the_recall(which: str, seed: int) -> None:
    """Fewer of those in the nearest lists may be returned than of all: more lists are looked at."""
    rng = np.random.default_rng(seed)
    share, centres = 1 / np.arange(1, 81), rng.gamma(0.5, 30, (80, 32))
    cluster = rng.choice(80, 6_400, p=share / share.sum())
    lengths = rng.gamma(3, 1 / 3, (6_400, 1))
    vectors = rng.poisson(centres[cluster] * lengths).astype(np.float32)
    vectors, queries = vectors[400:], vectors[:400]
    index, exact = MAKERS[which](32, "l2"), FlatIndex(32, "l2")
    index.build(vectors, threads=2)
    exact.build(vectors)
    away = ((vectors - queries[0]) ** 2).sum(axis=1)
    far = away > np.quantile(away, 0.8)
    for k in (1, 10):
        found, distances = index.search(queries, k, target_recall=0.9, filter=far)
        truth = exact.search(queries, k, filter=far)[1]
        assert (distances <= truth[:, -1:] * 1.00001).mean() >= 0.9, k
        assert far[found].all()


@pytest.fixture
def everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rows, "LEAST_ROWS", 20)
    monkeypatch.setattr(recall_table, "LEAST_ROWS", 20)


@pytest.mark.usefixtures("everything_is_measured")
@EVERY_INDEX
def test_what_was_measured_is_kept_and_measured_again_as_the_index_grows(
    make: Make, tmp_path: Path
) -> None:
    vectors, queries = clustered(MANY, 8), clustered(4, 8, seed=1)
    index = make(8, "cosine")
    index.build(vectors[: MANY // 3])
    before = index.arrays()
    assert before["calibration"].shape[1] > 0
    assert before["calibrated_rows"] == MANY // 3
    index.save(tmp_path / "i")
    loaded = type(index).load(tmp_path / "i")
    for name in ("calibration", "calibrated_rows"):
        np.testing.assert_array_equal(loaded.arrays()[name], before[name])
    for asked, answered in zip(
        index.search(queries, 5, target_recall=0.9),
        loaded.search(queries, 5, target_recall=0.9),
        strict=True,
    ):
        np.testing.assert_array_equal(asked, answered)
    loaded.add(vectors[MANY // 3 : MANY // 2])
    assert loaded.arrays()["calibrated_rows"] == MANY // 3, "it has not doubled"
    for row in range(MANY // 2, 2 * (MANY // 3) + 3):
        loaded.add(vectors[row])
    assert loaded.arrays()["calibrated_rows"] == 2 * (MANY // 3)


@EVERY_INDEX
def test_a_small_index_is_searched_through(make: Make) -> None:
    vectors, queries = clustered(300, 8), clustered(9, 8, seed=1)
    index, exact = make(8, "l2"), FlatIndex(8, "l2")
    for each in (index, exact):
        each.build(vectors)
    assert index.arrays()["calibration"].shape == (4, 0)
    found, _ = index.search(queries, 10, target_recall=0.5)
    assert recall(found, exact.search(queries, 10)[0]) > 0.98
    empty = make(8, "l2")
    assert (empty.search(queries, 2, target_recall=0.9)[0] == -1).all()


@pytest.mark.usefixtures("everything_is_measured")
@EVERY_INDEX
def test_an_index_of_equal_vectors_finds_as_many_as_are_wanted(make: Make) -> None:
    index = make(8, "l2")
    index.build(np.ones((60, 8), np.float32))
    found, distances = index.search(np.ones(8, np.float32), 10, target_recall=0.9)
    assert len(np.unique(found)) == 10
    assert (distances == 0).all()


@pytest.mark.usefixtures("everything_is_measured")
@pytest.mark.parametrize("quantization", ["none", "rabitq"])
def test_as_many_lists_as_rows_can_be_measured(quantization: str) -> None:
    vectors = clustered(60, 8)
    index = IvfIndex(8, nlist=60, quantization=quantization)
    index.build(vectors)
    assert index.list_count == 60
    found, _ = index.search(vectors, 1, target_recall=0.99)
    assert recall(found, np.arange(60)[:, None]) > 0.9


@EVERY_INDEX
def test_an_effort_beside_a_target_is_the_least(make: Make) -> None:
    vectors, queries = clustered(2_500 if COMPILED else 120, 24), clustered(40, 24, seed=1)
    index, exact = make(24, "cosine"), FlatIndex(24)
    for each in (index, exact):
        each.build(vectors)
    least: dict[str, Any] = {"ef": 1_000} if isinstance(index, HnswIndex) else {"nprobe": 1_000}
    both, _ = index.search(queries, target_recall=0.5, **least)
    assert recall(both, exact.search(queries, 10)[0]) > 0.97


@EVERY_INDEX
@pytest.mark.parametrize("target", [0, 0.4, 1, 95, float("nan"), "0.9", True])
def test_a_target_out_of_range_is_refused(make: Make, target: Any) -> None:
    index = make(8, "cosine")
    index.build(clustered(30, 8))
    with pytest.raises(InvalidParameterError, match=r"from 0\.5 to 0\.999"):
        index.search(clustered(1, 8), target_recall=target)


def test_codes_without_vectors_cannot_be_measured_by_them() -> None:
    index = IvfIndex(8, rerank="none")
    index.build(clustered(30, 8))
    with pytest.raises(InvalidParameterError, match="give nprobe"):
        index.search(clustered(1, 8), target_recall=0.9)


@EVERY_INDEX
def test_what_is_no_table_is_refused(make: Make) -> None:
    index = make(8, "cosine")
    index.build(clustered(30, 8))
    arrays = index.arrays()
    wrong, above, below = TABLE.copy(), TABLE.copy(), TABLE.copy()
    wrong[2, 1], above[1, 2], below[0, 0] = np.nan, 1.5, 0
    for table in (TABLE[:3], TABLE[:, ::-1], wrong, above, below, -TABLE, TABLE.astype(float)):
        with pytest.raises(CorruptFileError, match="'calibration'"):
            type(index).from_arrays({**arrays, "calibration": table})
    for rows in (np.array([-1]), np.array([1.0]), np.array([1, 2])):
        with pytest.raises(CorruptFileError, match="'calibrated_rows'"):
            type(index).from_arrays({**arrays, "calibrated_rows": rows})
    for name in ("calibration", "calibrated_rows"):
        del arrays[name]
    unmeasured = type(index).from_arrays(arrays)  # as it was before searches were measured
    unmeasured.search(clustered(1, 8), target_recall=0.9)


def test_an_effort_stands_between_those_that_were_measured() -> None:
    table = RecallTable(TABLE, 100)
    efforts = [table.effort(target, 10) for target in (0.5, 0.7, 0.9, 0.97, 0.999)]
    assert efforts == sorted(efforts)  # type: ignore[type-var]
    assert efforts[-1] == 16, "the greatest, where none is enough"
    for_more = [table.effort(0.8, k) for k in (1, 3, 10, 30, 100, 200)]
    assert for_more == sorted(for_more)  # type: ignore[type-var]
    assert for_more[-1] == 2 * (for_more[-2] or 0)
    assert RecallTable.none().effort(0.9, 10) is None


def test_more_is_measured_until_everything_is_found() -> None:
    true = np.tile(np.arange(100, dtype=np.float32), (250, 1))
    asked = []

    def search(effort: int, k: int, count: int) -> np.ndarray:
        asked.append((effort, k, count))
        found = true[:count, :k].copy()
        found[:, effort:] += 1000
        return found

    table = measure(500, true, search, [1, 10, 50, 100, 1000], 50)
    measured = table.to_arrays()["calibration"]
    np.testing.assert_allclose(measured[0], [1, 3, 5, 7, 10, 50, 71, 84, 92, 100])
    all_250, all_200 = 1 - 0.5 / 250, 1 - 0.5 / 200
    recalls = dict(zip(measured[0].tolist(), measured[1:].T, strict=True))
    np.testing.assert_allclose(recalls[3], [all_250, 0.3, 0.01])
    np.testing.assert_allclose(recalls[10], [all_250, all_250, 0.1])
    np.testing.assert_allclose(recalls[71], [all_250, all_250, 0.71])
    np.testing.assert_allclose(recalls[100], [all_250, all_250, all_200])
    assert (10, 1, 250) not in asked, "one is always found"
    assert (1, 100, 250) in asked
    assert (100, 100, 200) in asked
    assert [table.is_due(rows) for rows in (500, 1_999, 2_000)] == [False, False, True]


def test_a_query_is_taken_out_of_its_own_results() -> None:
    rows = np.array([[5, 2, 3], [1, 7, 3], [0, 1, 2]])
    distances = np.array([[0, 1, 2], [0, 0, 5], [1, 2, 3]], np.float32)
    kept = without_themselves(np.array([5, 7, 9]), rows, distances)
    assert kept.tolist() == [[1, 2], [0, 5], [1, 2]]


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
def test_rows_that_serve_as_queries_are_linked_after_the_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Links are chosen by the rows there are: with a query among them it is found more easily."""
    seen: list[tuple[int, bool]] = []
    measured = FloatGraph._measured_with

    def watched(graph: FloatGraph, held: HeldOut, workers: Workers) -> RecallTable:
        links, rows = graph._graph.links[:, graph._state.column :], held.rows
        seen.append((len(rows), bool((links[rows] >= 0).any() or np.isin(links, rows).any())))
        return measured(graph, held, workers)

    monkeypatch.setattr(FloatGraph, "_measured_with", watched)
    vectors = clustered(3_000, 16)
    index = HnswIndex(16)
    index.build(vectors)
    found, _ = index.search(vectors, 1, ef=64)
    assert seen == [(120, False)]
    assert (found[:, 0] == np.arange(3_000)).mean() > 0.99


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
def test_removed_rows_do_not_make_a_graph_seem_better_than_it_is() -> None:
    """A walk goes through them, so what it is compared with has to have them as well."""
    vectors = clustered(9_000, 16)
    index = HnswIndex(16)
    index.build(vectors[:3_000])
    index.remove(np.arange(0, 3_000, 2))
    index.add(vectors[3_000:])
    table = index.arrays()["calibration"]
    untouched = HnswIndex(16)
    untouched.build(vectors[:3_000])
    untouched.add(vectors[3_000:])
    np.testing.assert_array_equal(table, untouched.arrays()["calibration"])
