"""Input that cannot be used is refused by its own exception, before anything has changed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vecdb.errors import (
    DimensionMismatchError,
    DuplicateIdError,
    EmptyBatchError,
    InvalidIdError,
    InvalidParameterError,
    InvalidVectorError,
    LengthMismatchError,
    VecdbError,
)
from vecdb.index import ByteCodes, FlatIndex, HnswIndex, IvfIndex, Queries, as_matrix, as_metric
from vecdb.types import Metric

INDEXES = [FlatIndex, HnswIndex, IvfIndex]
X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def _with(value: float) -> np.ndarray:
    changed = X.copy()
    changed[3, 2] = value
    return changed


def _zero_row() -> np.ndarray:
    changed = X.copy()
    changed[1] = 0
    return changed


BAD_VECTORS: list[tuple[Any, type[VecdbError], str]] = [
    (X[:, :3], DimensionMismatchError, "dimension 3.*dimension 4"),
    (np.zeros((0, 4), np.float32), EmptyBatchError, "at least one"),
    ([], EmptyBatchError, "at least one"),
    (np.zeros((3, 0), np.float32), DimensionMismatchError, "dimension 0"),
    (X[None], InvalidVectorError, r"shape \(1, 5, 4\)"),
    (np.float32(1), InvalidVectorError, r"shape \(\)"),
    (X.astype(np.complex64), InvalidVectorError, "complex64"),
    (X > 0, InvalidVectorError, "bool"),
    (X.astype(str), InvalidVectorError, "dtype <U"),
    (X.astype(object), InvalidVectorError, "object"),
    ([[1.0, 2.0, 3.0, 4.0], [1.0]], InvalidVectorError, "one length"),
    (_with(np.nan), InvalidVectorError, r"\[3, 2\] is nan"),
    (_with(np.inf), InvalidVectorError, r"\[3, 2\] is inf"),
    (_with(-np.inf), InvalidVectorError, r"\[3, 2\] is -inf"),
    (_with(1).astype(np.float64) * 1e39, InvalidVectorError, "finite float32"),
    (_with(1e19), InvalidVectorError, "overflow"),
    (_zero_row(), InvalidVectorError, r"\[1\] is zero"),
    # One vector is checked by itself.
    (np.full((1, 4), 3e38, np.float32), InvalidVectorError, "overflow"),
    (np.array([1, np.nan, np.inf, -np.inf], np.float32), InvalidVectorError, r"\[0, 1\] is nan"),
    (np.array([1, 2, np.inf, -np.inf], np.float32), InvalidVectorError, r"\[0, 2\] is inf"),
]


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize(("vectors", "error", "words"), BAD_VECTORS)
def test_bad_vectors_are_refused_everywhere(
    make: Callable[..., Any], vectors: Any, error: type[VecdbError], words: str
) -> None:
    index = make(4)
    for call in (index.build, index.add, index.search):
        with pytest.raises(error, match=words):
            call(vectors)
    index.add(X)
    for call in (index.build, index.add, index.search):
        with pytest.raises(error, match=words):
            call(vectors)
    assert len(index) == index.row_count == 5
    assert index.search(X, 1)[0][:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint32])
def test_numbers_of_other_types_are_converted(dtype: type) -> None:
    matrix = as_matrix((X * 10).astype(dtype) + dtype(1), 4, Metric.L2)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous


def test_float32_rows_are_passed_on_as_they_are() -> None:
    assert as_matrix(X, 4, Metric.COSINE) is X
    assert as_matrix(X[0], 4, Metric.COSINE).shape == (1, 4)
    assert as_matrix(np.asfortranarray(X), 4, Metric.COSINE).flags.c_contiguous


def test_a_tiny_vector_still_has_a_direction() -> None:
    index = FlatIndex(4)
    index.add(np.stack([X[0] * np.float32(1e-30), X[1]]))
    ids, distances = index.search(X[0], 1)
    assert ids[0, 0] == 0
    assert distances[0, 0] == pytest.approx(0, abs=1e-5)


def test_zero_is_a_vector_like_another_under_dot_and_l2() -> None:
    for metric in ("dot", "l2"):
        assert len(FlatIndex(4, metric).add(_zero_row())) == 5


@pytest.mark.parametrize("make", INDEXES)
def test_ids_are_checked(make: Callable[..., Any]) -> None:
    index = make(4)
    refused: list[tuple[Any, type[VecdbError], str]] = [
        ([1, 2], LengthMismatchError, "2 ids.*5 vectors"),
        ([1, 2, 3, 4, 1], DuplicateIdError, "id 1 stands more than once"),
        ([1, 2, 3, 4, -1], InvalidIdError, "id -1"),
        (np.array([1, 2, 3, 4, 2**63], np.uint64), InvalidIdError, "9223372036854775808"),
        (np.arange(5.0), InvalidIdError, "float64"),
        (["a", "b", "c", "d", "e"], InvalidIdError, "<U1"),
        (np.arange(5)[:, None], InvalidIdError, r"\(5, 1\)"),
    ]
    for ids, error, words in refused:
        with pytest.raises(error, match=words):
            index.add(X, ids=ids)
    assert len(index) == 0
    assert index.add(X, ids=[7, 5, 3, 1, 2**63 - 1]).tolist() == [7, 5, 3, 1, 2**63 - 1]
    with pytest.raises(DuplicateIdError, match="id 5 is in the index"):
        index.add(X[:2], ids=[4, 5])
    with pytest.raises(InvalidIdError, match="id 6 is not in the index"):
        index.remove([7, 6])
    with pytest.raises(DuplicateIdError):
        index.remove([7, 7])
    with pytest.raises(EmptyBatchError):
        index.remove([])
    assert len(index) == 5


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("dtype", np.typecodes["AllInteger"])
def test_ids_are_integers_of_any_width(make: Callable[..., Any], dtype: str) -> None:
    index = make(4)
    ids = np.array([7, 5, 3, 1, 100], dtype)
    assert index.add(X, ids=ids).tolist() == ids.tolist()
    index.remove(ids[:2])
    assert len(index) == 3
    if np.issubdtype(dtype, np.signedinteger):
        with pytest.raises(InvalidIdError, match="id -1"):
            index.remove(np.array([-1], dtype))


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("k", [0, -1, 10_001, 10**30, 1.5, "3", True])
def test_k_is_checked(make: Callable[..., Any], k: Any) -> None:
    index = make(4)
    with pytest.raises(InvalidParameterError, match="k="):
        index.search(X, k)


@pytest.mark.parametrize(
    "call",
    [
        lambda: FlatIndex(0),
        lambda: FlatIndex(70_000),
        lambda: FlatIndex(4, "manhattan"),
        lambda: HnswIndex(4, m=1),
        lambda: HnswIndex(4, ef_construction=0),
        lambda: HnswIndex(4, seed=-1),
        lambda: HnswIndex(4, quantization="pq"),
        lambda: IvfIndex(4, nlist=0),
        lambda: IvfIndex(4, quantization="pq"),
        lambda: HnswIndex(4).search(X, ef=0),
        lambda: HnswIndex(4).search(X, threads=0),
        lambda: IvfIndex(4).search(X, nprobe=0),
        lambda: FlatIndex(4).search(X, filter=np.ones(3, np.bool_)),
        lambda: FlatIndex(4).search(X, filter=np.zeros(0)),
        lambda: HnswIndex.from_hnswlib(X),
        lambda: as_metric("L2"),
        lambda: ByteCodes(Metric.COSINE).search(Queries(X, Metric.COSINE), X, 0),
        lambda: HnswIndex(4, "cosine").search(Queries(X, Metric.L2)),
    ],
)
def test_parameters_are_checked(call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidParameterError):
        call()


def test_one_vector_and_several_are_told_of_in_grammar() -> None:
    for name, words in (("vector", "vector has dimension 3"), ("vectors", "vectors have")):
        with pytest.raises(DimensionMismatchError, match=words):
            as_matrix(np.ones((1, 3), np.float32), 4, Metric.L2, name=name)


def test_queries_that_were_checked_for_other_vectors_are_refused() -> None:
    index = HnswIndex(4)
    index.build(X)
    with pytest.raises(DimensionMismatchError, match="queries have dimension 3"):
        index.search(Queries(X[:, :3].copy(), Metric.COSINE))
    with pytest.raises(InvalidParameterError, match="checked for metric=l2: must be for cosine"):
        index.search(Queries(X, Metric.L2))
    given, checked = index.search(X[:2], 3), index.search(Queries(X[:2], Metric.COSINE), 3)
    np.testing.assert_array_equal(given[0], checked[0])


@pytest.mark.parametrize("index", INDEXES)
def test_a_dimension_has_to_be_given(index: Any) -> None:
    with pytest.raises(InvalidParameterError, match="dim=None"):
        index(None)
