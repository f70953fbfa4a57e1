"""hnswlib as the peer: its indexes are taken over, and its recall is reached."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.samples import METRICS, check_graph, clustered, recall
from vecdb.errors import InvalidIdError, InvalidParameterError, InvalidVectorError
from vecdb.index import FlatIndex, HnswIndex, float_graph
from vecdb.kernels.jit import COMPILED

hnswlib = pytest.importorskip(
    "hnswlib", reason="hnswlib is the peer compared with; it comes with vecdb[bench]"
)

MINILM = Path(__file__).parents[2].parent / "shared/data/pep_sentences_minilm_f16.npy"
SPACES = {"cosine": "cosine", "dot": "ip", "l2": "l2"}


def _hnswlib_index(metric: str, vectors: np.ndarray, m: int, ef: int, **options: Any) -> Any:
    index = hnswlib.Index(space=SPACES[metric], dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors) + 10, M=m, ef_construction=ef, random_seed=1)
    index.add_items(vectors, **options)
    return index


@pytest.fixture
def _always_walk_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_graph, "scan_is_cheaper", lambda ef, allowed, rows: False)


@pytest.mark.usefixtures("_always_walk_the_graph")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [5, 48])
def test_an_index_is_taken_over_without_rebuilding(metric: str, dim: int) -> None:
    vectors, queries = clustered(2_000, dim), clustered(50, dim, seed=1)
    labels = np.arange(2_000) * 7 + 3
    theirs = _hnswlib_index(metric, vectors, 8, 60, ids=labels, num_threads=1)
    ours = HnswIndex.from_hnswlib(theirs)
    check_graph(ours)
    assert (ours.m, ours.ef_construction, ours.metric) == (8, 60, metric)
    for ef in (10, 40):
        theirs.set_ef(ef)
        expected, distances = theirs.knn_query(queries, k=10, num_threads=1)
        ids, found = ours.search(queries, 10, ef=ef)
        assert recall(ids, expected.astype(np.int64)) > 0.995  # equal but for rounding at ties
        np.testing.assert_allclose(np.sort(found), np.sort(distances), atol=1e-3, rtol=1e-4)
    ours.add(vectors[:5] + np.float32(0.1), ids=[1, 2, 4, 5, 6])
    ours.remove([3, 1])
    check_graph(ours)


@pytest.mark.usefixtures("_always_walk_the_graph")
def test_deletions_are_taken_over() -> None:
    vectors = clustered(500, 12)
    theirs = _hnswlib_index("l2", vectors, 8, 60, num_threads=1)
    for label in range(0, 500, 5):
        theirs.mark_deleted(label)
    ours = HnswIndex.from_hnswlib(theirs)
    assert len(ours) == 400
    assert ours.row_count == 500
    ids, _ = ours.search(vectors, 10, ef=50)
    assert not (ids % 5 == 0).any()
    ours.add(vectors[:1], ids=[0])
    assert ours.search(vectors[0], 1)[0][0, 0] == 0


@pytest.mark.parametrize("label", [2**63, 2**64 - 1])
def test_labels_that_cannot_be_ids_are_refused(label: int) -> None:
    labels = np.array([3, label, 7], np.uint64)
    theirs = _hnswlib_index("l2", clustered(3, 4), 8, 60, ids=labels)
    with pytest.raises(InvalidIdError, match=f"label {label}"):
        HnswIndex.from_hnswlib(theirs)
    largest = _hnswlib_index("l2", clustered(1, 4), 8, 60, ids=np.array([2**63 - 1], np.uint64))
    ours = HnswIndex.from_hnswlib(largest)
    assert ours.search(clustered(1, 4), 1)[0].tolist() == [[2**63 - 1]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(wrong: float) -> None:
    vectors = clustered(3, 4)
    vectors[1, 2] = wrong
    theirs = _hnswlib_index("l2", vectors, 8, 60, ids=[5, 6, 7])
    with pytest.raises(InvalidVectorError, match="label 6"):
        HnswIndex.from_hnswlib(theirs)


def test_empty_and_uninitialised_indexes() -> None:
    empty = hnswlib.Index(space="l2", dim=4)
    with pytest.raises(InvalidParameterError, match="init_index"):
        HnswIndex.from_hnswlib(empty)
    empty.init_index(max_elements=10)
    ours = HnswIndex.from_hnswlib(empty)
    assert len(ours) == 0
    assert ours.add(clustered(3, 4)).tolist() == [0, 1, 2]
    assert ours.search(clustered(3, 4), 1)[0].ravel().tolist() == [0, 1, 2]


@pytest.mark.skipif(not COMPILED, reason="too many rows for kernels run as Python")
@pytest.mark.parametrize("metric", METRICS)
def test_recall_is_no_lower_at_equal_parameters(metric: str) -> None:
    vectors, queries = clustered(12_000, 32), clustered(1_000, 32, seed=1)
    # Two builds of one index differ by about half a point themselves on so few queries.
    _compare_recall(metric, vectors, queries, (20, 40, 80), tolerance=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.exists(), reason="needs ../shared/data, which is not there")
@pytest.mark.parametrize("metric", METRICS)
def test_recall_on_sentence_embeddings(metric: str) -> None:
    vectors = np.load(MINILM).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.random.default_rng(1).permutation(len(vectors))
    queries, base = vectors[order[:1000]], vectors[order[1000:]]
    _compare_recall(metric, base, queries, (10, 20, 40, 80), tolerance=0.005)


def _compare_recall(
    metric: str, vectors: np.ndarray, queries: np.ndarray, efs: tuple[int, ...], tolerance: float
) -> None:
    exact = FlatIndex(vectors.shape[1], metric)
    exact.build(vectors)
    truth, _ = exact.search(queries, 10, threads=2)
    theirs = _hnswlib_index(metric, vectors, 16, 200, num_threads=2)
    ours = HnswIndex(vectors.shape[1], metric, m=16, ef_construction=200, seed=1)
    ours.build(vectors, threads=2)
    for ef in efs:
        theirs.set_ef(ef)
        expected = recall(theirs.knn_query(queries, k=10)[0].astype(np.int64), truth)
        assert recall(ours.search(queries, 10, ef=ef)[0], truth) >= expected - tolerance
