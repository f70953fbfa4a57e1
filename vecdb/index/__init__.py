"""Indexes over arrays of vectors: exact, graph and inverted lists. No file is opened here."""

from vecdb.index.flat import FlatIndex, exact_search
from vecdb.index.hnsw import HnswIndex

__all__ = ["FlatIndex", "HnswIndex", "exact_search"]
