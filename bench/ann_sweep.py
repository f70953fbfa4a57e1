"""Engines built, and swept over their parameter: the curves of recall and speed."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import click
import numpy as np

from bench.ann_data import hits_of, true_limits
from bench.ann_engines import ENGINES, BuildOptions, Engine, Matrix, UnsupportedError
from bench.machine import versions

RECALLS = (0.90, 0.95, 0.99)
_WARM_ROWS = 2_000


@dataclass
class Point:
    """One engine at one value of its parameter."""

    k: int
    threads: int
    value: int
    recall: float = 0.0
    pass_qps: list[float] = field(default_factory=list)
    latencies_us: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        shown = {
            "k": self.k,
            "threads": self.threads,
            "value": self.value,
            "recall": round(self.recall, 5),
            "qps": round(median(self.pass_qps), 1),
            "qps_best": round(max(self.pass_qps), 1),
        }
        if self.latencies_us:
            shown["p50_us"] = round(float(np.percentile(self.latencies_us, 50)), 1)
            shown["p99_us"] = round(float(np.percentile(self.latencies_us, 99)), 1)
        return shown


def build_all(
    names: list[str], base: Matrix, options: BuildOptions
) -> tuple[dict[str, Engine], dict[str, dict[str, Any]], dict[str, str]]:
    """Build the engines; return them, what is known of each, and why others were left out."""
    engines: dict[str, Engine] = {}
    facts: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            engines[name], seconds = _build(name, base, options)
        except ModuleNotFoundError as error:
            skipped[name] = f"{error.name} is not installed (pip install vecdb[peers,bench])"
        except UnsupportedError as error:
            skipped[name] = str(error)
        if name in skipped:
            click.echo(f"{name}: left out: {skipped[name]}", err=True)
            continue
        click.echo(f"{name}: built in {seconds:.1f} s", err=True)
        facts[name] = {
            "build_s": round(seconds, 3),
            "bytes_per_vector": round(engines[name].index_bytes() / len(base), 1),
            "parameter": engines[name].parameter,
            "versions": versions(*engines[name].packages),
        }
    return engines, facts, skipped


def _build(name: str, base: Matrix, options: BuildOptions) -> tuple[Engine, float]:
    """Build one; return it with the seconds, which compilation is no part of."""
    warm = ENGINES[name]()
    warm.build(base[:_WARM_ROWS], options)
    warm.search(base[:1], 1, warm.values(1)[0])
    made = ENGINES[name]()
    start = time.perf_counter()
    made.build(base, options)
    return made, time.perf_counter() - start


def sweep(
    engines: dict[str, Engine], base: Matrix, queries: Matrix, ks: list[int],
    thread_counts: list[int], metric: str, passes: int,
) -> dict[str, list[Point]]:  # fmt: skip
    """Measure every engine at every value of its parameter, pass by pass."""
    points = {
        name: [Point(k, t, v) for k in ks for t in thread_counts for v in engine.values(k)]
        for name, engine in engines.items()
    }
    limits = true_limits(metric, queries, base, ks)
    for name, engine in engines.items():
        recalls: dict[tuple[int, int], float] = {}
        for point in points[name]:
            at = point.k, point.value
            if at not in recalls:
                found = engine.search(queries, point.k, point.value)
                hits = hits_of(metric, queries, base, limits[point.k], found)
                recalls[at] = float(hits.sum()) / (len(queries) * point.k)
            point.recall = recalls[at]
    for number in range(passes):
        click.echo(f"pass {number + 1} of {passes}", err=True)
        for group in itertools.zip_longest(*points.values()):
            for name, point in zip(points, group, strict=True):
                if point is not None:
                    _measure(engines[name], point, queries)
    return {name: [p for p in of if p.pass_qps] for name, of in points.items()}


def _measure(engine: Engine, point: Point, queries: Matrix) -> None:
    """Time one pass of all queries as a batch, and a part of them one by one."""
    try:
        start = time.perf_counter()
        engine.search(queries, point.k, point.value, point.threads)
        point.pass_qps.append(len(queries) / (time.perf_counter() - start))
    except UnsupportedError:
        return  # It has no such number of threads.
    if point.threads > 1:
        return
    for query in queries[: max(200, len(queries) // 5)]:
        single = query[None]
        start = time.perf_counter()
        engine.search(single, point.k, point.value)
        point.latencies_us.append((time.perf_counter() - start) * 1e6)


def qps_at(points: list[dict[str, Any]], wanted: float) -> float | None:
    """Return the queries per second at a recall, between the neighbouring points of the sweep."""
    ordered = sorted(points, key=lambda p: p["recall"])
    best = 0.0
    for low, high in itertools.pairwise(ordered):
        if low["recall"] < wanted <= high["recall"]:
            share = (wanted - low["recall"]) / (high["recall"] - low["recall"])
            logs = np.log([low["qps"], high["qps"]])
            best = max(best, float(np.exp(logs[0] + share * (logs[1] - logs[0]))))
    reached = [p["qps"] for p in ordered if p["recall"] >= wanted]
    return max([best, *reached]) if reached else None
