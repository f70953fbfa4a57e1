"""Durable ingest beside other embedded databases: ``python -m bench.ingest [--out FILE.json]``.

Vectors of 384 dimensions under int ids, in batches of 256, one client thread. Every engine writes
the same batches, in turns of as many each, so that noise hits all alike; another begins in each
round. Before a turn all that the others left unwritten is synced, or the next one to sync would pay
for it, and vecdb's background work is finished: no peer builds an index here, so none is timed.
What an engine's own objects cost to make (lists of floats, Arrow tables) is not counted, for none
of them. Peers run as they come; what each promises when a call returns stands beside its rate.
`vecdb x4` is another collection, written by four threads. Peers that are not installed are left
out, and named. `disk` and `disk x4` are no engines: one thread, or four, that do nothing but write
the vectors' bytes to a file and sync it, each for itself: what the disk gives on that day.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import vecdb
from bench.machine import versions, write_report

BATCH, DIM, WRITERS = 256, 384, 4
Turn = Callable[[int, int], float]
"""Writes the batches from the first number to before the second; returns the seconds it took."""

_settling: list[Callable[[], None]] = []
"""Finish what vecdb does in the background: a pause of two seconds has it index and merge, and its
turns are further apart than that. No peer builds an index here, so none is timed."""

DURABILITY = {
    "disk": "write and fdatasync of the same bytes, and nothing else",
    "disk x4": "the same, four threads, each with syncs of its own",
    "vecdb": "acknowledged after fdatasync of the log (group commit)",
    "vecdb x4": "the same, four threads",
    "vecdb os": "durability='os': in the operating system's memory, as the peers' below",
    "qdrant-edge": "in its log, without fsync (its default; it has no per-write sync)",
    "lancedb": "a new file and version for each add, without fsync (its default)",
    "chroma": "SQLite, its default journal and synchronous settings",
}


def _timed(action: Callable[..., object], *arguments: Any) -> float:
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def _written(write: Callable[[int, int, int], None], writers: int, first: int, last: int) -> float:
    """Return the seconds in which `writers` threads write batches, each the next but so many."""
    if writers == 1:
        return _timed(write, first, last, 1)
    threads = [
        threading.Thread(target=write, args=(first + w, last, writers)) for w in range(writers)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def _disk(writers: int) -> Callable[[Path, np.ndarray], Any]:
    @contextmanager
    def engine(root: Path, base: np.ndarray) -> Iterator[Turn]:
        file = os.open(root, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def write(first: int, last: int, step: int) -> None:
            for number in range(first, last, step):
                os.write(file, base[number * BATCH : (number + 1) * BATCH].data)
                os.fdatasync(file)

        yield lambda first, last: _written(write, writers, first, last)
        os.close(file)

    return engine


def _vecdb(durability: str, writers: int) -> Callable[[Path, np.ndarray], Any]:
    @contextmanager
    def engine(root: Path, base: np.ndarray) -> Iterator[Turn]:
        with vecdb.connect(str(root), durability=durability) as db:
            points = db.create_collection("bench", dim=DIM)

            def write(first: int, last: int, step: int) -> None:
                for number in range(first, last, step):
                    rows = range(number * BATCH, (number + 1) * BATCH)
                    points.upsert(rows, vectors=base[rows.start : rows.stop])

            _settling.append(points.flush)
            yield lambda first, last: _written(write, writers, first, last)
            _settling.remove(points.flush)

    return engine


@contextmanager
def _qdrant_edge(root: Path, base: np.ndarray) -> Iterator[Turn]:
    import qdrant_edge as qe

    root.mkdir()
    shard = qe.EdgeShard.create(
        str(root),
        qe.EdgeConfig(vectors={"": qe.EdgeVectorParams(size=DIM, distance=qe.Distance.Cosine)}),
    )

    def turn(first: int, last: int) -> float:
        took = 0.0
        for number in range(first, last):
            rows = range(number * BATCH, (number + 1) * BATCH)
            points = [qe.Point(row, base[row].tolist(), {}) for row in rows]
            took += _timed(lambda p: shard.update(qe.UpdateOperation.upsert_points(p)), points)
        return took

    yield turn
    shard.close()


@contextmanager
def _lancedb(root: Path, base: np.ndarray) -> Iterator[Turn]:
    import lancedb
    import pyarrow as pa

    fields = [("id", pa.int64()), ("vector", pa.list_(pa.float32(), DIM))]
    table = lancedb.connect(str(root)).create_table("bench", schema=pa.schema(fields))

    def turn(first: int, last: int) -> float:
        took = 0.0
        for number in range(first, last):
            rows = range(number * BATCH, (number + 1) * BATCH)
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(base[rows.start : rows.stop].reshape(-1)), DIM
            )
            batch = pa.table({"id": pa.array(rows, pa.int64()), "vector": vectors})
            took += _timed(table.add, batch)
        return took

    yield turn


@contextmanager
def _chroma(root: Path, base: np.ndarray) -> Iterator[Turn]:
    import chromadb

    settings = chromadb.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(root), settings)
    collection = client.create_collection("bench", embedding_function=None)

    def turn(first: int, last: int) -> float:
        took = 0.0
        for number in range(first, last):
            rows = range(number * BATCH, (number + 1) * BATCH)
            ids = [str(row) for row in rows]
            vectors = base[rows.start : rows.stop]
            took += _timed(collection.upsert, ids, vectors)
        return took

    yield turn


ENGINES: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "disk": _disk(1),
    "disk x4": _disk(WRITERS),
    "vecdb": _vecdb("disk", 1),
    "vecdb x4": _vecdb("disk", WRITERS),
    "vecdb os": _vecdb("os", 1),
    "qdrant-edge": _qdrant_edge,
    "lancedb": _lancedb,
    "chroma": _chroma,
}


def run(root: Path, names: list[str], rounds: int, batches: int) -> dict[str, list[float]]:
    """Return the vectors per second of each engine in each round; the first one warms up."""
    base = np.random.default_rng(0).standard_normal(((rounds + 1) * batches * BATCH, DIM))
    base = base.astype(np.float32)
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for name in names:
            with contextlib.suppress(ImportError):
                turns[name] = stack.enter_context(ENGINES[name](root / name.replace(" ", ""), base))
        click.echo(f"not installed: {', '.join(set(names) - set(turns)) or 'none'}")
        for number in range(rounds + 1):
            order = list(turns.items())
            first = number % max(1, len(order))
            for name, turn in order[first:] + order[:first]:
                for settle in _settling:
                    settle()
                os.sync()
                took = turn(number * batches, (number + 1) * batches)
                if number:
                    rates.setdefault(name, []).append(batches * BATCH / took)
    return rates


@click.command(help=__doc__)
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.")
@click.option("--rounds", default=6, show_default=True)
@click.option("--batches", default=24, show_default=True, help="Of 256 vectors, in one turn.")
@click.option("--engines", default=",".join(ENGINES), show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(folder: Path | None, rounds: int, batches: int, engines: str, out: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as root:
        rates = run(Path(root), engines.split(","), rounds, batches)
    rows = []
    for name, found in rates.items():
        low, middle, high = (round(x) for x in np.percentile(found, [10, 50, 90]))
        rows.append({"engine": name, "p10": low, "median": middle, "p90": high})
        click.echo(
            f"{name:12} {middle:9,} vectors/s (p10 {low:,}, p90 {high:,})  {DURABILITY[name]}"
        )
    for name in ("disk", "vecdb"):
        if {name, f"{name} x4"} <= set(rates):
            ratios = np.array(rates[f"{name} x4"]) / np.array(rates[name])
            click.echo(f"{name}: four writers / one, in the same round: {np.median(ratios):.2f}")
    if out is not None:
        packages = versions("qdrant-edge-py", "lancedb", "chromadb", "numpy")
        write_report(out, versions=packages, results=rows)


if __name__ == "__main__":
    main()
