"""The space in which a coded graph compares: rotated, and Euclidean for every metric."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.rows import frozen
from vecdb.kernels.distance import store_rows
from vecdb.kernels.rotation import draw_signs, rotate, rotated_dim
from vecdb.types import Matrix, Metric

Floats = NDArray[np.float32]

_SCALES = {
    metric: frozen(np.array([factor, 0], np.float32))
    for metric, factor in ((Metric.L2, 1), (Metric.COSINE, 0.5), (Metric.DOT, 1))
}
"""What a squared distance is multiplied by, and what is added; under dot a query has its own."""

_STRETCH = 2
"""How much longer than M vectors may be, or how much shorter the longest."""
_ROUNDING = 1e-8
"""Of the centre's squared norm: so near, squared, another is no better."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedSpace:
    """What takes vectors and queries into the space.

    Vectors are moved by the mean of the first ones, or of later ones that lie elsewhere, so that
    quantisation is spent on what tells them apart, and rotated. Squared distances there order as
    the metric does:

    ========= ======================== ===================== =============================
    metric    vector                   offset of a row       distance from squared one, d
    ========= ======================== ===================== =============================
    l2        as given                 0                     ``d``
    cosine    at unit norm             0                     ``d / 2``
    dot       as given                 ``M**2 - |x|**2``     ``1 + t (d - 2 M**2) / 2``
    ========= ======================== ===================== =============================

    Under dot a query q is brought to the norm M, which is the largest of the vectors' norms to
    within a factor, and ``t = |q| / M`` (Bachrach et al. 2014, without the coordinate more).
    """

    metric: Metric
    centre: Floats
    """(dim,): what is taken away from vectors and queries."""
    norm: float
    """M."""
    signs: Floats
    """The rotation."""

    @classmethod
    def of(cls, vectors: Matrix, metric: Metric, seed: int) -> CodedSpace:
        """Choose the space for checked vectors (n, dim)."""
        normalised = vectors
        if metric is Metric.COSINE:
            normalised = np.empty_like(vectors)
            store_rows(vectors, True, normalised, 0)
        centre = normalised.mean(axis=0, dtype=np.float64).astype(np.float32)
        norm = 1.0
        if metric is Metric.DOT:
            norm = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max())) or 1.0
        return cls(metric, centre, norm, draw_signs(vectors.shape[1], seed))

    def stretched_for(self, vectors: Matrix) -> CodedSpace:
        """Return this space, or under dot one in which M suits longer vectors.

        Were queries much shorter than a vector, rounding would drown what tells their inner
        products apart.
        """
        if self.metric is not Metric.DOT:
            return self
        longest = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0)))
        return replace(self, norm=longest) if longest > _STRETCH * self.norm else self

    @property
    def width(self) -> int:
        """Coordinates of the space."""
        return rotated_dim(len(self.centre))

    def place_vectors(self, vectors: Matrix) -> tuple[Floats, Floats]:
        """Return the coordinates (n, width) of checked vectors, and their offsets (n,)."""
        offsets = np.zeros(len(vectors), np.float32)
        if self.metric is Metric.DOT:
            offsets[:] = np.float32(self.norm**2) - np.einsum("ij,ij->i", vectors, vectors)
        return self._placed(vectors), offsets

    def place_again(
        self, coordinates: Floats, offsets: Floats, before: CodedSpace
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """Return what `place_vectors` would of vectors that were placed in an earlier space.

        They are as exact as they were there.
        """
        centre = before.placed_centre()
        if self.norm >= before.norm:
            offsets = offsets + np.float32(self.norm**2 - before.norm**2)
        else:  # a far larger M has drowned the norms in the offsets
            vectors = coordinates + centre
            offsets = np.float32(self.norm**2) - np.einsum("ij,ij->i", vectors, vectors)
        return coordinates + (centre - self.placed_centre()), offsets

    def place_queries(self, queries: Matrix) -> tuple[Floats, Floats]:
        """Return the coordinates (nq, width) of checked queries, and their scales.

        The scales (nq, 2) make squared distances to distances: a factor, and what is added.
        """
        scales = np.empty((len(queries), 2), np.float32)
        scales[:] = _SCALES[self.metric]
        if self.metric is Metric.DOT:
            norms = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
            stretch = norms / self.norm
            safe = np.where(stretch > 0, stretch, 1)
            queries = (queries / safe[:, None]).astype(np.float32)
            scales[:, 0] = stretch / 2
            scales[:, 1] = 1 - stretch * self.norm**2
        return self._placed(queries), scales

    def query_again(self, coordinates: Floats) -> Floats:
        """Return the coordinates (n, width) that vectors placed as rows have as queries."""
        if self.metric is not Metric.DOT:
            return np.ascontiguousarray(coordinates)
        centre = self.placed_centre()
        vectors = coordinates + centre
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        stretch = self.norm / np.where(norms > 0, norms, self.norm)
        return np.asarray(vectors * stretch[:, None] - centre, np.float32)

    def move_back(self, coordinates: Floats) -> None:
        """Make coordinates (n, width), in place, those of the vectors before they were moved."""
        coordinates += self.placed_centre()

    def placed_centre(self) -> Floats:
        """Return the centre (1, width), rotated."""
        return rotate(self.centre[None, :].copy(), self.signs)

    def _placed(self, vectors: Matrix) -> Floats:
        return rotate(
            vectors, self.signs, self.centre, normalise=self.metric is Metric.COSINE
        )  # fmt: skip


class Moments:
    """How rows lie in a space, by which it is told whether that suits them.

    Parameters
    ----------
    space
        Where they are.
    """

    def __init__(self, space: CodedSpace) -> None:
        self._space = space
        self._centre = space.placed_centre()
        self._count, self._squares, self._longest = 0, 0.0, 0.0
        self._total = np.zeros(space.width)

    def include(self, coordinates: Floats) -> None:
        """Take rows (n, width) into account."""
        self._count += len(coordinates)
        self._total += coordinates.sum(axis=0, dtype=np.float64)
        self._squares += float(np.einsum("ij,ij->i", coordinates, coordinates).sum(dtype="f8"))
        if self._space.metric is Metric.DOT:
            vectors = coordinates + self._centre
            longest = np.einsum("ij,ij->i", vectors, vectors).max(initial=0)
            self._longest = max(self._longest, float(np.sqrt(longest)))

    def suited(self) -> CodedSpace:
        """Return the space, or another where most rows lie far to one side, or M is too large."""
        space = self._space
        mean = self._total / self._count
        aside = float(mean @ mean)
        if aside > max(self._squares / self._count - aside, _ROUNDING * _squared(space.centre)):
            axes = rotate(np.eye(len(space.centre), dtype=np.float32), space.signs)
            space = replace(space, centre=np.asarray(space.centre + axes @ mean, np.float32))
        if 0 < _STRETCH * self._longest < space.norm:
            space = replace(space, norm=self._longest)
        return space


def _squared(vector: Floats) -> float:
    return float(vector.astype(np.float64) @ vector)
