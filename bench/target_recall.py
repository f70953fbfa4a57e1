"""What searches with a `target_recall` find, on queries that nothing was measured with.

    python -m bench.target_recall --base BASE.npy --queries QUERIES.npy --shares 1,0.7,0.1

For each index, k and share of the rows that a random filter keeps: the recall delivered for each
target, by true distance, and the queries per second of one thread.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.ann_data import hits_of, load, true_limits
from bench.machine import write_report
from vecdb.index import HnswIndex, IvfIndex

INDEXES: dict[str, Any] = {
    "graph-rabitq": lambda dim, metric: HnswIndex(dim, metric, quantization="rabitq"),
    "graph-sq8": lambda dim, metric: HnswIndex(dim, metric, quantization="sq8"),
    "graph-float32": lambda dim, metric: HnswIndex(dim, metric),
    "lists-rabitq": lambda dim, metric: IvfIndex(dim, metric),
    "lists-float32": lambda dim, metric: IvfIndex(dim, metric, quantization="none"),
}


ADDED_AT_ONCE = 400


def fill(index: Any, vectors: np.ndarray, first: int | None, threads: int) -> None:
    """Build an index of the first rows, and add the others, some at a time, as they stand."""
    first = len(vectors) if first is None else first
    index.build(vectors[:first], threads=threads)
    for start in range(first, len(vectors), ADDED_AT_ONCE):
        index.add(vectors[start : start + ADDED_AT_ONCE], threads=threads)


def numbers(text: str, kind: type) -> list[Any]:
    return [kind(part) for part in text.split(",")]


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path))
@click.option("--metric", default="cosine", show_default=True)
@click.option("--rows", default=100_000, show_default=True, help="Of the base, at most.")
@click.option("--first", type=int, help="Build with as many rows, and add the others later.")
@click.option("--indexes", default=",".join(INDEXES), show_default=True)
@click.option("--k", "ks", default="1,10,100", show_default=True)
@click.option("--targets", default="0.9,0.95,0.98,0.99", show_default=True)
@click.option("--shares", default="1", show_default=True, help="Of the rows, kept by a filter.")
@click.option("--threads", default=2, show_default=True, help="For building.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    base: Path, queries: Path | None, metric: str, rows: int, first: int | None, indexes: str,
    ks: str, targets: str, shares: str, threads: int, out: Path | None,
) -> None:  # fmt: skip
    vectors, asked, metric = load(base, queries, metric)
    vectors = vectors[:rows]
    results = []
    built = {}
    for name in indexes.split(","):
        if name not in INDEXES:
            raise click.UsageError(f"unknown index {name!r}: {', '.join(INDEXES)}")
        built[name] = INDEXES[name](vectors.shape[1], metric)
        fill(built[name], vectors, first, threads)
        built[name].search(asked, 1, target_recall=0.9, filter=None)  # loads the kernels
    rng = np.random.default_rng(0)
    for share in numbers(shares, float):
        kept = None if share >= 1 else rng.random(len(vectors)) < share
        among = vectors if kept is None else vectors[kept]
        limits = true_limits(metric, asked, among, numbers(ks, int))
        for name, index in built.items():
            for k in numbers(ks, int):
                line = []
                for target in numbers(targets, float):
                    start = time.perf_counter()
                    found, _ = index.search(asked, k, target_recall=target, filter=kept)
                    seconds = time.perf_counter() - start
                    hits = hits_of(metric, asked, vectors, limits[k], found).sum()
                    recall, qps = float(hits) / (len(asked) * k), len(asked) / seconds
                    results.append({
                        "index": name, "share": share, "k": k, "target": target,
                        "recall": round(recall, 4), "qps": round(qps),
                    })  # fmt: skip
                    line.append(f"{target:g}: {recall:.4f} ({qps:7,.0f}/s)")
                click.echo(f"{name:14} share {share:<5g} k {k:<4} {'  '.join(line)}")
    if out is not None:
        write_report(out, rows=len(vectors), queries=len(asked), metric=metric, results=results)


if __name__ == "__main__":
    main()
