"""Recall against speed of vector indexes, one query thread.

The passes of the engines are interleaved, so that whatever else the machine does hits all alike.
Batches give the queries per second, single calls from Python the latencies.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.ann_engines import ENGINES, BuildOptions, Engine, Matrix
from bench.ann_plot import plot
from bench.machine import describe_commit, describe_machine, versions

RECALLS = (0.90, 0.95, 0.99)
_TRUTH_BLOCK = 64


@dataclass
class Point:
    """One engine at one value of its parameter."""

    value: int
    recall: float = 0.0
    pass_qps: list[float] = field(default_factory=list)
    latencies_us: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "recall": round(self.recall, 5),
            "qps": round(median(self.pass_qps), 1),
            "qps_best": round(max(self.pass_qps), 1),
            "p50_us": round(float(np.percentile(self.latencies_us, 50)), 1),
            "p99_us": round(float(np.percentile(self.latencies_us, 99)), 1),
        }


def load_vectors(path: Path, metric: str) -> Matrix:
    """Read a matrix as float32, of unit norm under cosine, so that all engines see the same."""
    vectors = np.ascontiguousarray(np.load(path, allow_pickle=False), dtype=np.float32)
    if vectors.ndim != 2:
        raise click.ClickException(f"{path} has shape {vectors.shape}: must be (n, dim)")
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def distances(metric: str, queries: Matrix, vectors: Matrix) -> NDArray[np.float64]:
    """Return all distances in float64, shape (queries, vectors)."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    products = q @ x.T
    if metric == "l2":
        return (q**2).sum(1)[:, None] - 2 * products + (x**2).sum(1)[None, :]
    return 1 - products


def true_limits(metric: str, queries: Matrix, base: Matrix, k: int) -> NDArray[np.float64]:
    """Return the distance of each query's k-th nearest vector."""
    limits = [
        np.partition(distances(metric, queries[i : i + _TRUTH_BLOCK], base), k - 1)[:, k - 1]
        for i in range(0, len(queries), _TRUTH_BLOCK)
    ]
    return np.concatenate(limits)


def recall_of(
    metric: str, queries: Matrix, base: Matrix, limits: NDArray[np.float64],
    found: NDArray[np.int64],
) -> float:  # fmt: skip
    """Return the share of results that are no further than the k-th nearest, by true distance.

    Counted by distance and not by row, since of equal vectors either is right.
    """
    hits = 0
    for query, limit, rows in zip(queries, limits, found, strict=True):
        rows = np.unique(rows[rows >= 0])
        true = distances(metric, query[None], base[rows])[0]
        hits += int((true <= limit + 1e-6 * (1 + abs(limit))).sum())
    return hits / found.size


def qps_at(points: list[dict[str, Any]], wanted: float) -> float | None:
    """Return the queries per second at a recall, between the neighbouring points of the sweep."""
    ordered = sorted(points, key=lambda p: p["recall"])
    best = None
    for low, high in itertools.pairwise(ordered):
        if low["recall"] < wanted <= high["recall"]:
            share = (wanted - low["recall"]) / (high["recall"] - low["recall"])
            logs = np.log([low["qps"], high["qps"]])
            best = max(best or 0.0, float(np.exp(logs[0] + share * (logs[1] - logs[0]))))
    reached = [p["qps"] for p in ordered if p["recall"] >= wanted]
    return max([best or 0.0, *reached]) if reached else None


def sweep(
    engines: dict[str, Engine], base: Matrix, queries: Matrix, k: int, metric: str, passes: int
) -> dict[str, list[Point]]:
    """Measure every engine at every value of its parameter, pass by pass."""
    limits = true_limits(metric, queries, base, k)
    points = {name: [Point(v) for v in e.values(k)] for name, e in engines.items()}
    longest = max(len(p) for p in points.values())
    for number in range(passes):
        click.echo(f"pass {number + 1} of {passes}", err=True)
        for i in range(longest):
            for name, engine in engines.items():
                if i < len(points[name]):
                    _measure(engine, points[name][i], queries, k)
    for name, engine in engines.items():
        for point in points[name]:
            found = engine.search(queries, k, point.value)
            point.recall = recall_of(metric, queries, base, limits, found)
    return points


