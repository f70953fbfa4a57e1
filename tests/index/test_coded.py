"""What is particular to the graph of rows with their neighbours' codes: quantization="rabitq"."""

import numpy as np
import pytest

from tests.index.samples import METRICS
from vecdb.errors import CorruptFileError
from vecdb.index import FlatIndex, HnswIndex, placed_graph
from vecdb.kernels.coded_rows import (
    coded_rows,
    distance_by_code,
    distance_to,
    is_beyond,
    offset_of,
    row_bytes,
    squared_distance,
    store_coordinates,
)
from vecdb.kernels.jit import COMPILED, kernel
from vecdb.kernels.rotation import draw_signs, rotate
from vecdb.kernels.two_bytes import quantise_query

EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)


def _tight(clusters: int, each: int, dim: int, radius: float) -> np.ndarray:
    """Rows of which those of a cluster differ by less than a byte a coordinate can tell."""
    rng = np.random.default_rng(dim)
    centres = rng.standard_normal((clusters, dim))
    apart = radius * rng.standard_normal((clusters, each, dim))
    return (centres[:, None] + apart).reshape(-1, dim).astype(np.float32)


@kernel
def _compare(rows, queries, levels, limits, near, beyond, between):  # type: ignore[no-untyped-def]
    step, norm, surplus = quantise_query(queries, 0, rows.width, levels, 0)
    for row in range(len(near)):
        by_code = distance_by_code(rows, row, queries, 0, levels, 0, surplus, step, norm)
        by_code += offset_of(rows, row)
        near[row] = distance_to(rows, row, queries, 0)
        between[row] = squared_distance(rows, row, 0)
        for i in range(2):
            beyond[i, row] = is_beyond(rows, row, by_code, step, limits[i, row])


@pytest.mark.parametrize("dim", [64, 384, 1024])
@pytest.mark.parametrize("apart", [1.0, 0.1, 1e-3, 0.0])
def test_codes_never_take_a_row_for_farther_than_it_is(dim: int, apart: float) -> None:
    rng = np.random.default_rng(dim)
    query = rng.standard_normal((1, dim))
    vectors = query + apart * rng.standard_normal((500, dim))
    signs = draw_signs(dim, 0)
    placed, asked = (rotate(v.astype(np.float32), signs) for v in (vectors, query))
    offsets = rng.random(500).astype(np.float32)
    rows = coded_rows(
        np.zeros((500, row_bytes(dim, 32)), np.uint8), np.zeros((500, dim), np.int8), dim, 32
    )  # fmt: skip
    store_coordinates(rows, np.arange(500), placed, offsets)
    true = ((placed.astype(np.float64) - asked) ** 2).sum(axis=1) + offsets
    limits = np.stack([true + 1e-5 * dim, 0.96 * true]).astype(np.float32)
    near, between = np.empty((2, 500), np.float32)
    beyond = np.empty((2, 500), np.bool_)
    _compare(rows, asked, np.empty((1, dim), np.int8), limits, near, beyond, between)
    np.testing.assert_allclose(near, true, atol=1e-5 * dim, rtol=1e-4)
    assert not beyond[0].any()
    if apart == 1.0:  # and they are in doubt about few
        assert beyond[1].all()
    each = ((placed.astype(np.float64) - placed[0]) ** 2).sum(axis=1) + offsets + offsets[0]
    np.testing.assert_allclose(between, each, atol=1e-5 * dim, rtol=1e-4)


@EVERY_METRIC
@pytest.mark.parametrize("filtered", [False, True])
def test_rows_that_codes_do_not_tell_apart_are_ranked_all_the_same(
    metric: str, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, ef: allowed == 0)
    vectors = _tight(5, 300 if COMPILED else 30, 48, 0.02)
    queries = vectors[:: len(vectors) // 25] + np.float32(0.01)
    mask = np.arange(len(vectors)) % 3 > 0 if filtered else None
    index, exact = HnswIndex(48, metric, quantization="rabitq"), FlatIndex(48, metric)
    index.build(vectors)
    exact.build(vectors)
    _, found = index.search(queries, 10, ef=2_000, filter=mask)  # more than there are: all are met
    _, true = exact.search(queries, 10, filter=mask)
    np.testing.assert_allclose(found, true, rtol=1e-3, atol=1e-5)


@EVERY_METRIC
def test_a_comparison_with_all_rows_is_exact_where_codes_are_not(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, ef: True)
    vectors = _tight(3, 400 if COMPILED else 40, 80, 0.02)
    queries = vectors[:: len(vectors) // 12] + np.float32(0.01)
    index, exact = HnswIndex(80, metric, quantization="rabitq"), FlatIndex(80, metric)
    index.build(vectors)
    exact.build(vectors)
    _, found = index.search(queries, 10)
    _, true = exact.search(queries, 10)
    np.testing.assert_allclose(found, true, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@pytest.mark.parametrize("radius", [0.3, 0.01, 0.003])
def test_a_target_is_reached_in_clusters_however_tight(
    radius: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, hops: allowed == 0)
    vectors = _tight(15, 400, 64, radius)
    queries = vectors[::20] + np.float32(radius) * vectors[7::20][::-1] / 8
    index, exact = HnswIndex(64, "l2", quantization="rabitq"), FlatIndex(64, "l2")
    index.build(vectors)
    exact.build(vectors)
    _, found = index.search(queries, 10, target_recall=0.95)
    _, true = exact.search(queries, 10)
    assert (found <= true[:, 9:] * (1 + 1e-3)).mean() > 0.9


def test_arrays_of_an_older_layout_are_refused_by_name() -> None:
    index = HnswIndex(8, quantization="rabitq")
    index.build(np.eye(8, dtype=np.float32))
    arrays = dict(index.arrays())
    arrays["header"] = arrays["header"].copy()
    arrays["header"][0] = 2
    with pytest.raises(CorruptFileError, match=r"layout 2.*build the index again"):
        HnswIndex.from_arrays(arrays)
