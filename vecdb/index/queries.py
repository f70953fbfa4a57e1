"""Query vectors that were checked once, for searches of several indexes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from vecdb.errors import InvalidParameterError
from vecdb.index.rows import prepared_queries
from vecdb.index.validate import as_matrix
from vecdb.types import Matrix, Metric


class Queries:
    """Checked query vectors; `HnswIndex.search` takes them without another look.

    Parameters
    ----------
    vectors
        float32 (nq, dim), as `as_matrix` returned them for the metric.
    metric
        cosine, dot or l2.
    """

    def __init__(self, vectors: Matrix, metric: Metric) -> None:
        self.vectors = vectors
        self.metric = metric

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.vectors)

    @cached_property
    def prepared(self) -> Matrix:
        """The queries as `prepared_queries` makes them."""
        return prepared_queries(self.vectors, self.metric)


def query_matrix(queries: Any, dim: int, metric: Metric) -> Matrix:
    """Return queries as float32 rows, checked unless they were.

    Raises
    ------
    DimensionMismatchError, EmptyBatchError, InvalidVectorError
        As `as_matrix`.
    InvalidParameterError
        If they were checked for another metric.
    """
    if isinstance(queries, Queries):
        if queries.metric is not metric:
            raise InvalidParameterError(
                f"queries were checked for metric={queries.metric!s}: must be for {metric!s}"
            )
        if queries.vectors.shape[1] == dim:
            return queries.vectors
        queries = queries.vectors
    return as_matrix(queries, dim, metric, name="queries")
