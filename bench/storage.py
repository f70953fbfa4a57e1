"""What durability costs: ``python -m bench.storage [DIR]``.

Prints, as JSON: the time of an fdatasync, of a durable WAL append and of its encoding, of writing
and opening a segment, and of reading the log back. The figures of bench/notes/storage.md are of it.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import numpy as np

from vecdb.storage import PosixStore, SegmentFile, Upsert, Wal, encode_operation, write_segment

ROWS, DIM, BATCH = 100_000, 384, 256


def milliseconds(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return round(median(times), 4)


def raw_and_wal(root: Path, wal: Wal, kind: int, body: bytes) -> tuple[float, float]:
    """Time a bare write and fdatasync, and a WAL append of the same bytes, in turns."""
    descriptor = os.open(root / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    raw, appended = [], []
    for _ in range(200):
        start = time.perf_counter()
        os.write(descriptor, body)
        os.fdatasync(descriptor)
        middle = time.perf_counter()
        wal.append([(kind, body)])
        raw.append(1e3 * (middle - start))
        appended.append(1e3 * (time.perf_counter() - middle))
    os.close(descriptor)
    return round(median(raw), 3), round(median(appended), 3)


def appends_per_second(wal: Wal, body: bytes, threads: int, each: int) -> float:
    turn = threading.Lock()

    def work() -> None:
        for _ in range(each):
            with turn:
                seq = wal.write([(1, body)])
            wal.sync(seq)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return round(threads * each / (time.perf_counter() - start))


def run(root: Path) -> dict[str, float]:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM), np.float32)
    texts = ["a passage of text " * 10] * ROWS
    payloads = [b'{"source": "here", "page": 1}'] * ROWS
    ids = [f"document-{n}" for n in range(ROWS)]
    batch = Upsert(ids[:BATCH], vectors[:BATCH], texts[:BATCH], payloads[:BATCH])
    kind, body = encode_operation(batch)
    found = {"batch_bytes": float(len(body))}
    found["encode_ms"] = milliseconds(lambda: encode_operation(batch), 50)
    store = PosixStore(root)
    wal = Wal.open(store.within("wal"))
    found["write_and_fdatasync_ms"], found["append_ms"] = raw_and_wal(root, wal, kind, body)
    small = b"x" * 200
    for threads in (1, 4, 16):
        found[f"small_appends_per_s_{threads}_threads"] = appends_per_second(
            wal, small, threads, 100
        )
    wal.close()
    reopened = Wal.open(store.within("wal"))
    start = time.perf_counter()
    read = sum(len(record.body) for record in reopened.replay())
    found["replay_mb_per_s"] = round(read / 1e6 / (time.perf_counter() - start))
    start = time.perf_counter()
    ref = write_segment(store, "segment", ids, vectors, texts, payloads)
    found["segment_bytes"] = float(ref.size)
    found["segment_write_ms"] = round(1e3 * (time.perf_counter() - start))
    found["segment_open_verified_ms"] = milliseconds(lambda: SegmentFile.open(store, ref), 5)
    found["segment_open_ms"] = milliseconds(lambda: SegmentFile.open(store, ref, verify=False), 5)
    segment = SegmentFile.open(store, ref)
    wanted = ids[:: ROWS // BATCH][:BATCH]
    found["rows_of_256_str_ids_ms"] = milliseconds(lambda: segment.rows_of(wanted), 20)
    return found


@click.command(help=__doc__)
@click.argument(
    "directory", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
def main(directory: Path | None) -> None:
    """Measure in a folder of its own below `directory`."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        click.echo(json.dumps(run(Path(folder)), indent=1))


if __name__ == "__main__":
    main()
