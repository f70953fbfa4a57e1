"""`target_recall`, and how far a search goes: what a calibration says, and that it is right."""

from pathlib import Path

import numpy as np
import pytest

from tests.index.samples import MANY, METRICS, clustered, recall
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, HnswIndex, coded_graph, placed_graph, query_rows
from vecdb.index.calibration import (
    LARGEST_EF,
    Calibration,
    calibrate,
)
from vecdb.index.query_rows import draw_sample
from vecdb.index.recall_curve import TRUTH, recall_less_error
from vecdb.kernels.jit import COMPILED
from vecdb.kernels.walk import Reach, ended_by_ef

STOPS = np.linspace(0.8, 1.4, 25)


def _curve(*values: float) -> np.ndarray:
    """Return what lies between values for the stops .8, 1 and 1.4, by their logarithms."""
    return np.exp(np.interp(STOPS, [0.8, 1.0, 1.4], np.log(values)))


TABLE = np.array(
    [
        STOPS,
        *(_curve(5, 20, 100), _curve(12, 40, 200), _curve(100, 200, 600)),
        *(1 - _curve(0.4, 0.1, 0.001), 1 - _curve(0.3, 0.05, 0.002), 1 - _curve(0.2, 0.03, 0.01)),
    ],
    np.float32,
)

compiled = pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")


def _graph(vectors: np.ndarray, metric: str = "cosine", quantization: str = "rabitq") -> HnswIndex:
    index = HnswIndex(vectors.shape[1], metric, quantization=quantization)
    index.build(vectors)
    return index


