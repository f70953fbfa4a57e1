"""`target_recall`: the ef that a calibration says is enough, and on which data it is right."""

from pathlib import Path

import numpy as np
import pytest

from tests.index.samples import MANY, METRICS, clustered, recall
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, HnswIndex, calibration
from vecdb.index.calibration import Calibration, draw_sample
from vecdb.kernels.jit import COMPILED

TABLE = np.array(
    [[10, 100, 1000], [0.9, 0.99, 0.999], [0.8, 0.98, 0.998], [0.1, 0.8, 0.98]], np.float32
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
    table = Calibration.from_arrays(index.arrays())
    assert table.ef(0.9, 10) < table.ef(0.99, 10) < calibration.LARGEST_EF
    half = np.random.default_rng(1).random(len(vectors)) < 0.5
    for target in (0.9, 0.95, 0.99):
        for k, most in zip((1, 10, 100), table.table[1:, -1], strict=True):
            assert _recall(index, exact, queries, k, target) >= min(target, most) - 0.03
        assert _recall(index, exact, queries, 10, target, half) >= target - 0.03
    if quantization == "rabitq":  # the other finds more than that with the least ef
        assert _recall(index, exact, queries, 10, 0.5) < 0.95, "more than asked for costs time"


def test_a_small_graph_compares_with_all_rows() -> None:
    vectors = clustered(150, 8)
    index, exact = _graph(vectors, "l2"), FlatIndex(8, "l2")
    exact.build(vectors)
    assert index.arrays()["calibration"].shape == (4, 0)
    assert _recall(index, exact, clustered(5, 8, seed=1), 10, 0.5) == 1


@pytest.fixture
def everything_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LEAST_ROWS", 20)


@pytest.mark.usefixtures("everything_is_calibrated")
@pytest.mark.parametrize("metric", METRICS)
def test_rows_and_their_equals_are_left_out_of_their_own_searches(metric: str) -> None:
    """Were they found, or missed by all, no recall could come near one."""
    vectors = clustered(MANY // 2, 8)
    index = _graph(np.concatenate([vectors, vectors[: MANY // 4]]), metric)
    table = index.arrays()["calibration"]
    assert table.shape[1] > 0
    assert table[1:, -1].min() > 0.95
    assert table[3, 0] < 0.9, "of 100 rows few are found at ef 10"


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
    wrong = TABLE.copy()
    wrong[2, 1] = np.nan
    for table in (None, TABLE[:3], TABLE[:, ::-1], wrong, TABLE.astype(np.float64), TABLE[0]):
        changed = dict(arrays)
        del changed["calibration"]
        if table is not None:
            changed["calibration"] = table
        with pytest.raises(CorruptFileError, match="calibration"):
            HnswIndex.from_arrays(changed)


def test_ef_grows_with_target_and_k() -> None:
    table = Calibration(TABLE)
    efs = [table.ef(target, 10) for target in (0.5, 0.8, 0.9, 0.99, 0.999)]
    assert efs == sorted(efs)
    assert efs[0] == 10
    assert efs[-1] == 1000, "the largest tried, where no other is enough"
    assert 10 < table.ef(0.9, 1) < table.ef(0.9, 3) < table.ef(0.9, 10) < table.ef(0.9, 50)
    assert table.ef(0.5, 100) >= 100
    assert table.ef(0.9, 300) == pytest.approx(3 * table.ef(0.9, 100), rel=0.01)
    assert Calibration.none().ef(0.9, 2000) == 2000
    again = [table.ef(target, 10) for target in (0.999, 0.5, 0.99, 0.9, 0.8)]
    assert sorted(again) == efs, "whatever was asked for before"


def test_no_sample_is_drawn_of_few_different_rows() -> None:
    twins = np.arange(1, 9_001, dtype=np.int32)
    twins[1_999::2_000] = twins[-1] = -1
    assert draw_sample(np.arange(9_000), twins, 0).size == 0


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


def test_a_target_without_codes_is_refused() -> None:
    plain = HnswIndex(8)
    with pytest.raises(InvalidParameterError, match="rabitq"):
        plain.search(clustered(1, 8), target_recall=0.9)
