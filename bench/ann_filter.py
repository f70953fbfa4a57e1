"""Searches among a part of the rows only: how much is found, and how fast.

Uncorrelated, the rows that may be returned are drawn at random. Correlated, they are the rows
nearest to ("near") or furthest from ("far") a vector that the queries lie around: far is hard for
a graph, whose walk ends among rows that it may not return.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.ann_data import distances, hits_of, true_limits
from bench.ann_engines import Engine, Filtering, Matrix

_ANCHORS = 10
_PASSES = 3
KINDS = ("uncorrelated", "near", "far")


@dataclass
class _Group:
    """Queries that are asked under one filter."""

    queries: Matrix
    allowed: NDArray[np.bool_]
    limits: NDArray[np.float64]
    """Of each query, the distance of the last that should be found."""
    count: int
    """How many should be found: k, or all that are allowed."""


def measure_filters(
    engines: dict[str, Engine], base: Matrix, queries: Matrix, k: int, metric: str,
    selectivities: list[float], kinds: list[str], values_at_most: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure each engine that filters, at each selectivity, on one thread.

    Returns
    -------
    list of dict
        For each kind, selectivity and engine, a point for each value of the parameter: recall
        against exact search among the allowed rows, queries per second, how many queries were
        given fewer results than there are, and how many results were not allowed.
    """
    filtering = {n: e for n, e in engines.items() if isinstance(e, Filtering)}
    results = []
    for kind in kinds:
        for share in selectivities:
            click.echo(f"filter: {kind}, {share:g}", err=True)
            groups = list(_groups(base, queries, k, metric, share, kind))
            measured: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in filtering}
            for _ in range(_PASSES):
                for name, of_engine in filtering.items():
                    for value in _spread(of_engine.values(k), values_at_most):  # type: ignore[attr-defined]
                        point = _measure(of_engine, base, groups, k, value, metric)
                        kept = measured[name].setdefault(value, point | {"pass_qps": []})
                        kept["pass_qps"].append(point["qps"])
            for name, points in measured.items():
                for point in points.values():
                    point["qps"] = round(median(point.pop("pass_qps")), 1)
                results.append({
                    "kind": kind, "selectivity": share, "engine": name, "k": k,
                    "allowed": groups[0].allowed.sum().item(), "points": list(points.values()),
                })  # fmt: skip
    return results


def _groups(
    base: Matrix, queries: Matrix, k: int, metric: str, share: float, kind: str
) -> Iterator[_Group]:
    rng = np.random.default_rng(7)
    rows = max(1, round(share * len(base)))
    if kind == "uncorrelated":
        chosen = rng.choice(len(base), rows, replace=False)
        yield _group(base, queries, chosen, k, metric)
        return
    anchors = base[rng.choice(len(base), min(_ANCHORS, len(base)), replace=False)]
    nearest = distances(metric, queries, anchors).argmin(axis=1)
    for number in np.unique(nearest):
        away = distances(metric, anchors[number][None], base)[0]
        order = np.argsort(away if kind == "near" else -away, kind="stable")
        yield _group(base, queries[nearest == number], order[:rows], k, metric)


def _group(base: Matrix, queries: Matrix, chosen: NDArray[np.int64], k: int, metric: str) -> _Group:
    allowed = np.zeros(len(base), np.bool_)
    allowed[chosen] = True
    count = min(k, len(chosen))
    limits = true_limits(metric, queries, base[allowed], [count])[count]
    return _Group(queries, allowed, limits, count)


def _measure(
    engine: Filtering, base: Matrix, groups: list[_Group], k: int, value: int, metric: str
) -> dict[str, Any]:
    hits = asked = short = forbidden = number = 0
    seconds = 0.0
    for group in groups:
        start = time.perf_counter()
        found = engine.search_allowed(group.queries, k, value, group.allowed)
        seconds += time.perf_counter() - start
        there = found >= 0
        wrong = there & ~group.allowed[np.where(there, found, 0)]
        hits += hits_of(metric, group.queries, base, group.limits, np.where(wrong, -1, found)).sum()
        short += int((there.sum(axis=1) < group.count).sum())
        forbidden += int(wrong.sum())
        number += len(group.queries)
        asked += len(group.queries) * group.count
    return {
        "value": value, "recall": round(float(hits) / asked, 5), "qps": number / seconds,
        "short": short, "forbidden": forbidden,
    }  # fmt: skip


def _spread(values: Any, most: int) -> list[int]:
    """Return at most so many of the values, the ends among them."""
    picked = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[i] for i in np.unique(picked)]