def _measure(engine: Engine, point: Point, queries: Matrix, k: int) -> None:
    """Time one pass of all queries as a batch, and a part of them one by one."""
    start = time.perf_counter()
    engine.search(queries, k, point.value)
    point.pass_qps.append(len(queries) / (time.perf_counter() - start))
    for query in queries[: max(200, len(queries) // 5)]:
        single = query[None]
        start = time.perf_counter()
        engine.search(single, k, point.value)
        point.latencies_us.append((time.perf_counter() - start) * 1e6)


def table(results: dict[str, Any]) -> str:
    """Return the results as text."""
    lines = [
        f"{'engine':<14}{'build s':>9}{'B/vector':>10}"
        + "".join(f"{f'QPS at {r:.2f}':>14}" for r in RECALLS)
        + f"{'p50 us at .95':>15}"
    ]
    for name, result in results.items():
        speeds = [qps_at(result["points"], r) for r in RECALLS]
        reached = [p for p in result["points"] if p["recall"] >= 0.95]
        p50 = min((p["p50_us"] for p in reached), default=None)
        cells = [f"{s:,.0f}" if s else "-" for s in speeds]
        lines.append(
            f"{name:<14}{result['build_s']:>9.1f}{result['bytes_per_vector']:>10.0f}"
            + "".join(f"{c:>14}" for c in cells)
            + f"{f'{p50:,.0f}' if p50 else '-':>15}"
        )
    return "\n".join(lines)


def run(
    base: Matrix, queries: Matrix, names: list[str], k: int, passes: int, options: BuildOptions
) -> dict[str, Any]:
    """Build and measure the engines; return everything that is known about the run."""
    engines, results = {}, {}
    for name in names:
        engines[name] = ENGINES[name]()
        # Compilation is not part of building or of searching.
        warm = ENGINES[name]()
        warm.build(base[:500], options)
        warm.search(queries[:1], k, warm.values(k)[0])
        start = time.perf_counter()
        engines[name].build(base, options)
        seconds = time.perf_counter() - start
        click.echo(f"{name}: built in {seconds:.1f} s", err=True)
        results[name] = {
            "build_s": round(seconds, 3),
            "bytes_per_vector": round(engines[name].index_bytes() / len(base), 1),
            "parameter": engines[name].parameter,
            "versions": versions(*engines[name].packages),
        }
    for name, points in sweep(engines, base, queries, k, options.metric, passes).items():
        results[name]["points"] = [point.summary() for point in points]
    return {
        "commit": describe_commit(),
        "machine": describe_machine(),
        "base_shape": list(base.shape),
        "queries": len(queries),
        "k": k,
        "passes": passes,
        "query_threads": 1,
        "build": asdict(options),
        "qps": "median of the passes",
        "engines": results,
    }


@click.command(help=__doc__)
@click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--queries", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--k", default=10, show_default=True, type=click.IntRange(1))
@click.option("--metric", default="cosine", type=click.Choice(["cosine", "dot", "l2"]))
@click.option(
    "--engines", default=",".join(ENGINES), show_default=True, help="Names, comma-separated."
)
@click.option("--threads", default=2, show_default=True, help="For building.")
@click.option("--m", default=16, show_default=True)
@click.option("--ef-construction", default=200, show_default=True)
@click.option("--passes", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="JSON; a PNG beside it."
)
def main(
    base: Path, queries: Path, k: int, metric: str, engines: str, threads: int, m: int,
    ef_construction: int, passes: int, out: Path,
) -> None:  # fmt: skip
    names = [name.strip() for name in engines.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise click.ClickException(f"engines {unknown}: must be among {', '.join(ENGINES)}")
    options = BuildOptions(metric, threads, m, ef_construction)
    result = run(
        load_vectors(base, metric), load_vectors(queries, metric), names, k, passes, options
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    picture = plot(result, out.with_suffix(".png"))
    click.echo(table(result["engines"]))
    click.echo(f"{out}" + (f", {picture}" if picture else ""))


if __name__ == "__main__":
    main()
