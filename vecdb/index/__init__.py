"""Indexes over arrays of vectors: exact, graph and inverted lists."""

from vecdb.index.flat import FlatIndex, exact_search, rank_exactly, reciprocal_norms
from vecdb.index.hnsw import HnswIndex
from vecdb.index.ivf import IvfIndex
from vecdb.index.validate import as_matrix, as_metric
from vecdb.index.warm import warm_up

__all__ = [
    "FlatIndex",
    "HnswIndex",
    "IvfIndex",
    "as_matrix",
    "as_metric",
    "exact_search",
    "rank_exactly",
    "reciprocal_norms",
    "warm_up",
]
