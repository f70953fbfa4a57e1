"""Inverted lists of RaBitQ codes: searches against `FlatIndex`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.samples import MANY, METRICS, assert_true_distances, clustered, recall
from tests.naive import distances
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index import FlatIndex, IvfIndex
from vecdb.kernels.jit import COMPILED

EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)


@st.composite
def _points(draw: st.DrawFn) -> np.ndarray:
    dim, count = draw(st.integers(1, 200)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    kind = draw(st.sampled_from(["noise", "equal", "duplicates", "far", "large", "small"]))
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, count // 3), count)]
    elif kind == "far":
        vectors[: count // 2] += 1_000
    else:
        vectors *= {"noise": 1, "large": 1e15, "small": 1e-12}[kind]
    return vectors


@EVERY_METRIC
@pytest.mark.parametrize("rerank", ["memory", "none"])
@given(vectors=_points(), bits=st.integers(1, 8), k=st.integers(1, 12), data=st.data())
@settings(max_examples=20, deadline=None)
def test_answers_are_complete_and_allowed_whatever_the_data(
    metric: str, rerank: str, vectors: np.ndarray, bits: int, k: int, data: st.DataObject
) -> None:
    count, dim = vectors.shape
    index = IvfIndex(dim, metric, bits=bits, rerank=rerank)
    first = data.draw(st.integers(1, count))
    index.build(vectors[:first])
    if first < count:
        index.add(vectors[first:])
    gone = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    if gone:
        index.remove(gone)
    allowed = np.ones(count, np.bool_)
    allowed[gone] = False
    mask = data.draw(st.none() | st.just(np.arange(count) % 2 == 0))
    allowed = allowed if mask is None else allowed & mask
    ids, found = index.search(vectors[:3], k, filter=mask, nprobe=1)
    assert ((ids >= 0).sum(1) == min(k, allowed.sum())).all()
    assert allowed[ids[ids >= 0]].all()
    assert np.isfinite(found[ids >= 0]).all()
    if rerank == "memory":
        assert_true_distances(metric, vectors[:3], vectors, ids, found)


@EVERY_METRIC
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_all_lists_searched_with_vectors_kept_is_nearly_exact(metric: str, bits: int) -> None:
    vectors, queries = clustered(MANY, 70), clustered(50, 70, seed=1)
    exact, index = FlatIndex(70, metric), IvfIndex(70, metric, bits=bits)
    for each in (exact, index):
        each.build(vectors)
    truth, _ = exact.search(queries, 10)
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    assert recall(ids, truth) > 0.97
    assert_true_distances(metric, queries, vectors, ids, found)


@EVERY_METRIC
def test_more_bits_alone_tell_distances_better(metric: str) -> None:
    vectors, queries = clustered(MANY, 96), clustered(50, 96, seed=1)
    exact = FlatIndex(96, metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    recalls, errors = [], []
    for bits in (1, 4, 7):
        index = IvfIndex(96, metric, bits=bits, rerank="none")
        index.build(vectors)
        ids, found = index.search(queries, 10, nprobe=index.list_count)
        table = distances(metric, queries, vectors)
        true = np.take_along_axis(table, ids, axis=1)
        recalls.append(recall(ids, truth))
        errors.append(float(np.abs(found - true).mean() / table.std()))
    assert recalls[1] > 0.8
    assert recalls[2] > 0.95
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 0.01


@EVERY_METRIC
def test_clusters_far_apart_do_not_drown_in_rounding(metric: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MANY // 2, 48)).astype(np.float32)
    vectors[: len(vectors) // 2] += 300
    queries = vectors[:: len(vectors) // 20] + np.float32(0.1)
    exact, index = FlatIndex(48, metric), IvfIndex(48, metric)
    for each in (exact, index):
        each.build(vectors)
    _, near = exact.search(queries, 10)
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    assert_true_distances(metric, queries, vectors, ids, found)
    if metric == "dot":
        return  # the codes tell little of a query near the origin, far from all centres
    scale = 1e-6 * np.abs(distances(metric, queries, vectors)).max()
    assert (found <= near[:, -1:] + scale).mean() > 0.9


def test_a_batch_is_answered_as_its_queries_one_by_one() -> None:
    vectors, queries = clustered(MANY, 40), clustered(70, 40, seed=1)
    index = IvfIndex(40)
    index.build(vectors)
    ids, found = index.search(queries, 5, threads=2)
    for i, query in enumerate(queries):
        one, near = index.search(query, 5)
        np.testing.assert_array_equal(one[0], ids[i])
        np.testing.assert_array_equal(near[0], found[i])


def test_more_lists_than_are_sorted_at_once_are_searched_too() -> None:
    vectors = clustered(MANY, 8)
    count = 600 if COMPILED else 60
    index, exact = IvfIndex(8, "l2", nlist=count), FlatIndex(8, "l2")
    for each in (index, exact):
        each.build(vectors)
    queries = clustered(40, 8, seed=1)
    ids, _ = index.search(queries, 10, nprobe=count)
    assert recall(ids, exact.search(queries, 10)[0]) > 0.98


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05])
@pytest.mark.parametrize("rerank", ["memory", "none"])
def test_filters_keep_their_recall(share: float, rerank: str) -> None:
    vectors, queries = clustered(MANY, 32), clustered(40, 32, seed=1)
    index, exact = IvfIndex(32, bits=8, rerank=rerank), FlatIndex(32)
    for each in (index, exact):
        each.build(vectors)
    mask = np.random.default_rng(2).random(MANY) < share
    truth, _ = exact.search(queries, 10, filter=mask)
    ids, _ = index.search(queries, 10, nprobe=max(1, index.list_count // 2), filter=mask)
    assert ((ids >= 0) == (truth >= 0)).all()
    assert mask[ids[ids >= 0]].all()
    assert recall(ids, truth) > 0.9


@pytest.mark.parametrize("rerank", ["memory", "mmap", "none"])
def test_lists_are_made_anew_as_an_index_grows(rerank: str) -> None:
    vectors, queries = clustered(MANY, 24), clustered(40, 24, seed=1)
    grown, exact = IvfIndex(24, bits=8, rerank=rerank), FlatIndex(24)
    exact.build(vectors)
    first = MANY // 20
    grown.add(vectors[:first])
    lists = grown.list_count
    for start in range(first, MANY, MANY // 9):
        grown.add(vectors[start : start + MANY // 9])
    assert grown.list_count > lists
    ids, _ = grown.search(queries, 10, nprobe=grown.list_count)
    assert recall(ids, exact.search(queries, 10)[0]) > 0.9


@EVERY_METRIC
@pytest.mark.parametrize(
    "options", [{"quantization": "none"}, {"bits": 1}, {}, {"bits": 8, "rerank": "none"}], ids=str
)
def test_removed_rows_give_their_places_to_new_ones(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    vectors, queries = clustered(MANY // 2, 24), clustered(40, 24, seed=1)
    index, exact = IvfIndex(24, metric, **options), FlatIndex(24, metric)
    for each in (index, exact):
        each.build(vectors)
    before = sum(array.nbytes for array in index.arrays().values())
    rng = np.random.default_rng(5)
    for part in range(3):
        gone = rng.choice(len(vectors), len(vectors) // 2, replace=False)
        index.remove(gone)
        if part == 1:  # as from a file, whose arrays are read-only
            index.save(tmp_path / "i")
            index = IvfIndex.load(tmp_path / "i")
        for some in np.array_split(gone, 3):
            index.add(vectors[some], ids=some)
        assert index.row_count == len(index) == len(vectors)
    assert sum(array.nbytes for array in index.arrays().values()) < 1.3 * before
    ids, found = index.search(queries, 10, nprobe=index.list_count)
    truth, _ = exact.search(queries, 10)
    assert recall(ids, truth) > 0.9
    if options.get("rerank") != "none":
        assert_true_distances(metric, queries, vectors, ids, found)
    assert index.add(vectors[:1] * 2)[0] > len(vectors), "an id that none ever had"


@EVERY_METRIC
@pytest.mark.parametrize("options", [{"bits": 1}, {"rerank": "mmap"}, {"rerank": "none"}], ids=str)
def test_saved_and_loaded_answers_the_same(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    vectors, queries = clustered(MANY // 3, 20), clustered(20, 20, seed=1)
    index = IvfIndex(20, metric, **options)
    index.build(vectors)
    index.remove([3, 5])
    index.save(tmp_path / "i")
    loaded = IvfIndex.load(tmp_path / "i")
    assert (loaded.bits, loaded.rerank) == (index.bits, index.rerank)
    for each in (index, loaded):
        each.add(vectors[:7], ids=range(MANY, MANY + 7))
    for a, b in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lists_of_float32_from_before_there_were_codes_can_be_read() -> None:
    index = IvfIndex(6, quantization="none")
    index.build(clustered(30, 6))
    arrays = index.arrays()
    header = arrays["header"][:6].copy()
    header[0] = 1
    old = IvfIndex.from_arrays(arrays | {"header": header})
    assert old.quantization == "none"
    for a, b in zip(old.search(clustered(3, 6)), index.search(clustered(3, 6)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_is_that_of_the_codes_when_vectors_are_not_kept() -> None:
    index = IvfIndex(384, bits=4, rerank="none", nlist=4)
    index.build(clustered(640 if COMPILED else 128, 384))
    per_vector = sum(a.nbytes for n, a in index.arrays().items() if n != "centroids")
    per_vector /= len(index)
    assert per_vector < 384 * 4 / 8 * 2


def _broken(index: IvfIndex, **changes: Any) -> Callable[[], IvfIndex]:
    return lambda: IvfIndex.from_arrays(index.arrays() | changes)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    index = IvfIndex(8)
    index.build(clustered(40, 8))
    arrays = index.arrays()
    header, fewer = arrays["header"].copy(), arrays["header"].copy()
    header[-2], fewer[-1] = 7, 39
    with pytest.raises(CorruptFileError, match="39 ids"):
        _broken(index, header=fewer)()
    for name, changed in {
        "header": header,
        "extra": arrays["extra"][:-1],
        "blocks": arrays["blocks"][:-1],
        "vectors": arrays["vectors"][:, :-1],
        "mean": arrays["mean"][:-1],
    }.items():
        with pytest.raises(CorruptFileError):
            _broken(index, **{name: changed})()


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 0},
        {"bits": 9},
        {"rerank": "disk"},
        {"quantization": "sq8"},
        {"quantization": "none", "bits": 4},
        {"quantization": "none", "rerank": "none"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        IvfIndex(8, **options)
    assert "must be" in str(caught.value) or "need" in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_long_vectors_do_not_take_the_places_of_others_under_dot(bits: int) -> None:
    rng = np.random.default_rng(bits)
    vectors = rng.standard_normal((MANY, 24)) * (rng.pareto(1.5, (MANY, 1)) + 0.1)
    vectors, queries = vectors.astype(np.float32), rng.standard_normal((40, 24), np.float32)
    index, exact = IvfIndex(24, "dot", bits=bits), FlatIndex(24, "dot")
    index.build(vectors)
    exact.build(vectors)
    found, _ = index.search(queries, 10, nprobe=10_000)
    assert recall(found, exact.search(queries, 10)[0]) > 0.99


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
def test_rows_that_codes_cannot_tell_apart_are_compared_exactly() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((6_000, 128), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, queries = (
        vectors[7] + 0.002 * rng.standard_normal((count, 128), np.float32) for count in (400, 200)
    )
    index, exact = IvfIndex(128), FlatIndex(128)
    for each in (index, exact):
        each.build(vectors)
        each.add(near)
    truth, _ = exact.search(queries, 10)
    assert recall(index.search(queries, 10, target_recall=0.99)[0], truth) > 0.9