def _recall(
    index: HnswIndex, exact: FlatIndex, queries: np.ndarray, k: int, target: float,
    mask: np.ndarray | None = None,
) -> float:  # fmt: skip
    found, _ = index.search(queries, k, target_recall=target, filter=mask)
    true, _ = exact.search(queries, k, filter=mask)
    pairs = zip(found, true, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


@compiled
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
@pytest.mark.parametrize("metric", METRICS)
def test_queries_that_were_not_calibrated_on_get_the_recall(metric: str, quantization: str) -> None:
    vectors = clustered(12_400, 32)
    vectors, queries = vectors[:-400], vectors[-400:]
    index, exact = _graph(vectors, metric, quantization), FlatIndex(32, metric)
    exact.build(vectors)
    table = Calibration.from_arrays(32, index.arrays())
    assert table.for_target(0.9, 10).hops <= table.for_target(0.99, 10).hops < LARGEST_EF
    half = np.random.default_rng(1).random(len(vectors)) < 0.5
    for target in (0.9, 0.95, 0.99):
        for k, most in zip((1, 10, 100), table.table[4:, -1], strict=True):
            assert _recall(index, exact, queries, k, target) >= min(target, most) - 0.03
        assert _recall(index, exact, queries, 10, target, half) >= target - 0.03
    if quantization == "rabitq":  # the other finds more than that with the fewest hops
        assert _recall(index, exact, queries, 10, 0.5) < 0.95, "more than asked for costs time"


@compiled
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
@pytest.mark.parametrize("dim", [2, 5])
def test_rows_closer_than_a_byte_tells_are_found_as_asked_for(dim: int, quantization: str) -> None:
    """Few coordinates let few codes differ: a search goes on for long, or all are compared."""
    vectors = np.random.default_rng(4).standard_normal((20_400, dim), np.float32)
    vectors, queries = vectors[:-400], vectors[-400:]
    index, exact = _graph(vectors, "l2", quantization), FlatIndex(dim, "l2")
    exact.build(vectors)
    for k in (1, 10, 100):
        for target in (0.9, 0.99):
            assert _recall(index, exact, queries, k, target) >= target - 0.02


@compiled
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
def test_long_vectors_lead_to_the_largest_inner_products(
    quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of other lengths are far from each other, and what has large products is long."""
    rng = np.random.default_rng(3)
    lengths = rng.lognormal(0, 0.4, (8_400, 1)).astype(np.float32)
    vectors = lengths * rng.standard_normal((8_400, 48), np.float32)
    vectors, queries = vectors[:-400], vectors[-400:]
    index, exact = _graph(vectors, "dot", quantization), FlatIndex(48, "dot")
    exact.build(vectors)
    rows, _ = index.search(queries, 10, ef=64)
    truth, _ = exact.search(queries, 10)
    assert recall(rows, truth) > 0.9
    for target in (0.9, 0.99):
        assert _recall(index, exact, queries, 10, target) >= target - 0.03
    # Only short ones allowed: a search that stops where it usually may has come to few of them.
    norms = np.linalg.norm(vectors, axis=1)
    short = norms < np.median(norms)
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, hops: hops > 2_000)
    for k in (1, 10):
        assert _recall(index, exact, queries, k, 0.9, short) >= 0.87


@compiled
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
def test_long_vectors_do_not_hide_all_others(quantization: str) -> None:
    """They have a large inner product with each: by that, a row would link to few of its own."""
    lengths = np.random.default_rng(5).lognormal(0, 0.8, (8_400, 1))
    vectors = (lengths * clustered(8_400, 48)).astype(np.float32)
    vectors, queries = vectors[:-400], vectors[-400:]
    index, exact = _graph(vectors, "dot", quantization), FlatIndex(48, "dot")
    exact.build(vectors)
    rows, _ = index.search(queries, 10, ef=32)
    assert recall(rows, exact.search(queries, 10)[0]) > 0.94, "0.88 and 0.91 if they do"


@compiled
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
def test_one_vector_thousands_of_times_as_long_does_not_hide_all_others(quantization: str) -> None:
    """Beside the squares of its length few digits are left to tell others apart, and a few more
    to know how long the rows are that serve as queries."""
    vectors = np.random.default_rng(6).standard_normal((8_200, 32), np.float32)
    vectors, queries = vectors[:-200], vectors[-200:]
    vectors[7] *= 1e4
    index, exact = _graph(vectors, "dot", quantization), FlatIndex(32, "dot")
    exact.build(vectors)
    assert _recall(index, exact, queries, 10, 0.95) > 0.94


@compiled
def test_a_walk_under_a_filter_is_repeated_only_where_it_came_to_few_allowed_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    vectors = clustered(12_000, 32)
    index = _graph(vectors)
    walked: list[int] = []
    walk = coded_graph.CodedGraph._walk
    monkeypatch.setattr(
        coded_graph.CodedGraph,
        "_walk",
        lambda self, queries, *rest: walked.append(len(queries)) or walk(self, queries, *rest),
    )
    queries = clustered(100, 32, seed=1)
    index.search(queries, 10, ef=64, filter=rng.random(len(vectors)) < 0.9)
    assert walked == [len(queries)]
    walked.clear()
    # The nearest fifth is not allowed: comparing with all others is cheaper than going on.
    away = ((vectors - vectors[0]) ** 2).sum(axis=1)
    index.search(vectors[0], 10, ef=16, filter=away > np.quantile(away, 0.2))
    assert walked == [1]


def test_a_small_graph_compares_with_all_rows() -> None:
    vectors = clustered(150, 8)
    index, exact = _graph(vectors, "l2"), FlatIndex(8, "l2")
    exact.build(vectors)
    assert index.arrays()["calibration"].shape == (7, 0)
    assert _recall(index, exact, clustered(5, 8, seed=1), 10, 0.5) == 1


@pytest.fixture
def everything_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rows, "LEAST_ROWS", 20)


@pytest.mark.usefixtures("everything_is_calibrated")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("quantization", ["rabitq", "sq8"])
def test_rows_that_served_as_queries_are_found_like_others(metric: str, quantization: str) -> None:
    vectors = clustered(MANY // 2, 8)
    vectors = np.concatenate([vectors, vectors[: MANY // 4]])
    index, exact = _graph(vectors, metric, quantization), FlatIndex(8, metric)
    exact.build(vectors)
    assert index.arrays()["calibration"].shape[1] > 0
    sample = draw_sample(np.arange(len(vectors)), index.seed)
    assert len(sample) > 0
    found, _ = index.search(vectors[sample], 10, ef=200)
    assert recall(found, exact.search(vectors[sample], 10)[0]) > 0.95


@pytest.mark.usefixtures("everything_is_calibrated")
def test_a_calibration_is_kept_and_made_again_as_the_graph_grows(tmp_path: Path) -> None:
    vectors, queries = clustered(MANY, 8), clustered(4, 8, seed=1)
    index = _graph(vectors[: MANY // 2])
    before = index.arrays()["calibration"]
    index.save(tmp_path / "i")
    loaded = HnswIndex.load(tmp_path / "i")
    np.testing.assert_array_equal(loaded.arrays()["calibration"], before)
    for asked, answered in zip(
        index.search(queries, 5, target_recall=0.9),
        loaded.search(queries, 5, target_recall=0.9),
        strict=True,
    ):
        np.testing.assert_array_equal(asked, answered)
    loaded.add(vectors[MANY // 2 :])
    after = loaded.arrays()["calibration"]
    assert after.shape != before.shape or (after != before).any()


def test_what_is_no_calibration_is_refused() -> None:
    arrays = _graph(clustered(30, 8)).arrays()
    wrong, above = TABLE.copy(), TABLE.copy()
    wrong[2, 1], above[5, 1] = np.nan, 1.5
    tables = (None, TABLE[:6], TABLE[:, ::-1], wrong, above, -TABLE, TABLE.astype(float), TABLE[0])
    for table in tables:
        changed = dict(arrays)
        del changed["calibration"]
        if table is not None:
            changed["calibration"] = table
        with pytest.raises(CorruptFileError, match="calibration"):
            HnswIndex.from_arrays(changed)


def test_a_search_goes_further_for_a_higher_target_and_more_results() -> None:
    table = Calibration(384, TABLE)
    targets = (0.5, 0.8, 0.9, 0.99, 0.999)
    plans = [table.for_target(target, 10) for target in targets]
    assert [plan.reach.stop for plan in plans] == sorted(plan.reach.stop for plan in plans)
    assert plans[0].reach.stop == pytest.approx(0.8)
    assert plans[-1].reach.stop == pytest.approx(1.4), "the furthest, where none is enough"
    hops = [table.for_target(0.9, k).hops for k in (1, 3, 10, 50, 100, 300)]
    assert hops == sorted(hops)
    assert hops[-1] == pytest.approx(3 * hops[-2])
    assert table.for_target(0.9, 2000).reach.ef >= 2000
    again = [table.for_target(target, 10) for target in reversed(targets)]
    assert again[::-1] == plans, "whatever was asked for before"


def test_a_search_expands_about_ef_nodes() -> None:
    table = Calibration(384, TABLE)
    for k, most in ((1, 100), (10, 200), (100, 600)):
        for ef in (k + 2, most // 2, most):
            plan = table.for_ef(ef, k)
            least = table.for_target(0.5, k).hops
            assert plan.hops == pytest.approx(max(ef, least), rel=0.1), (k, ef)
            assert plan.reach.ef >= k
    assert table.for_ef(3, 10) == table.for_ef(10, 10), "at least k"
    assert table.for_ef(900, 300).hops == pytest.approx(900, rel=0.01)
    further, furthest = table.for_ef(400, 10), table.for_ef(1600, 10)
    assert 1.4 < further.reach.stop < furthest.reach.stop, "as what was measured goes on"
    assert furthest.hops == pytest.approx(1600, rel=0.3)


def test_a_curve_that_hardly_grew_says_nothing_of_how_it_goes_on() -> None:
    grown = TABLE.copy()
    grown[2] = np.where(STOPS > 1.3, 16.008, 16)  # one query of many went a step further
    table = Calibration(384, grown)
    for k in (1, 3, 10, 30, 100, 1000):
        plans = [table.for_ef(ef, k) for ef in (300, 10_000, 10**9)]
        assert [plan.reach.ef >= k for plan in plans] == [True] * 3
        assert plans[0].hops <= plans[1].hops <= plans[2].hops < 2**32


def test_codes_of_more_coordinates_need_less_that_is_compared_beside_them() -> None:
    margins = [Calibration(dim, TABLE).for_target(0.9, 100).reach.margin for dim in (8, 384, 1536)]
    assert margins[0] == margins[1] > margins[2] > 1
    assert Calibration(384, TABLE).for_target(0.9, 10).reach.margin == 1


def test_a_stop_that_ends_no_search_says_nothing_of_other_ks() -> None:
    """For 100 at least as many are expanded: up to the stop of 1 it is no more than that."""
    table = TABLE.copy()
    table[1] = table[2] = _curve(16, 25, 60)
    table[3] = np.where(STOPS > 1.001, _curve(101, 101, 200), 101)
    table[4] = table[5] = 1 - _curve(0.4, 0.1, 0.01)
    table[6] = 1 - _curve(0.1, 0.04, 0.01)
    plans = Calibration(384, table)
    assert plans.for_target(0.9, 10).reach.stop == pytest.approx(1.0)
    assert plans.for_target(0.9, 100).reach.stop == pytest.approx(0.8)
    assert plans.for_target(0.9, 30).reach.stop > 0.99


def test_searches_are_measured_until_they_find_enough() -> None:
    """Hard data takes thousands of nodes: a target of .99 must not end at the first thousand."""
    true = np.tile(np.arange(1, TRUTH + 1, dtype=np.float32), (200, 1))

    def search(reach: Reach, k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        hops = 16 * np.exp(2 * max(reach.stop - 1, 0))
        missed = np.random.default_rng(0).random((count, k)) < 0.1 * (16 / hops) ** 0.417
        return np.where(missed, np.inf, true[:count, :k]), np.full(count, round(hops))

    table = calibrate(64, true, search)
    assert table.for_target(0.99, 10).hops > 3_000


def test_a_stop_is_told_apart_by_what_is_found_where_it_costs_nothing_more() -> None:
    table = TABLE.copy()
    table[1] = 16
    curves = Calibration(8, table)
    assert curves.for_target(0.9, 1).reach.stop == pytest.approx(1.0)
    assert curves.for_target(0.99, 1).reach.stop > 1.1


def test_all_rows_are_compared_where_no_search_comes_near() -> None:
    table = TABLE.copy()
    table[4] = 1 - _curve(0.7, 0.69, 0.68)
    assert Calibration(8, table).for_target(0.9, 1).hops > 1e9
    assert Calibration(8, table).for_target(0.9, 10).hops < 100
    table[4] = 1 - _curve(0.4, 0.2, 0.11)  # near enough: the longest that was measured
    assert Calibration(8, table).for_target(0.9, 1).hops == pytest.approx(100)


def test_without_a_calibration_only_ef_ends_a_search() -> None:
    none = Calibration.none(384)
    assert none.for_ef(30, 10) == (ended_by_ef(30), 30)
    assert none.for_target(0.9, 10).reach.ef == LARGEST_EF
    assert none.for_target(0.9, 2000).reach.ef == 2000


def test_a_standard_error_is_taken_off_what_a_sample_found() -> None:
    hits = np.zeros((100, 4), np.bool_)
    hits[:50] = True
    assert recall_less_error(hits) == pytest.approx(0.5 - 0.5 / 10)
    assert recall_less_error(np.ones((7, 3), np.bool_)) == pytest.approx(1 - 0.5 / 7)
    assert recall_less_error(np.eye(1, 4, dtype=np.bool_).T) >= 0


@pytest.mark.parametrize("target", [0, 0.4, 1, 95, float("nan"), "0.9", True])
def test_a_target_out_of_range_is_refused(target: object) -> None:
    index = _graph(clustered(30, 8))
    with pytest.raises(InvalidParameterError, match=r"from 0\.5 to 0\.999"):
        index.search(clustered(1, 8), target_recall=target)


def test_an_ef_beside_a_target_is_the_least() -> None:
    vectors, queries = clustered(2_500 if COMPILED else 120, 24), clustered(40, 24, seed=1)
    index = _graph(vectors)
    exact = FlatIndex(24)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    alone, _ = index.search(queries, target_recall=0.5)
    both, _ = index.search(queries, ef=1_000, target_recall=0.5)
    assert recall(both, truth) >= max(0.98, recall(alone, truth))
