"""What holds for every index: one suite, run over all of them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.samples import (
    MANY,
    METRICS,
    assert_true_distances,
    awkward_vectors,
    check_graph,
    clustered,
    recall,
)
from vecdb.errors import (
    CorruptFileError,
    DuplicateIdError,
    InvalidIdError,
    NewerFormatError,
    StoredFileNotFoundError,
)
from vecdb.index import FlatIndex, HnswIndex, IvfIndex, float_graph, placed_graph
from vecdb.index.base import Index

Make = Callable[..., Any]


class PlainIvfIndex(IvfIndex):
    """Inverted lists of float32."""

    def __init__(self, *arguments: Any, quantization: str = "none", **options: Any) -> None:
        super().__init__(*arguments, quantization=quantization, **options)


class RabitqHnsw(HnswIndex):
    """The graph of coded rows, as the index that it is by itself."""

    def __init__(self, dim: int, metric: str = "cosine", **options: Any) -> None:
        super().__init__(dim, metric, **options | {"quantization": "rabitq"})


class Sq8Hnsw(HnswIndex):
    """The compact graph."""

    rerank = "memory"

    def __init__(self, dim: int, metric: str = "cosine", **options: Any) -> None:
        how = {"quantization": "sq8", "rerank": type(self).rerank}
        super().__init__(dim, metric, **options | how)


class Sq8OnlyHnsw(Sq8Hnsw):
    """The compact graph without residuals."""

    rerank = "none"


INDEXES: list[Make] = [
    FlatIndex, HnswIndex, RabitqHnsw, Sq8Hnsw, Sq8OnlyHnsw, IvfIndex, PlainIvfIndex,
]  # fmt: skip
ALL = pytest.mark.parametrize("make", INDEXES)
TOLERANCES = {RabitqHnsw: 6e-5, Sq8Hnsw: 6e-5, Sq8OnlyHnsw: 2e-2}
"""Coordinates of 16 bits, or of 8, where others have float32."""
EVERY_METRIC = pytest.mark.parametrize("metric", METRICS)


@pytest.fixture(autouse=True)
def _always_walk_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small indexes would be scanned instead, and the graph never tested."""
    monkeypatch.setattr(float_graph, "scan_is_cheaper", lambda ef, allowed, rows: allowed == 0)
    monkeypatch.setattr(placed_graph, "scan_is_cheaper", lambda allowed, ef: allowed == 0)


def _tolerance(make: Make) -> float:
    return TOLERANCES.get(make, 2e-6)  # type: ignore[call-overload, no-any-return]


