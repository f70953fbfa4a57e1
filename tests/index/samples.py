"""Vectors, comparisons and checks that the index tests share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.naive import distances, nearest
from vecdb.index import HnswIndex
from vecdb.kernels.code_simd import BLOCK
from vecdb.kernels.coded_rows import coded_rows, ids_of
from vecdb.kernels.jit import COMPILED
from vecdb.kernels.rotation import rotated_dim

METRICS = ["cosine", "dot", "l2"]

MANY = 3_000 if COMPILED else 160
"""Enough vectors for a graph with layers; few enough for kernels run as Python."""


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors around a few centres, of different lengths: easier than noise, harder than a line."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, count // 100), dim))
    vectors = centres[rng.integers(len(centres), size=count)]
    vectors = vectors + 0.7 * rng.standard_normal((count, dim))
    return (vectors * rng.uniform(0.7, 1.4, (count, 1))).astype(np.float32)


@st.composite
def awkward_vectors(draw: st.DrawFn, least: int = 1, most: int = 40) -> np.ndarray:
    """Vectors as data has them at its worst: duplicates, one cluster far away, any dimension."""
    count = draw(st.integers(least, most))
    dim = draw(st.sampled_from([1, 2, 3, 15, 16, 17, 33]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "equal", "duplicates", "far", "grid"]))
    vectors = rng.standard_normal((count, dim))
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, count // 3), count)]
    elif kind == "far":
        vectors[: count // 2] += 1_000
    elif kind == "grid":
        vectors = rng.integers(-2, 3, (count, dim)) + 0.5
    vectors = vectors.astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1
    return vectors


def assert_true_distances(
    metric: str, queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, found: np.ndarray,
    tolerance: float = 2e-6,
) -> None:  # fmt: skip
    """Every distance returned is that of the row beside it, and lines ascend without repeats."""
    table = distances(metric, queries, vectors)
    scale = 1 + float(np.abs(table).max(initial=0))
    for line, its_rows, its_found in zip(table, rows, found, strict=True):
        real = its_rows >= 0
        np.testing.assert_allclose(its_found[real], line[its_rows[real]], atol=tolerance * scale)
        assert np.isinf(its_found[~real]).all()
        assert (np.diff(its_found[real]) >= 0).all()
        assert len(set(its_rows[real].tolist())) == real.sum()


def assert_exact(
    metric: str, queries: np.ndarray, vectors: np.ndarray, k: int, mask: np.ndarray | None,
    answer: tuple[np.ndarray, np.ndarray],
) -> None:  # fmt: skip
    """Compare rows and distances with those of the plain form of an exact search."""
    rows, found = answer
    _, expected = nearest(metric, queries, vectors, k, mask)
    assert_true_distances(metric, queries, vectors, rows, found)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    scale = 1 + np.abs(distances(metric, queries, vectors)).max()
    np.testing.assert_allclose(found[finite], expected[finite], atol=2e-6 * scale)
    assert mask is None or mask[rows[rows >= 0]].all()


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of true neighbours that were found."""
    lines = zip(found.tolist(), truth.tolist(), strict=True)
    hits = [len(set(a) & (set(b) - {-1})) for a, b in lines]
    return sum(hits) / int((truth >= 0).sum())


def check_graph(index: HnswIndex) -> None:
    """Walk the whole graph of an index and check its invariants."""
    arrays = index.arrays()
    count = len(arrays["ids"])
    if count == 0:
        return
    if index.quantization != "none":
        _check_flat_graph(index, arrays)
        return
    *_, m, m0, _, _, entry, top = arrays["header"].tolist()
    levels, starts = arrays["levels"].astype(int), arrays["upper_start"]
    column = -(-index.dim // 16) * 16
    base = arrays["rows"].view(np.int32)[:, column : column + m0]
    assert top == levels[entry]
    twins = _check_twins(arrays["twins"], arrays["rows"][:, :column])
    assert not twins[entry]
    assert (arrays["rows"][:, index.dim : column] == 0).all()
    for layer in range(top + 1):
        nodes = np.flatnonzero((levels >= layer) & ~twins)
        lists = base[nodes] if layer == 0 else arrays["upper"][starts[nodes] + layer - 1]
        assert lists.shape == (len(nodes), m0 if layer == 0 else m)
        for node, links in zip(nodes.tolist(), lists.tolist(), strict=True):
            used = [link for link in links if link >= 0]
            assert links[: len(used)] == used, "a gap in a link list"
            assert len(set(used)) == len(used), "a link twice"
            assert node not in used, "a link to itself"
            assert all(levels[link] >= layer for link in used), "a link off its layer"
            assert not twins[used].any(), "a link to a twin"


def _check_flat_graph(index: HnswIndex, arrays: dict[str, np.ndarray]) -> None:
    """Check links, twins, and that what is linked are nodes."""
    width = rotated_dim(index.dim)
    if index.quantization == "sq8":
        # Without the offset, whose last bit differs where a longer vector came in between.
        own = [arrays["rows"][:, : width + 12]]
        if index.rerank != "none":
            own.append(arrays["residuals"].view(np.uint8))
        first = width // 4 + 4
        lists = arrays["rows"].view(np.int32)[:, first : first + 2 * index.m]
        assert lists.shape[1] == 2 * index.m
    else:
        own = [arrays["rows"][:, :width], arrays["residuals"].view(np.uint8)]
        degree = -(-2 * index.m // BLOCK) * BLOCK
        rows = coded_rows(arrays["rows"], arrays["residuals"], width, degree)
        places = [ids_of(rows, j // BLOCK) + j % BLOCK for j in range(degree)]
        lists = rows.ids[:, places]
    twins = _check_twins(arrays["twins"], np.hstack(own))
    linked = np.zeros(len(twins), np.bool_)
    for node in np.flatnonzero(~twins).tolist():
        used = lists[node][lists[node] >= 0]
        assert len(set(used.tolist())) == len(used), "a link twice"
        assert node not in used, "a link to itself"
        assert not twins[used].any(), "a link to a twin"
        linked[used] = True
    assert not linked[twins].any()


def _check_twins(following: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Check the lists of rows with equal vectors; return which rows are behind another."""
    behind = following[following >= 0]
    assert len(set(behind.tolist())) == len(behind), "a row twice among twins"
    before = np.flatnonzero(following >= 0)
    np.testing.assert_array_equal(vectors[before], vectors[following[before]])
    is_behind = np.zeros(len(following), np.bool_)
    is_behind[behind] = True
    for row in np.flatnonzero(~is_behind & (following >= 0)).tolist():
        steps = 0
        while row >= 0:
            row, steps = int(following[row]), steps + 1
            assert steps <= len(following), "twins in a circle"
    return is_behind
