"""Several Python threads that search one index, against one: throughput, and equal answers.

    python -m bench.callers --base BASE.npy --queries QUERIES.npy --threads 4

Each thread calls `search` by itself, with one query at a time or with a few: what a program does
that serves many users from one process. Threads share the interpreter; only inside of the kernels
do they run at the same time. One thread and several take turns within each pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

import bench.ann_peers  # noqa: F401  # Registers itself.
from bench.ann_data import load
from bench.ann_engines import ENGINES, BuildOptions, Engine
from bench.machine import write_report


def answer(
    engine: Engine, queries: np.ndarray, k: int, value: int, batch: int, threads: int
) -> tuple[float, np.ndarray]:
    """Search for all queries, `batch` a call; return queries per second, and the rows found."""
    found = np.full((len(queries), k), -1, np.int64)
    starts = list(range(0, len(queries), batch))
    ready = threading.Barrier(threads + 1)

    def work(mine: Sequence[int]) -> None:
        ready.wait()
        for first in mine:
            last = first + batch
            found[first:last] = engine.search(queries[first:last], k, value)

    workers = [threading.Thread(target=work, args=(starts[n::threads],)) for n in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return len(queries) / (time.perf_counter() - started), found


def measure(
    engine: Engine, queries: np.ndarray, k: int, value: int, batch: int, threads: int, passes: int
) -> dict[str, Any]:
    """Return the rates of one thread and of several, and the share of answers that differ."""
    rates: dict[int, list[float]] = {1: [], threads: []}
    _, alone = answer(engine, queries, k, value, batch, 1)
    differing = 0
    for _ in range(passes):
        for count, taken in rates.items():
            rate, found = answer(engine, queries, k, value, batch, count)
            taken.append(rate)
            differing += int((found != alone).any(axis=1).sum())
    ratio = median(b / a for a, b in zip(*rates.values(), strict=True))
    return {
        "value": value, "queries_a_call": batch, "qps_1": median(rates[1]),
        f"qps_{threads}": median(rates[threads]), "ratio": ratio, "answers_that_differ": differing,
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--rows", default=100_000, show_default=True, help="Of the base, at most.")
@click.option("--k", default=10, show_default=True)
@click.option("--value", default=64, show_default=True, help="ef, or nprobe.")
@click.option(
    "--engines", default="vecdb-hnsw-rabitq,vecdb-hnsw,vecdb-ivf-rabitq", show_default=True
)
@click.option("--threads", default=4, show_default=True, type=click.IntRange(2))
@click.option("--batches", default="1,8,32", show_default=True, help="Queries of a call.")
@click.option("--repeat", default=4, show_default=True, help="How often each query is asked.")
@click.option("--passes", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    base: Path, queries: Path, rows: int, k: int, value: int, engines: str, threads: int,
    batches: str, repeat: int, passes: int, out: Path | None,
) -> None:  # fmt: skip
    vectors, asked, metric = load(base, queries, "cosine")
    vectors, asked = vectors[:rows], np.tile(asked, (repeat, 1))
    results = []
    for name in engines.split(","):
        engine = ENGINES[name]()
        engine.build(vectors, BuildOptions(metric, 2, 16, 200))
        for batch in map(int, batches.split(",")):
            found = measure(engine, asked, k, value, batch, threads, passes)
            results.append({"engine": name, **found})
            click.echo(
                f"{name:18} {batch:3} a call: {found['qps_1']:8.0f} queries a second on 1 thread, "
                f"{found[f'qps_{threads}']:8.0f} on {threads}, ratio {found['ratio']:.2f}, "
                f"{found['answers_that_differ']} answers differ"
            )
    if out is not None:
        write_report(out, rows=len(vectors), k=k, threads=threads, results=results)


if __name__ == "__main__":
    main()