def _well_searched(index: Any, queries: np.ndarray, k: int, **options: Any) -> Any:
    """Search as thoroughly as the index can without being told to be exact."""
    if isinstance(index, HnswIndex):
        options["ef"] = 200
    if isinstance(index, IvfIndex):
        options["nprobe"] = max(1, index.list_count // 2)
    return index.search(queries, k, **options)


@ALL
@EVERY_METRIC
@given(vectors=awkward_vectors(), k=st.integers(1, 12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_answers_are_true_and_complete_whatever_the_data(
    make: Make, metric: str, vectors: np.ndarray, k: int, data: st.DataObject
) -> None:
    count = len(vectors)
    index = make(vectors.shape[1], metric)
    first = data.draw(st.integers(0, count - 1))
    if first:
        index.build(vectors[:first])
    index.add(vectors[first:])
    gone = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    if gone:
        index.remove(gone)
    live = np.ones(count, np.bool_)
    live[gone] = False
    mask = data.draw(st.none() | st.just(np.arange(count) % 2 == 0))
    allowed = live if mask is None else live & mask
    queries = vectors[:3] * np.float32(1.5) + np.float32(0.25)
    queries[~queries.any(axis=1)] = 1
    ids, distances = index.search(queries, k, filter=mask)
    assert_true_distances(metric, queries, vectors, ids, distances, _tolerance(make))
    assert ((ids >= 0).sum(1) == min(k, allowed.sum())).all()
    assert allowed[ids[ids >= 0]].all()
    assert len(index) == live.sum()
    assert index.row_count == count
    if isinstance(index, HnswIndex):
        check_graph(index)


@ALL
@EVERY_METRIC
@given(vectors=awkward_vectors(), seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3))
@settings(max_examples=12, deadline=None)
def test_what_is_removed_and_added_again_is_found_as_before(
    make: Make, metric: str, vectors: np.ndarray, seeds: list[int]
) -> None:
    count = len(vectors)
    index = make(vectors.shape[1], metric)
    index.build(vectors)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        gone = rng.choice(count, rng.integers(1, count + 1), replace=False)
        index.remove(gone)
        for some in np.array_split(gone, min(len(gone), 3)):
            index.add(vectors[some], ids=some)
    assert len(index) == count
    queries = vectors[:2] * np.float32(0.5) + np.float32(0.25)
    queries[~queries.any(axis=1)] = 1
    ids, distances = _well_searched(index, queries, count)
    assert (np.sort(ids, axis=1) == np.arange(count)).all()
    assert_true_distances(metric, queries, vectors, ids, distances, _tolerance(make))


@ALL
@pytest.mark.parametrize("left", [0, 7])
def test_an_index_of_which_little_was_left_is_filled_again(make: Make, left: int) -> None:
    vectors, queries = clustered(300, 8), clustered(20, 8, seed=1)
    index, exact = make(8, "l2"), FlatIndex(8, "l2")
    for each in (index, exact):
        each.build(vectors)
        each.remove(range(290))
        each.add(vectors[:1], ids=[300])  # graphs are built anew, and nine rows in ten are free
        each.remove([*range(290 + left, 300), 300])
        each.add(vectors[:50], ids=range(50))
    ids, _ = _well_searched(index, queries, 10)
    assert recall(ids, exact.search(queries, 10)[0]) > 0.9
    assert len(index) == 50 + left


@ALL
@EVERY_METRIC
def test_vectors_far_longer_than_the_first_are_told_apart(make: Make, metric: str) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((40, 12)).astype(np.float32)
    vectors[1:] *= 40
    vectors[30:] *= 40
    index, exact = make(12, metric), FlatIndex(12, metric)
    exact.build(vectors)
    for part in (vectors[:1], vectors[1:30], vectors[30:]):
        index.add(part)
    queries = rng.standard_normal((5, 12)).astype(np.float32)
    ids, distances = _well_searched(index, queries, 40)
    assert_true_distances(metric, queries, vectors, ids, distances, _tolerance(make))
    truth, _ = exact.search(queries, 10)
    assert recall(ids[:, :10], truth) > 0.95


@ALL
@EVERY_METRIC
def test_recall_on_clustered_vectors_added_bit_by_bit(make: Make, metric: str) -> None:
    vectors, queries = clustered(MANY, 24), clustered(50, 24, seed=1)
    exact = FlatIndex(24, metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10)
    built, grown = make(24, metric), make(24, metric)
    built.build(vectors)
    for start in range(0, MANY, MANY // 7):
        grown.add(vectors[start : start + MANY // 7])
    for index in (built, grown):
        ids, distances = _well_searched(index, queries, 10)
        assert recall(ids, truth) > 0.9
        assert_true_distances(metric, queries, vectors, ids, distances, _tolerance(make))


@ALL
@EVERY_METRIC
def test_removed_vectors_stay_away_and_their_ids_can_come_back(make: Make, metric: str) -> None:
    count = MANY // 2
    vectors, queries = clustered(count, 12), clustered(30, 12, seed=1)
    ids = np.arange(count) * 3 + 1
    index, exact = make(12, metric), FlatIndex(12, metric)
    for each in (index, exact):
        each.add(vectors, ids=ids)
        each.remove(ids[::2])
    found, _ = _well_searched(index, queries, 10)
    assert not np.isin(found, ids[::2]).any()
    assert recall(found, exact.search(queries, 10)[0]) > 0.9
    back = ids[::4]
    for each in (index, exact):
        assert each.add(vectors[::4], ids=back).tolist() == back.tolist()
    found, distances = _well_searched(index, queries, 10)
    assert recall(found, exact.search(queries, 10)[0]) > 0.9
    rows = np.where(found < 0, -1, found // 3)
    assert_true_distances(metric, queries, vectors, rows, distances, _tolerance(make))
    with pytest.raises(DuplicateIdError):
        index.add(vectors[:1], ids=back[:1])
    index.remove(back)
    assert not np.isin(_well_searched(index, queries, 10)[0], back).any()
    assert len(index) == count - len(ids[::2])


@ALL
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_filter_leaves_k_results_and_their_recall(make: Make, share: float) -> None:
    vectors, queries = clustered(MANY, 16), clustered(40, 16, seed=1)
    index, exact = make(16), FlatIndex(16)
    index.build(vectors)
    exact.build(vectors)
    mask = np.random.default_rng(2).random(MANY) < share
    truth, _ = exact.search(queries, 10, filter=mask)
    ids, _ = _well_searched(index, queries, 10, filter=mask)
    assert ((ids >= 0) == (truth >= 0)).all()
    assert mask[ids[ids >= 0]].all()
    assert recall(ids, truth) > 0.9


@ALL
def test_a_filter_far_from_the_query_still_finds_the_nearest_that_match(make: Make) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MANY, 8)).astype(np.float32)
    vectors[MANY * 3 // 4 :] += 30
    index, exact = make(8, "l2"), FlatIndex(8, "l2")
    index.build(vectors)
    exact.build(vectors)
    mask = np.arange(MANY) >= MANY * 3 // 4
    queries = vectors[:20]
    ids, _ = _well_searched(index, queries, 10, filter=mask)
    assert (ids >= 0).all()
    assert recall(ids, exact.search(queries, 10, filter=mask)[0]) > 0.9


@ALL
def test_default_ids_are_row_numbers_and_go_on_behind_ids_of_the_callers(make: Make) -> None:
    index = make(4)
    vectors = clustered(9, 4)
    assert index.add(vectors[:2]).tolist() == [0, 1]
    assert index.add(vectors[2:4], ids=[5, 4]).tolist() == [5, 4]
    assert index.add(vectors[4:6]).tolist() == [6, 7]
    index.remove([7])
    loaded = type(index).from_arrays(index.arrays())
    for each in (index, loaded):
        assert each.add(vectors[6:7], ids=[2]).tolist() == [2]
        assert each.add(vectors[7:8]).tolist() == [8]
        assert set(each.search(vectors[0], 9)[0][0].tolist()) == {0, 1, 2, 4, 5, 6, 8, -1}


@ALL
def test_default_ids_end_with_the_largest(make: Make) -> None:
    index = make(4)
    vectors = clustered(6, 4)
    assert index.add(vectors[:1], ids=[2**63 - 3]).tolist() == [2**63 - 3]
    with pytest.raises(InvalidIdError, match="2 ids do not fit"):
        index.add(vectors[1:3])
    assert index.add(vectors[1:2]).tolist() == [2**63 - 2]
    with pytest.raises(InvalidIdError, match="give ids"):
        index.add(vectors[2:3])
    assert index.add(vectors[2:4], ids=[2**63 - 1, 3]).tolist() == [2**63 - 1, 3]
    loaded = type(index).from_arrays(index.arrays())
    with pytest.raises(InvalidIdError, match="give ids"):
        loaded.add(vectors[4:5])
    assert len(index) == len(loaded) == 4


@ALL
def test_build_replaces_what_was_there(make: Make) -> None:
    index = make(4)
    index.add(clustered(9, 4), ids=range(100, 109))
    assert index.build(clustered(3, 4, seed=1), ids=[1, 2, 3]).tolist() == [1, 2, 3]
    assert len(index) == index.row_count == 3
    assert set(index.search(clustered(1, 4), 9)[0][0].tolist()) == {1, 2, 3, -1}


@ALL
@EVERY_METRIC
def test_saved_and_loaded_is_the_same_index(make: Make, metric: str, tmp_path: Path) -> None:
    count = MANY // 3
    vectors, queries = clustered(count, 20), clustered(20, 20, seed=1)
    index = make(20, metric)
    index.add(vectors[:-5], ids=np.arange(5, count)[::-1])
    index.add(vectors[-5:], ids=np.arange(5)[::-1])  # which makes room for more of their kind
    index.remove([3, 5])
    path = tmp_path / "an.index"
    index.save(path)
    loaded = type(index).load(str(path))
    _assert_equal(loaded, index, queries)
    # What was loaded lies read-only in the file; it can be changed like any other.
    for each in (loaded, index):
        each.add(vectors[-5:], ids=np.arange(count, count + 5))
        each.remove([count + 2, 7])
    _assert_equal(loaded, index, queries)
    loaded.save(path)
    _assert_equal(type(index).load(path), index, queries)


def _assert_equal(left: Index, right: Index, queries: np.ndarray) -> None:
    assert len(left) == len(right)
    assert left.row_count == right.row_count
    for k in (1, 10):
        for a, b in zip(left.search(queries, k), right.search(queries, k), strict=True):
            np.testing.assert_array_equal(a, b)


@ALL
def test_a_file_holds_only_what_is_of_the_index(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = MANY // 3
    vectors, real = clustered(count, 21), np.empty
    for memory in (0xAB, 0xCD):

        def used_before(*arguments: Any, memory: int = memory, **options: Any) -> np.ndarray:
            array: np.ndarray = real(*arguments, **options)
            array.reshape(-1).view(np.uint8)[:] = memory
            return array

        monkeypatch.setattr(np, "empty", used_before)
        index = make(21)
        index.build(vectors[: count // 2])
        index.remove(range(count // 3))
        for some in np.array_split(np.arange(count // 3), 7):
            index.add(vectors[count // 2 + some], ids=some)
        index.add(vectors[-count // 6 :])
        index.save(tmp_path / f"{memory}")
    assert (tmp_path / f"{0xAB}").read_bytes() == (tmp_path / f"{0xCD}").read_bytes()


@ALL
def test_an_empty_index_can_be_saved(make: Make, tmp_path: Path) -> None:
    make(7).save(tmp_path / "empty")
    loaded = make.load(tmp_path / "empty")  # type: ignore[attr-defined]
    assert len(loaded) == 0
    assert (loaded.search(clustered(2, 7), 3)[0] == -1).all()
    loaded.add(clustered(5, 7))
    assert loaded.search(clustered(5, 7)[2], 1)[0][0, 0] == 2


@ALL
def test_files_of_others_are_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "it"
    with pytest.raises(StoredFileNotFoundError):
        make.load(path)  # type: ignore[attr-defined]
    index = make(4)
    index.add(clustered(20, 4))
    index.save(path)
    other = next(o for o in INDEXES if o is not make)
    with pytest.raises(CorruptFileError):
        other.load(path)  # type: ignore[attr-defined]
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptFileError):
        make.load(path)  # type: ignore[attr-defined]


@ALL
def test_arrays_that_do_not_belong_together_are_refused(make: Make) -> None:
    index = make(4)
    index.add(clustered(20, 4))
    arrays = index.arrays()
    newer = arrays["header"].copy()
    newer[0] += 1
    with pytest.raises(NewerFormatError):
        make.from_arrays(arrays | {"header": newer})  # type: ignore[attr-defined]
    metricless = arrays["header"].copy()
    metricless[2] = 9
    headless = {name: array for name, array in arrays.items() if name != "header"}
    with pytest.raises(CorruptFileError):
        make.from_arrays(headless)  # type: ignore[attr-defined]
    changes = {"rows": arrays["rows"][:-1], "ids": arrays["ids"][:-1], "header": metricless}
    for name, changed in changes.items():
        with pytest.raises(CorruptFileError):
            make.from_arrays(arrays | {name: changed})  # type: ignore[attr-defined]


@ALL
def test_threads_search_one_index_and_get_the_same_answers(make: Make) -> None:
    vectors, queries = clustered(MANY, 16), clustered(40, 16, seed=1)
    index = make(16)
    index.build(vectors)
    expected = index.search(queries, 10)
    np.testing.assert_array_equal(index.search(queries, 10, threads=4)[0], expected[0])
    answers: list[Any] = [None] * 4

    def search(number: int) -> None:
        answers[number] = [index.search(query, 10) for query in queries]

    threads = [threading.Thread(target=search, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_array_equal(np.concatenate([ids for ids, _ in answer]), expected[0])
