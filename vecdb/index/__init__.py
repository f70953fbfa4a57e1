"""Indexes over arrays of vectors: exact, graph and inverted lists."""

from vecdb.index.byte_codes import ByteCodes
from vecdb.index.flat import FlatIndex, rank_exactly
from vecdb.index.hnsw import HnswIndex
from vecdb.index.ivf import IvfIndex
from vecdb.index.queries import Queries
from vecdb.index.row_filter import RowFilter
from vecdb.index.validate import as_matrix, as_metric
from vecdb.index.warm import warm_up

__all__ = [
    "ByteCodes",
    "FlatIndex",
    "HnswIndex",
    "IvfIndex",
    "Queries",
    "RowFilter",
    "as_matrix",
    "as_metric",
    "rank_exactly",
    "warm_up",
]
