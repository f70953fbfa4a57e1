"""A search among rows that have no graph: by codes of one byte, by vectors, and what a graph takes.

    python -m bench.unindexed --base BASE.npy --queries QUERIES.npy --rows 500,2000,8000,32000

Microseconds of a call with one query, p50 and p90, and of one query of a call with many. The codes
find what comparing vectors finds; the graph's recall stands beside its time. The three take turns,
query by query.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.ann_data import hits_of, load, true_limits
from bench.machine import write_report
from bench.target_recall import numbers
from vecdb.config import COLLECTION_RECALL
from vecdb.index import ByteCodes, FlatIndex, HnswIndex, Queries
from vecdb.types import Metric

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def searches_of(vectors: np.ndarray, metric: str, k: int, threads: int) -> dict[str, Search]:
    """Return a search for queries (nq, dim) in each of the three ways; the codes are made."""
    flat = FlatIndex(vectors.shape[1], metric)
    flat.build(vectors)
    graph = HnswIndex(vectors.shape[1], metric, quantization="rabitq")
    graph.build(vectors, threads=threads)
    codes, kind = ByteCodes(Metric(metric)), Metric(metric)
    searches: dict[str, Search] = {
        "codes": lambda queries: codes.search(Queries(queries, kind), vectors, k),
        "vectors": lambda queries: flat.search(queries, k),
        "graph": lambda queries: graph.search(queries, k, target_recall=COLLECTION_RECALL),
    }
    for search in searches.values():
        search(vectors[:1])
    return searches


def timed(search: Search, queries: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the microseconds of a search, and the rows found."""
    start = time.perf_counter()
    rows, _ = search(queries)
    return 1e6 * (time.perf_counter() - start), rows


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path))
@click.option("--metric", default="cosine", show_default=True)
@click.option("--rows", default="500,2000,8000,32000", show_default=True, help="Drawn at random.")
@click.option("--k", default=10, show_default=True)
@click.option("--batch", default=256, show_default=True, help="Queries of a call with many.")
@click.option("--threads", default=2, show_default=True, help="For building.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    base: Path, queries: Path | None, metric: str, rows: str, k: int, batch: int, threads: int,
    out: Path | None,
) -> None:  # fmt: skip
    everything, asked, metric = load(base, queries, metric)
    rng = np.random.default_rng(0)
    results: list[dict[str, Any]] = []
    for count in numbers(rows, int):
        vectors = np.ascontiguousarray(rng.permutation(everything)[:count])
        searches = searches_of(vectors, metric, k, threads)
        limits = true_limits(metric, asked, vectors, [k])[k]
        single: dict[str, list[float]] = {name: [] for name in searches}
        for query in asked:
            for name, search in searches.items():
                single[name].append(timed(search, query[None])[0])
        for name, search in searches.items():
            _, found = timed(search, asked)
            many = [timed(search, asked[:batch])[0] / len(asked[:batch]) for _ in range(9)]
            p50, p90 = np.percentile(single[name], [50, 90])
            recall = float(hits_of(metric, asked, vectors, limits, found).sum()) / found.size
            results.append({
                "rows": count, "way": name, "recall": round(recall, 4), "p50_us": round(p50, 1),
                "p90_us": round(p90, 1), "many_us": round(float(np.median(many)), 1),
            })  # fmt: skip
            click.echo("  ".join(f"{what} {value}" for what, value in results[-1].items()))
    if out is not None:
        write_report(out, queries=len(asked), metric=metric, k=k, batch=batch, results=results)


if __name__ == "__main__":
    main()
