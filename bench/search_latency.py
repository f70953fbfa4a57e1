"""One search through a collection, as a user calls it: embedded, over gRPC, and qdrant-edge.

    python -m bench.search_latency --base BASE.npy --queries QUERIES.npy --out FILE.json

Every engine holds the same vectors under the same ids, with a text and a payload for each, and
returns ids, scores, texts and payloads. The queries go one at a time, in one thread. The engines
take turns query by query, in another order each time, so that noise hits all alike and each finds
the caches as another left them; with `--loops` each has all queries to itself, as a program that
does nothing but search. An ef of 0 is the engine's own choice, and a share below 1 is that of the
points that a filter keeps. Beside each latency stands the recall.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import vecdb
from bench.machine import versions, write_report
from vecdb.index import FlatIndex

BATCH = 1_000
Search = Callable[[np.ndarray, int, int | None], list[int]]
"""Takes a query, an ef, 0 for the default, and what number a point's must be below; returns ids."""


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


def search_of(points: Any, k: int) -> Search:
    def search(query: np.ndarray, ef: int, below: int | None) -> list[int]:
        kept = None if below is None else {"n": {"$lt": below}}
        return [hit.id for hit in points.search(vector=query, k=k, ef=ef or None, filter=kept)]

    return search


@contextmanager
def vecdb_embedded(base: np.ndarray, k: int, directory: Path) -> Iterator[dict[str, Search]]:
    with vecdb.connect(str(directory)) as db:
        points = db.create_collection("bench", dim=base.shape[1])
        fill(points, base)

        yield {"vecdb embedded": search_of(points, k)}


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

            def ping(query: np.ndarray, ef: int, below: int | None) -> list[int]:
                client.ping()
                return []

            yield {"vecdb gRPC": search_of(points, k), "empty RPC": ping}
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
    shard.update(qe.UpdateOperation.create_field_index("n", qe.PayloadSchemaType.Integer))
    shard.flush()
    while shard.optimize():
        pass
    info = shard.info()
    click.echo(f"qdrant-edge: {info.indexed_vectors_count} of {info.points_count} indexed")

    def search(query: np.ndarray, ef: int, below: int | None) -> list[int]:
        kept = None
        if below is not None:
            kept = qe.Filter(must=[qe.FieldCondition("n", range=qe.RangeFloat(lt=below))])
        request = qe.QueryRequest(
            limit=k,
            query=qe.Query.Nearest(query.tolist()),
            params=qe.SearchParams(hnsw_ef=ef) if ef else None,
            with_payload=True,
            filter=kept,
        )
        return [point.id for point in shard.query(request)]

    yield {"qdrant-edge": search}
    shard.close()


ENGINES = {"embedded": vecdb_embedded, "grpc": vecdb_grpc, "qdrant-edge": qdrant_edge}


def rounds(
    searches: dict[str, Search], count: int, passes: int, loops: bool
) -> Iterator[tuple[int, int, str]]:
    """Yield pass, query and engine in the order in which they are measured."""
    names = list(searches)
    rng = np.random.default_rng(0)
    for number in range(passes):
        if loops:
            yield from ((number, query, name) for name in names for query in range(count))
        else:
            for query in range(count):
                # After a call of its own process a server is awake, and its caches are warm.
                rng.shuffle(names)
                yield from ((number, query, name) for name in names)


def measure(
    searches: dict[str, Search], queries: np.ndarray, truth: np.ndarray, ef: int,
    below: int | None, passes: int, loops: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in searches}
    found = dict.fromkeys(searches, 0)
    nearest = [set(line) for line in truth.tolist()]
    for number, query, name in rounds(searches, len(queries), passes + 1, loops):
        started = time.perf_counter()
        ids = searches[name](queries[query], ef, below)
        took = time.perf_counter() - started
        if number:  # the first pass warms up
            times[name].append(took * 1e3)
            found[name] += len(nearest[query].intersection(ids))
    results = []
    for name in searches:
        p50, p99 = np.percentile(times[name], [50, 99])
        recall = found[name] / (passes * truth.size)
        figures = {"recall": recall, "p50_ms": p50, "p99_ms": p99}
        results.append({"engine": name, "ef": ef, "below": below, **figures})
        click.echo(f"{name:16} recall {recall:.4f}  p50 {p50:.3f}  p99 {p99:.3f} ms")
    return results


def numbers(text: str, kind: type) -> Sequence[Any]:
    return [kind(part) for part in text.split(",")]


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--k", default=10, show_default=True)
@click.option("--rows", default=100_000, show_default=True, help="Of the base, at most.")
@click.option("--efs", default="0,32,64,96,128,192,256", show_default=True, help="0: the default.")
@click.option("--shares", default="1", show_default=True, help="Of the points, kept by a filter.")
@click.option("--loops", is_flag=True, help="Each engine by itself, not in turns.")
@click.option("--passes", default=3, show_default=True)
@click.option("--engines", default="embedded,grpc,qdrant-edge", show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    base: Path, queries: Path, k: int, rows: int, efs: str, shares: str, loops: bool, passes: int,
    engines: str, out: Path | None,
) -> None:  # fmt: skip
    vectors = np.load(base)[:rows].astype(np.float32)
    asked = np.load(queries).astype(np.float32)
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        searches: dict[str, Search] = {}
        for name in engines.split(","):
            searches.update(stack.enter_context(ENGINES[name](vectors, k, root / name)))
        for share in numbers(shares, float):
            count = max(k, round(share * len(vectors)))
            below = None if share >= 1 else count
            exact = FlatIndex(vectors.shape[1])
            exact.build(vectors[:count])
            truth, _ = exact.search(asked, k, threads=2)
            for ef in numbers(efs, int):
                click.echo(f"ef {ef or 'default'}, {count} of {len(vectors)} points kept")
                results += measure(searches, asked, truth, ef, below, passes, loops)
    if out is not None:
        packages = versions("vecdb", "qdrant-edge-py", "grpcio", "numba", "numpy")
        write_report(out, rows=len(vectors), k=k, versions=packages, results=results)


if __name__ == "__main__":
    main()
