"""Compiling every kernel ahead of the first real call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vecdb.index.byte_codes import ByteCodes
from vecdb.index.coded_seeds import cover_clusters
from vecdb.index.flat import FlatIndex, rank_exactly
from vecdb.index.graph_bulk import bulk_graph
from vecdb.index.hnsw import HnswIndex
from vecdb.index.ivf import IvfIndex
from vecdb.index.queries import Queries
from vecdb.index.query_rows import LEAST_ROWS
from vecdb.index.row_filter import RowFilter
from vecdb.index.workers import Workers
from vecdb.types import Metric

_ROWS = LEAST_ROWS


def warm_up(report: Callable[[str], object] | None = None) -> None:
    """Compile all kernels, or load them from the cache, by using each index once.

    Takes about a minute the first time on a machine, and a second or two from then on.

    Parameters
    ----------
    report
        Called with a line of text before each step.
    """
    tell = report or (lambda _: None)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((_ROWS, 17)).astype(np.float32)
    mask = np.arange(_ROWS) % 5 > 0
    tell("kernels of exact search")
    asked = Queries(vectors[:1], Metric.COSINE)
    ByteCodes(Metric.COSINE).search(asked, vectors, 3, RowFilter(mask))
    flat = FlatIndex(17)
    flat.build(vectors)
    flat.search(vectors[:5], 3, filter=mask)
    graph = HnswIndex(17, m=4, ef_construction=10)
    tell("kernels that build graphs")
    graph.build(vectors[: _ROWS // 2])
    graph.add(vectors[_ROWS // 2 :])
    tell("kernels that search graphs")
    graph.search(vectors[:1], 1, ef=2)
    graph.search(vectors[:1], 1, ef=2, filter=mask)
    tell("kernels that build graphs of codes")
    coded = HnswIndex(17, quantization="rabitq")
    coded.build(vectors[:-1])
    coded.add(vectors[-1:])
    wide = np.repeat(vectors[:, :16], 4, axis=1)
    drawn = np.zeros(1, np.int32)
    cover_clusters(wide, bulk_graph(wide, Metric.L2, 32), drawn, Workers(), rng)
    tell("kernels that search graphs of codes")
    rows, distances = coded.search(vectors[:1], 1, ef=2)
    coded.search(vectors[:1], 1, ef=2, filter=np.arange(_ROWS) < 5)
    rank_exactly(Metric.COSINE, asked, vectors, rows, distances)
    compact = HnswIndex(17, quantization="sq8")
    compact.build(vectors[:-1])
    compact.add(vectors[-1:])
    compact.search(vectors[:1], 1, ef=2)
    compact.search(vectors[:1], 1, ef=2, filter=np.arange(_ROWS) < 5)
    tell("kernels of inverted lists")
    plain = IvfIndex(17, quantization="none")
    plain.build(vectors)
    plain.search(vectors[:1], 1)
    tell("kernels of inverted lists of codes")
    codes = IvfIndex(17, rerank="none")
    codes.build(vectors[: _ROWS // 4])
    codes.add(vectors[_ROWS // 4 :])
    codes.search(vectors[:100], 1)
    codes.remove(np.arange(_ROWS // 5))
    codes.add(vectors[:1])
