"""Search latency at rest, and while points come in, segments are sealed, indexed and merged.

    python -m bench.interference [--rate 500] [--rows 50000] [--seconds 20]

One thread searches without a pause. At rest nothing else runs; then another thread upserts batches
of 256 at a steady rate, with texts and payloads, a tenth of them in place of earlier points. The
p99 of both, and their ratio, are printed, with how many rows were searched without an index.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import vecdb
from bench.machine import write_report

BATCH, DIM, RANK = 256, 384, 48


class Source:
    """Vectors of low intrinsic dimension, as those of texts are."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._basis = self._rng.standard_normal((RANK, DIM)).astype(np.float32)

    def take(self, count: int) -> np.ndarray:
        inner = self._rng.standard_normal((count, RANK)).astype(np.float32)
        noise = self._rng.standard_normal((count, DIM)).astype(np.float32)
        return np.asarray(inner @ self._basis + 0.3 * noise, np.float32)


def load(points: Any, source: Source, rows: int) -> None:
    with points.bulk() as bulk:
        for first in range(0, rows, 10_000):
            ids = range(first, min(rows, first + 10_000))
            bulk.add(ids, [f"text {i} " * 20 for i in ids], source.take(len(ids)))
    points.flush()


def search_for(points: Any, queries: np.ndarray, seconds: float) -> tuple[np.ndarray, list[Any]]:
    """Return the milliseconds of each search, and now and then what was going on."""
    times, seen = [], []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        points.search(vector=queries[len(times) % len(queries)], k=10)
        times.append(1e3 * (time.perf_counter() - start))
        if len(times) % 500 == 0:
            info = points.info()
            seen.append((info.segments, info.count - info.indexed, [w.kind for w in info.work]))
    return np.array(times), seen


def ingest(
    points: Any, batches: list[np.ndarray], first: int, rate: float, done: threading.Event
) -> None:
    rng = np.random.default_rng(1)
    start = time.perf_counter()
    for number, batch in enumerate(batches):
        wait = start + number * BATCH / rate - time.perf_counter()
        if done.wait(max(wait, 0)):
            return
        ids = np.arange(first + number * BATCH, first + (number + 1) * BATCH)
        old = rng.choice(first, BATCH // 10, replace=False)
        ids[: len(old)] = old
        texts = [f"text {i} " * 20 for i in ids]
        points.upsert(ids, texts, batch, [{"n": int(i)} for i in ids])


@click.command(help=__doc__)
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.")
@click.option("--rows", default=50_000, show_default=True, help="There from the start.")
@click.option("--rate", default=500.0, show_default=True, help="Vectors upserted per second.")
@click.option("--seconds", default=20.0, show_default=True, help="Of each measurement.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    folder: Path | None, rows: int, rate: float, seconds: float, rounds: int, out: Path | None
) -> None:
    source = Source()
    results = []
    with tempfile.TemporaryDirectory(dir=folder) as root, vecdb.connect(root) as db:
        points = db.create_collection("bench", dim=DIM)
        load(points, source, rows)
        queries = source.take(500)
        search_for(points, queries, 2)
        for number in range(rounds):
            rest, _ = search_for(points, queries, seconds / 2)
            batches = [source.take(BATCH) for _ in range(int(seconds * rate / BATCH) + 1)]
            done = threading.Event()
            writer = threading.Thread(
                target=ingest, args=(points, batches, points.count(), rate, done)
            )
            writer.start()
            busy, seen = search_for(points, queries, seconds)
            done.set()
            writer.join()
            points.flush()
            found = {
                what: [round(float(p), 3) for p in np.percentile(times, [50, 99, 99.9])]
                for what, times in (("rest", rest), ("busy", busy))
            }
            ratio = found["busy"][1] / found["rest"][1]
            results.append({**found, "ratio_p99": round(ratio, 2)})
            click.echo(f"round {number}: p50, p99, p99.9 ms {found}; p99 busy / rest {ratio:.2f}")
            click.echo(f"  segments, rows without index, work: {seen[:: max(1, len(seen) // 6)]}")
    if out is not None:
        write_report(out, results=results)


if __name__ == "__main__":
    main()
