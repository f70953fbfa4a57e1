"""What is particular to the graph of one code a row: `HnswIndex(quantization="sq8")`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.samples import MANY, METRICS, check_graph, clustered, recall
from tests.naive import distances as true_distances
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, HnswIndex, compact_graph, placed_graph
from vecdb.index.rows import frozen
from vecdb.index.scratch import make_compact_lanes
from vecdb.kernels import byte_simd
from vecdb.kernels.compact_rows import compact_bytes, compact_rows, decode_codes, store_codes
from vecdb.kernels.compact_search import COMPACT_LANES, CompactLanes
from vecdb.kernels.jit import COMPILED, kernel
from vecdb.types import Metric

EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)
RERANKS = ["memory", "mmap", "none"]


@pytest.fixture(autouse=True)
def _always_walk_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, ef: allowed == 0)


def _built(vectors: np.ndarray, metric: str = "cosine", rerank: str = "memory") -> HnswIndex:
    index = HnswIndex(vectors.shape[1], metric, quantization="sq8", rerank=rerank)
    index.build(vectors)
    return index


@kernel
def _compare(rows, residuals, levels, queries, scale, products, far):  # type: ignore[no-untyped-def]
    width = levels.shape[1]
    for row in range(rows.shape[0]):
        products[row] = byte_simd.dot_bytes(rows, row, levels, 0, width)
        for refined in range(2):
            far[refined, row] = byte_simd.l2_to_bytes(
                rows, residuals, row, refined == 1, queries, 0, width, scale
            )


@pytest.mark.parametrize("width", [64, 192, 1024])
def test_bytes_are_compared_as_numbers_are(width: int) -> None:
    rng = np.random.default_rng(width)
    rows = rng.integers(0, 256, (5, width), np.uint8)
    residuals = rng.integers(-128, 128, (5, width), np.int8)
    levels = rng.integers(-127, 128, (1, width), np.int8)
    rows[0], levels[0, :32] = 255, 127
    queries = rng.standard_normal((1, width)).astype(np.float32)
    products, far = np.empty(5, np.int64), np.empty((2, 5), np.float32)
    scale = np.float32(0.01)
    _compare(rows, residuals, levels, queries, scale, products, far)
    np.testing.assert_array_equal(products, rows.astype(np.int64) @ levels[0].astype(np.int64))
    for refined in range(2):
        coordinates = (rows - 128.0 + refined * residuals / 256) * 0.01
        squares = ((coordinates - queries) ** 2).sum(axis=1)
        np.testing.assert_allclose(far[refined], squares, rtol=1e-5)


@pytest.mark.parametrize("kept", [0, 64])
def test_a_code_is_right_to_a_byte_and_with_its_residual_to_two(kept: int) -> None:
    coordinates = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    coordinates[0] = 0
    coordinates[1] = np.linspace(-1, 1, 64)
    memory = np.zeros((50, compact_bytes(64, 4)), np.uint8)
    rows = compact_rows(memory, np.zeros((50, kept), np.int8), 64, 4)
    store_codes(rows, np.arange(50), coordinates, np.arange(50, dtype=np.float32), False)
    out = np.empty((50, 65), np.float32)
    decode_codes(rows, np.arange(50), out)
    off = np.abs(out[:, :64] - coordinates).max(axis=1)
    steps = 2 * np.abs(coordinates).max(axis=1) / (255 if kept == 0 else 65_279)
    assert (off <= 0.502 * steps + 1e-7).all()
    assert kept or off[2:].min() > 0.3 * steps[2:].min()
    np.testing.assert_array_equal(out[:, 64], np.arange(50))


@EVERY_METRIC
def test_the_best_are_ranked_by_what_is_kept(metric: str, tmp_path: Path) -> None:
    vectors, queries = clustered(MANY, 40), clustered(40, 40, seed=1)
    exact = FlatIndex(40, metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    errors, found = {}, {}
    for rerank in RERANKS:
        _built(vectors, metric, rerank).save(tmp_path / rerank)
        index = HnswIndex.load(tmp_path / rerank)
        assert (index.quantization, index.rerank) == ("sq8", rerank)
        rows, distances = index.search(queries, 10, ef=300)
        found[rerank] = recall(rows, truth)
        table = true_distances(metric, queries, vectors)
        apart = distances - np.take_along_axis(table, rows, axis=1)
        errors[rerank] = float(np.abs(apart).max()) / float(np.abs(table).max())
    assert errors["memory"] == errors["mmap"] < 2e-5
    assert 2e-5 < errors["none"] < 0.01
    assert found["memory"] == found["mmap"] > 0.98
    assert found["none"] > 0.93


def test_residuals_stand_in_memory_or_where_they_are_or_nowhere() -> None:
    vectors = clustered(300, 16)
    for rerank in RERANKS:
        index = _built(vectors, rerank=rerank)
        arrays = {name: frozen(array.copy()) for name, array in index.arrays().items()}
        taken = HnswIndex.from_arrays(arrays)
        again = taken.arrays()
        assert ("residuals" in again) == (rerank != "none")
        if rerank != "none":
            shared = np.shares_memory(again["residuals"], arrays["residuals"])
            assert shared == (rerank == "mmap")
        assert not np.shares_memory(again["rows"], arrays["rows"])
        taken.add(vectors[:3])
        check_graph(taken)
        assert np.isin([0, 300], taken.search(vectors[0], 2, ef=100)[0]).all()


def test_a_row_takes_less_than_a_part_of_its_vector() -> None:
    count = 300
    plain = HnswIndex(384)
    plain.build(clustered(count, 384))
    full = sum(array.nbytes for array in plain.arrays().values())
    small = _built(clustered(count, 384)).arrays()
    kept = {name: array.nbytes for name, array in small.items() if name != "seeds"}
    assert sum(kept.values()) < 0.6 * full
    assert sum(kept.values()) - kept["residuals"] < 0.37 * full


@pytest.mark.parametrize("rerank", ["memory", "none"])
@EVERY_METRIC
def test_rows_inserted_one_by_one_are_found_beside_their_equals(
    metric: str, rerank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_graph, "_LEAST_LINKED", 50)
    count = MANY // 2
    twice = count // 20
    vectors = clustered(count, 16)
    index = _built(vectors[: count * 3 // 4], metric, rerank)
    for row in range(count * 3 // 4, count * 7 // 8):
        index.add(vectors[row])
    index.add(vectors[:twice])
    check_graph(index)
    assert index.arrays()["header"][6] > 0, "none was inserted"
    behind = index.arrays()["twins"][:twice]
    assert (behind >= 0).mean() > 0.9, "equal rows were not recognised"
    queries = vectors[count * 3 // 4 : count * 7 // 8]
    exact = FlatIndex(16, metric)
    exact.build(np.concatenate([vectors[: count * 7 // 8], vectors[:twice]]))
    assert recall(index.search(queries, 10, ef=100)[0], exact.search(queries, 10)[0]) > 0.9


@pytest.mark.skipif(not COMPILED, reason="too many links for kernels run as Python")
def test_a_node_may_have_more_links_than_a_search_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.random.default_rng(0).standard_normal((1_800, 8), np.float32)
    vectors[:1_500] *= 0.01  # few of the seeds are among these, and many of a node's neighbours
    index = HnswIndex(8, "l2", m=512, quantization="sq8")
    index.build(vectors)
    made: list[CompactLanes] = []

    def thread_compact_lanes(*sizes: int) -> CompactLanes:
        lanes = make_compact_lanes(*sizes, COMPACT_LANES)
        lanes.candidates.opened[:] = -7
        made.append(lanes)
        return lanes

    monkeypatch.setattr(compact_graph, "thread_compact_lanes", thread_compact_lanes)
    index.search(np.zeros(8, np.float32), 1, ef=1)
    for lanes in made:
        assert (lanes.candidates.opened[1:] == -7).all(), "written behind the query's own line"


def test_rows_that_differ_by_less_than_a_byte_tells_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 64))
    vectors = (centres[np.arange(MANY) % 10] + 0.01 * rng.standard_normal((MANY, 64))).astype("f4")
    queries = vectors[:20] + np.float32(0.01) * rng.standard_normal((20, 64)).astype("f4")
    index, exact = _built(vectors, "l2"), FlatIndex(64, "l2")
    exact.build(vectors)
    for mask in (None, np.arange(MANY) % 3 > 0):
        rows, _ = index.search(queries, 10, ef=60, filter=mask)
        assert recall(rows, exact.search(queries, 10, filter=mask)[0]) > 0.9, ".63, .73 by codes"


def test_removed_rows_give_their_places_to_new_ones() -> None:
    vectors = clustered(MANY // 3, 12)
    index = _built(vectors)
    gone = np.arange(0, len(vectors), 3)
    index.remove(gone)
    index.add(vectors[gone] + np.float32(0.01))
    assert index.row_count == len(index) == len(vectors)
    check_graph(index)


@pytest.mark.parametrize("quantization", ["sq8", "rabitq"])
def test_after_many_removals_a_graph_is_built_anew_once(
    quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_graph, "_LEAST_LINKED", 16)
    vectors = clustered(MANY // 2, 12)
    index, exact = HnswIndex(12, quantization=quantization), FlatIndex(12)
    for each in (index, exact):
        each.build(vectors)
    gone = np.arange(0, len(vectors), 2)
    index.remove(gone)
    built = []
    bulk_graph = placed_graph.bulk_graph
    monkeypatch.setattr(
        placed_graph, "bulk_graph", lambda *a, **b: built.append(1) or bulk_graph(*a, **b)
    )
    for row in gone[:20]:
        index.add(vectors[row], ids=[row])
    assert len(built) == 1
    assert index.row_count == len(vectors)
    index.add(vectors[gone[20:]], ids=gone[20:])
    assert index.row_count == len(index) == len(vectors)
    check_graph(index)
    found, _ = index.search(vectors[gone], 10, ef=200)
    assert recall(found, exact.search(vectors[gone], 10)[0]) > 0.9


@EVERY_METRIC
@pytest.mark.parametrize(("dim", "count"), [(1, 40), (7, 1), (300, 5), (4_096, 30)])
def test_any_dimension_and_few_rows(metric: str, dim: int, count: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    exact = FlatIndex(dim, metric)
    exact.build(vectors)
    for m in (2, 16, 100):
        index = HnswIndex(dim, metric, m=m, quantization="sq8")
        index.build(vectors)
        _, found = index.search(vectors[:3], 4)
        _, truth = exact.search(vectors[:3], 4)
        np.testing.assert_allclose(found, truth, atol=2e-5 * (1 + np.abs(vectors).max() ** 2 * dim))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rerank": "memory"}, "need quantization='sq8'"),
        ({"rerank": "mmap", "quantization": "none"}, "need quantization='sq8'"),
        ({"rerank": "mmap", "quantization": "rabitq"}, "quantization='sq8' can"),
        ({"rerank": "none", "quantization": "rabitq"}, "quantization='sq8' can"),
        ({"rerank": "disk", "quantization": "sq8"}, "'memory', 'mmap', 'none'"),
        ({"quantization": "sq4"}, "'none', 'sq8', 'rabitq'"),
    ],
)
def test_what_cannot_be_kept_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        HnswIndex(8, **options)


def test_damaged_arrays_are_refused() -> None:
    arrays = _built(clustered(200, 8), "l2").arrays()
    header = arrays["header"].copy()
    header[8] = 3
    seeds = arrays["seeds"].copy()
    seeds[0, -1] = 200
    changes: dict[str, Any] = {
        "header": header,
        "seeds": seeds,
        "rows": arrays["rows"][:, :-64],
        "residuals": arrays["residuals"][:-1],
        "twins": arrays["twins"][1:],
        "centre": arrays["centre"][:-1],
        "calibration": arrays["calibration"][:-1],
    }
    for name, changed in changes.items():
        with pytest.raises(CorruptFileError):
            HnswIndex.from_arrays(arrays | {name: changed})
    for name in changes:
        if name not in ("seeds", "rows"):
            with pytest.raises(CorruptFileError):
                HnswIndex.from_arrays({n: a for n, a in arrays.items() if n != name})
    with pytest.raises(CorruptFileError):
        HnswIndex.from_arrays(arrays | {"seeds": arrays["seeds"][:0]})
    assert HnswIndex.from_arrays(arrays).metric is Metric.L2
