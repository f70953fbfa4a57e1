"""k-means (Lloyd), its distances by matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.jit import kernel

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

_BLOCK = 1024
"""Vectors whose scores are in the cache when the best is looked for."""
_SPLIT = np.float32(1 / 1024)


@kernel
def _add_up(vectors: Any, assigned: Any, sums: Any, counts: Any) -> None:
    """Add every vector (n, dim) to the sum (k, dim) of its cluster."""
    for i in range(vectors.shape[0]):
        cluster = assigned[i]
        counts[cluster] += 1
        for j in range(vectors.shape[1]):
            sums[cluster, j] += vectors[i, j]


def assign(vectors: Floats, centroids: Floats) -> Numbers:
    """Return the number of the centroid nearest to each vector, by Euclidean distance.

    Parameters
    ----------
    vectors
        float32 (n, dim).
    centroids
        float32 (k, dim).

    Returns
    -------
    ndarray
        int64 (n,).
    """
    half_norms = np.einsum("ij,ij->i", centroids, centroids) / np.float32(2)
    nearest = np.empty(len(vectors), np.int64)
    for first in range(0, len(vectors), _BLOCK):
        part = slice(first, first + _BLOCK)
        scores = vectors[part] @ centroids.T
        scores -= half_norms
        np.argmax(scores, axis=1, out=nearest[part])
    return nearest


def _reseed_empty(centroids: Floats, counts: Numbers) -> None:
    """Move each empty cluster's centroid beside that of a large cluster, to split it."""
    sizes = counts.astype(np.float64)
    signs = np.where(np.arange(centroids.shape[1]) % 2 == 0, _SPLIT, -_SPLIT).astype(np.float32)
    for empty in np.flatnonzero(counts == 0):
        largest = int(np.argmax(sizes))
        centroids[empty] = centroids[largest] * (1 + signs)
        centroids[largest] *= 1 - signs
        sizes[largest] /= 2
        sizes[empty] = sizes[largest]


def kmeans(
    vectors: Floats, clusters: int, *, iterations: int, spherical: bool, rng: np.random.Generator
) -> Floats:
    """Find centroids of vectors.

    Parameters
    ----------
    vectors
        float32 (n, dim), n at least `clusters`.
    clusters
        How many centroids to find.
    iterations
        How often vectors are assigned and centroids moved.
    spherical
        Keep the centroids at unit norm, for vectors compared by angle.
    rng
        Chooses the first centroids.

    Returns
    -------
    ndarray
        float32 (clusters, dim). Some may have no vector nearest to them, if vectors are equal.
    """
    vectors = vectors.view()
    vectors.flags.writeable = False
    chosen = np.sort(rng.choice(len(vectors), clusters, replace=False))
    centroids = np.ascontiguousarray(vectors[chosen])
    for _ in range(iterations):
        assigned = assign(vectors, centroids)
        sums = np.zeros(centroids.shape, np.float64)
        counts = np.zeros(clusters, np.int64)
        _add_up(vectors, assigned, sums, counts)
        centroids = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        _reseed_empty(centroids, counts)
        if spherical:
            norms = np.sqrt(np.einsum("ij,ij->i", centroids, centroids))
            centroids /= np.maximum(norms, np.float32(1e-20))[:, None]
    return centroids
