"""Indexes over arrays of vectors: exact, graph and inverted lists. No file is opened here."""

from vecdb.index.flat import FlatIndex, exact_search
from vecdb.index.hnsw import HnswIndex
from vecdb.index.ivf import IvfIndex

__all__ = ["FlatIndex", "HnswIndex", "IvfIndex", "exact_search"]
