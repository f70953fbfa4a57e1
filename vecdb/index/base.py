"""What every index can do, and how a search is spread over threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.kernels import distance
from vecdb.types import MatrixLike, Metric, VectorLike

Ids = NDArray[np.int64]
Distances = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]

METRIC_NUMBERS = {
    Metric.L2: distance.L2,
    Metric.DOT: distance.DOT,
    Metric.COSINE: distance.COSINE,
}


def metric_of_number(number: int) -> Metric:
    """Return the metric that a stored number stands for.

    Raises
    ------
    CorruptFileError
        If it stands for none.
    """
    for metric, its_number in METRIC_NUMBERS.items():
        if its_number == number:
            return metric
    raise CorruptFileError(f"metric number {number} is not one of {[*METRIC_NUMBERS.values()]}")


CORRECTIONS = {
    Metric.L2: np.float32(0),
    Metric.DOT: np.float32(1),
    Metric.COSINE: np.float32(1),
}
"""What is added to a kernel's cheap distance: cosine and dot distances are 1 - similarity."""


class Index(Protocol):
    """Vectors under integer ids, and the nearest of them to a query.

    Distances are those of hnswlib: 1 - cosine, 1 - inner product, squared Euclidean distance.
    Several threads may search an index while no thread changes it.
    """

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""

    @property
    def row_count(self) -> int:
        """How many rows there are, removed ones included: the length of a filter."""

    def __len__(self) -> int:
        """Return how many vectors can be found."""

    def build(self, vectors: MatrixLike, *, ids: Any = None, threads: int = 1) -> Ids:
        """Replace the contents; return the ids."""

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors; return their ids, by default the next row numbers or larger."""

    def remove(self, ids: Any) -> None:
        """Remove vectors, so that they are not found any more."""

    def search(
        self, queries: VectorLike | MatrixLike, k: int = 10, *, threads: int = 1, filter: Any = None
    ) -> tuple[Ids, Distances]:
        """Return ids (nq, k) and distances (nq, k), best first, padded with -1 and infinity."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over arrays, which may be read-only, without copying the large ones."""

    def save(self, path: str) -> None:
        """Write the index to a file."""

    @classmethod
    def load(cls, path: str) -> Self:
        """Open an index that `save` wrote."""


def over_threads(threads: int, count: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, last)`` for stretches of `count` items, on that many threads."""
    if threads <= 1 or count <= 1:
        work(0, count)
        return
    edges = np.linspace(0, count, min(threads, count) + 1).astype(int).tolist()
    with ThreadPoolExecutor(len(edges) - 1) as pool:
        parts = [pool.submit(work, a, b) for a, b in itertools.pairwise(edges)]
        for part in parts:
            part.result()


def over_parts(threads: int, work: Callable[..., None], *arrays: NDArray[Any]) -> None:
    """Call `work` with stretches of arrays of one length, on that many threads."""
    if threads <= 1:
        work(*arrays)
        return

    def take(first: int, last: int) -> None:
        work(*(array[first:last] for array in arrays))

    over_threads(threads, len(arrays[0]), take)
