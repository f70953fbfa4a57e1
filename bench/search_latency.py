"""One search through a collection, as a user calls it: embedded, over gRPC, and qdrant-edge.

    python -m bench.search_latency --base BASE.npy --queries QUERIES.npy --out FILE.json

Every engine holds the same vectors under the same ids, with a text and a payload for each, and
returns ids, scores, texts and payloads. The queries go one at a time, in one thread, and the
engines take turns query by query, so that noise hits all alike and each finds the caches cold.
Beside each latency stands the recall.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import vecdb
from bench.machine import versions, write_report
from vecdb.index import exact_search

BATCH = 1_000
Search = Callable[[np.ndarray, int], list[int]]
"""Takes a query and an ef; returns ids."""


def fill(points: Any, base: np.ndarray) -> None:
    for first in range(0, len(base), BATCH):
        rows = range(first, min(first + BATCH, len(base)))
        points.upsert(
            rows,
            vectors=base[first : first + BATCH],
            texts=[f"text {row}" for row in rows],
            payloads=[{"n": row} for row in rows],
        )
    points.flush()


@contextmanager
def vecdb_embedded(base: np.ndarray, k: int, directory: Path) -> Iterator[dict[str, Search]]:
    with vecdb.connect(str(directory)) as db:
        points = db.create_collection("bench", dim=base.shape[1])
        fill(points, base)

        def search(query: np.ndarray, ef: int) -> list[int]:
            return [hit.id for hit in points.search(vector=query, k=k, ef=ef)]

        yield {"vecdb embedded": search}


@contextmanager
def vecdb_grpc(base: np.ndarray, k: int, directory: Path) -> Iterator[dict[str, Search]]:
    command = [sys.executable, "-m", "vecdb.cli", "serve", "--data", str(directory)]
    server = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("listening on ").strip()
        with vecdb.connect(url, timeout=600.0) as client:
            points = client.create_collection("bench", dim=base.shape[1])
            fill(points, base)

            def search(query: np.ndarray, ef: int) -> list[int]:
                return [hit.id for hit in points.search(vector=query, k=k, ef=ef)]

            def ping(query: np.ndarray, ef: int) -> list[int]:
                client.ping()
                return []

            yield {"vecdb gRPC": search, "empty RPC": ping}
    finally:
        server.terminate()
        server.wait()


@contextmanager
def qdrant_edge(base: np.ndarray, k: int, directory: Path) -> Iterator[dict[str, Search]]:
    import qdrant_edge as qe

    directory.mkdir()
    config = qe.EdgeConfig(
        vectors={"": qe.EdgeVectorParams(size=base.shape[1], distance=qe.Distance.Cosine)},
        hnsw_config=qe.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10),
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
    )
    shard = qe.EdgeShard.create(str(directory), config)
    for first in range(0, len(base), BATCH):
        rows = range(first, min(first + BATCH, len(base)))
        shard.update(
            qe.UpdateOperation.upsert_points(
                [qe.Point(r, base[r].tolist(), {"n": r, "text": f"text {r}"}) for r in rows]
            )
        )
    shard.flush()
    while shard.optimize():
        pass
    info = shard.info()
    click.echo(f"qdrant-edge: {info.indexed_vectors_count} of {info.points_count} indexed")

    def search(query: np.ndarray, ef: int) -> list[int]:
        request = qe.QueryRequest(
            limit=k,
            query=qe.Query.Nearest(query.tolist()),
            params=qe.SearchParams(hnsw_ef=ef),
            with_payload=True,
        )
        return [point.id for point in shard.query(request)]

    yield {"qdrant-edge": search}
    shard.close()


ENGINES = {"embedded": vecdb_embedded, "grpc": vecdb_grpc, "qdrant-edge": qdrant_edge}


def measure(
    searches: dict[str, Search], queries: np.ndarray, truth: np.ndarray, efs: list[int], passes: int
) -> list[dict[str, Any]]:
    k = truth.shape[1]
    results = []
    for ef in efs:
        times: dict[str, list[float]] = {name: [] for name in searches}
        found = dict.fromkeys(searches, 0)
        for number in range(passes + 1):
            for query, nearest in zip(queries, truth, strict=True):
                for name, search in searches.items():
                    started = time.perf_counter()
                    ids = search(query, ef)
                    took = time.perf_counter() - started
                    if number:  # the first pass warms up
                        times[name].append(took * 1e3)
                        found[name] += len(set(ids) & set(nearest.tolist()))
        for name in searches:
            p50, p99 = np.percentile(times[name], [50, 99])
            recall = found[name] / (passes * len(queries) * k)
            results.append(
                {"engine": name, "ef": ef, "recall": recall, "p50_ms": p50, "p99_ms": p99}
            )
            click.echo(f"{name:16} ef {ef:4}  recall {recall:.4f}  p50 {p50:.3f}  p99 {p99:.3f} ms")
    return results


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--k", default=10, show_default=True)
@click.option("--rows", default=100_000, show_default=True, help="Of the base, at most.")
@click.option("--efs", default="32,64,96,128,192,256", show_default=True)
@click.option("--passes", default=3, show_default=True)
@click.option("--engines", default="embedded,grpc,qdrant-edge", show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    base: Path, queries: Path, k: int, rows: int, efs: str, passes: int, engines: str,
    out: Path | None,
) -> None:  # fmt: skip
    vectors = np.load(base)[:rows].astype(np.float32)
    asked = np.load(queries).astype(np.float32)
    truth, _ = exact_search("cosine", asked, vectors, k, threads=2)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        searches: dict[str, Search] = {}
        for name in engines.split(","):
            searches.update(stack.enter_context(ENGINES[name](vectors, k, root / name)))
        results = measure(searches, asked, truth, [int(ef) for ef in efs.split(",")], passes)
    if out is not None:
        packages = versions("vecdb", "qdrant-edge-py", "grpcio", "numba", "numpy")
        write_report(out, rows=len(vectors), k=k, versions=packages, results=results)


if __name__ == "__main__":
    main()
