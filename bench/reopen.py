"""How long a restart takes: ``python -m bench.reopen [--rows 500000] [--data DIR]``.

A collection is loaded and indexed once (or found in DIR from an earlier run), then opened in a new
process several times: the time from `connect` to the first answer, compared with exact search over
the same vectors; that of importing vecdb (numba, mostly) stands beside it. "cold" means that the
files were put out of the page cache before. Then a log of `--log-mb` is written, its process
killed, and the same measured: what is replayed is the log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import vecdb
from bench.interference import DIM, Source
from bench.machine import write_report

STEP = 10_000

OPEN = """
import sys, time, json
import numpy as np
start = time.perf_counter()
import vecdb.database
imported = time.perf_counter() - start
vector = np.load(sys.argv[2])
start = time.perf_counter()
db = vecdb.connect(sys.argv[1])
opened = time.perf_counter()
points = db.collection("bench")
hits = points.search(vector=vector, k=10)
answered = time.perf_counter()
print(json.dumps({"import_s": imported, "open_s": opened - start, "answer_s": answered - start,
                  "ids": [hit.id for hit in hits], "count": points.count(),
                  "indexed": points.info().indexed, "segments": points.info().segments}))
if sys.argv[3] == "close":
    db.close()
import os
os._exit(0)
"""

WRITE = """
import sys
import numpy as np
import vecdb
points = vecdb.connect(sys.argv[1]).collection("bench")
points.maintenance.seal_is_due = lambda: False
points.seal_if_due = lambda: False
rng = np.random.default_rng(9)
first = 10**9
while points.info().log_bytes < int(sys.argv[2]) << 20:
    points.upsert(range(first, first + 256), vectors=rng.random((256, {dim}), np.float32),
                  texts=["text " * 20] * 256)
    first += 256
import os
os._exit(9)
"""


def fill(data: Path, rows: int) -> None:
    source = Source()
    with vecdb.connect(str(data)) as db:
        points = db.create_collection("bench", dim=DIM)
        with points.bulk() as load:
            for first in range(0, rows, STEP):
                ids = range(first, first + STEP)
                load.add(ids, [f"text {i} " * 4 for i in ids], source.take(STEP))
        points.flush()


def nearest(rows: int, query: np.ndarray) -> list[int]:
    """Return the ids that exact search finds among the vectors of `fill`."""
    source, best = Source(), []
    unit = query / np.linalg.norm(query)
    for first in range(0, rows, STEP):
        vectors = source.take(STEP)
        scores = vectors @ unit / np.linalg.norm(vectors, axis=1)
        best += [(float(scores[row]), first + int(row)) for row in np.argsort(-scores)[:10]]
    return [row for _, row in sorted(best, reverse=True)[:10]]


def forget(data: Path) -> None:
    """Put the files out of the page cache."""
    for file in data.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def opened(data: Path, query: Path, end: str = "close") -> dict[str, Any]:
    command = [sys.executable, "-c", OPEN, str(data), str(query), end]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), help="Kept; filled if it is not there.")
@click.option("--rows", default=500_000, show_default=True)
@click.option("--log-mb", default=256, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path | None, rows: int, log_mb: int, repeats: int, out: Path | None) -> None:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data" if data is None else data
        if not data.exists():
            start = time.perf_counter()
            fill(data, rows)
            click.echo(f"loaded and indexed in {time.perf_counter() - start:.0f} s")
        vector = Source().take(1)[0] + np.float32(0.1)
        np.save(query := Path(folder) / "query.npy", vector)
        truth = nearest(rows, vector)
        for state in ["warm"] * repeats + ["cold"] * repeats:
            if state == "cold":
                forget(data)
            found = opened(data, query)
            found["recall"] = len(set(found.pop("ids")) & set(truth)) / 10
            results.append({"state": state, **found})
            click.echo(json.dumps(results[-1]))
        written = subprocess.run([sys.executable, "-c", WRITE.format(dim=DIM), data, str(log_mb)])
        if written.returncode != 9:
            raise click.ClickException("the log could not be written")
        found = opened(data, query, "die")
        found["recall"] = len(set(found.pop("ids")) & set(truth)) / 10
        results.append({"state": f"killed with a log of {log_mb} MB", **found})
        click.echo(json.dumps(results[-1]))
    if out is not None:
        write_report(out, results=results)


if __name__ == "__main__":
    main()
