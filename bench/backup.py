"""What a backup and a restore cost: ``python -m bench.backup DIRECTORY [ROWS]``.

Builds a collection in a folder below DIRECTORY, backs it up there three times, searches it with and
without a backup beside, and restores it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

import vecdb
from vecdb.collection import Collection
from vecdb.types import Matrix

DIM = 384
BATCH = 5_000

T = TypeVar("T")


def timed(what: str, call: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = call()
    print(f"{what}: {time.perf_counter() - began:.2f} s")
    return result


def search_times(points: Collection, queries: Matrix, until: Callable[[], bool]) -> list[float]:
    seconds = []
    while not until():
        began = time.perf_counter()
        points.search(vector=queries[len(seconds) % len(queries)], k=10)
        seconds.append(time.perf_counter() - began)
    return seconds


def shown(what: str, seconds: list[float]) -> None:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print(f"{len(seconds)} searches {what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def run(root: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    db = vecdb.connect(str(root / "data"))
    points = db.create_collection("points", dim=DIM)
    for first in range(0, rows, BATCH):
        ids = range(first, min(first + BATCH, rows))
        vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32)
        points.upsert(ids, vectors=vectors, payloads=[{"n": i} for i in ids])
    points.flush()
    queries = rng.standard_normal((100, DIM)).astype(np.float32)

    first = timed("first backup", lambda: db.backup(root / "backups"))
    print(f"  {first.new_files} files, {first.new_bytes / 1e6:.0f} MB")
    timed("second backup, nothing new", lambda: db.backup(root / "backups"))
    points.upsert(range(1_000), vectors=rng.standard_normal((1_000, DIM)).astype(np.float32))
    third = timed("third backup, 1,000 new rows", lambda: db.backup(root / "backups"))
    print(f"  {third.new_files} files, {third.new_bytes / 1e6:.1f} MB")

    for turn in range(3):
        ends = time.perf_counter() + 3
        shown("at rest", search_times(points, queries, lambda e=ends: time.perf_counter() > e))
        thread = threading.Thread(target=db.backup, args=(root / f"beside{turn}",))
        thread.start()
        shown("beside a backup", search_times(points, queries, lambda t=thread: not t.is_alive()))
    db.close()
    timed("restore", lambda: vecdb.restore(root / "backups", root / "restored"))


@click.command(help=__doc__)
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("rows", type=click.IntRange(min=1), default=100_000)
def main(directory: Path, rows: int) -> None:
    """Measure in a folder of its own below `directory`."""
    scratch = Path(tempfile.mkdtemp(prefix="vecdb-backup-", dir=directory))
    try:
        run(scratch, rows)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
