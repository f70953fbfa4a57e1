"""Vectors for `bench.ann`, and what is true of them: the distances that a search should find."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from bench.ann_engines import Matrix

_TRUTH_BLOCK = 64
_HDF5_METRICS = {"angular": "cosine", "euclidean": "l2", "ip": "dot", "dot": "dot"}


def load(base: Path, queries: Path | None, metric: str | None) -> tuple[Matrix, Matrix, str]:
    """Read base and queries; return them with the metric.

    `base` is an .npy, with the queries in another, or an .hdf5 in the layout of ann-benchmarks:
    `train`, `test` and the attribute `distance`, which `metric` and `queries` override.
    """
    if base.suffix in (".hdf5", ".h5"):
        x, q, named = _read_hdf5(base)
        if metric is None and named not in _HDF5_METRICS:
            raise click.ClickException(
                f"{base}: distance {named!r} is none of {', '.join(_HDF5_METRICS)}; pass --metric"
            )
        metric = metric or _HDF5_METRICS[named]
    elif queries is None:
        raise click.ClickException("--queries is needed with a --base that is not .hdf5")
    else:
        x, q = np.load(base, allow_pickle=False), np.empty((0, 0))
    if queries is not None:
        q = np.load(queries, allow_pickle=False)
    metric = metric or "cosine"
    if q.ndim != 2 or x.ndim != 2 or x.shape[1] != q.shape[1] or not len(q):
        raise click.ClickException(
            f"base has shape {x.shape}, queries {q.shape}: must be (n, dim) and (nq, dim)"
        )
    return _prepared(x, metric), _prepared(q, metric), metric


def _read_hdf5(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise click.ClickException(
            f"{path} needs h5py, which is not installed (pip install vecdb[bench])"
        ) from None
    with h5py.File(path) as file:
        missing = [name for name in ("train", "test") if name not in file]
        if missing:
            raise click.ClickException(f"{path} has no {', '.join(missing)}: not ann-benchmarks'")
        return file["train"][:], file["test"][:], str(file.attrs.get("distance", "-"))


def _prepared(vectors: np.ndarray, metric: str) -> Matrix:
    """Return float32, of unit norm under cosine, so that all engines see the same."""
    ready = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric == "cosine":
        norms = np.linalg.norm(ready, axis=1, keepdims=True)
        if not norms.all():
            raise click.ClickException("a vector is zero, which has no cosine")
        ready = ready / norms
    return ready


def distances(metric: str, queries: Matrix, vectors: Matrix) -> NDArray[np.float64]:
    """Return all distances in float64, shape (queries, vectors)."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    products = q @ x.T
    if metric == "l2":
        return (q**2).sum(1)[:, None] - 2 * products + (x**2).sum(1)[None, :]
    return 1 - products


def true_limits(
    metric: str, queries: Matrix, base: Matrix, ks: list[int]
) -> dict[int, NDArray[np.float64]]:
    """Return the distances of each query's k-th nearest vector, for every k of `ks`."""
    limits: dict[int, list[NDArray[np.float64]]] = {k: [] for k in ks}
    for i in range(0, len(queries), _TRUTH_BLOCK):
        block = distances(metric, queries[i : i + _TRUTH_BLOCK], base)
        block.partition(max(ks) - 1)
        block = np.sort(block[:, : max(ks)])
        for k in ks:
            limits[k].append(block[:, k - 1])
    return {k: np.concatenate(parts) for k, parts in limits.items()}


def hits_of(
    metric: str, queries: Matrix, base: Matrix, limits: NDArray[np.float64],
    found: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    """Return how many results of each query are no further than its limit, by true distance.

    Counted by distance and not by row, since of equal vectors either is right.
    """
    hits = np.zeros(len(queries), np.int64)
    for i, (query, limit, rows) in enumerate(zip(queries, limits, found, strict=True)):
        rows = np.unique(rows[rows >= 0])
        true = distances(metric, query[None], base[rows])[0]
        hits[i] = (true <= limit + 1e-6 * (1 + abs(limit))).sum()
    return hits
