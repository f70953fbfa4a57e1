"""Indexes whose rows come and go: what is left of recall, and of the space."""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np

from bench.ann_data import hits_of, true_limits
from bench.ann_engines import Changing, Engine, Matrix


def measure_churn(
    engines: dict[str, Engine], base: Matrix, queries: Matrix, k: int, metric: str, rounds: int
) -> list[dict[str, Any]]:
    """Delete half of the rows, drawn anew each time, and insert them again, `rounds` times.

    Returns
    -------
    list of dict
        For each engine that can: recall at every value of its parameter as built (`fresh`) and
        afterwards, bytes per vector likewise, and the seconds that deleting and inserting took. The
        engines are left as they are then.
    """
    limits = true_limits(metric, queries, base, [k])[k]
    results = []
    for name, engine in engines.items():
        if not isinstance(engine, Changing):
            continue
        click.echo(f"churn: {name}", err=True)
        rng = np.random.default_rng(11)
        fresh, fresh_bytes = (
            _recalls(engine, base, queries, limits, k, metric),
            _bytes(engine, base),
        )
        removing = inserting = 0.0
        for _ in range(rounds):
            rows = np.sort(rng.choice(len(base), len(base) // 2, replace=False))
            start = time.perf_counter()
            engine.remove(rows)
            between = time.perf_counter()
            engine.insert(base[rows], rows)
            removing += between - start
            inserting += time.perf_counter() - between
        after = _recalls(engine, base, queries, limits, k, metric)
        results.append({
            "engine": name, "k": k, "rounds": rounds, "rows_each": len(base) // 2,
            "remove_s": round(removing, 3), "insert_s": round(inserting, 3),
            "bytes_fresh": fresh_bytes, "bytes_after": _bytes(engine, base),
            "points": [
                {"value": value, "fresh": fresh[value], "after": after[value]} for value in fresh
            ],
        })  # fmt: skip
    return results


def _recalls(
    engine: Any, base: Matrix, queries: Matrix, limits: Any, k: int, metric: str
) -> dict[int, float]:
    return {
        value: round(
            float(
                hits_of(metric, queries, base, limits, engine.search(queries, k, value)).sum()
            ) / (len(queries) * k),
            5,
        )
        for value in engine.values(k)
    }  # fmt: skip


def _bytes(engine: Any, base: Matrix) -> float:
    return round(engine.index_bytes() / len(base), 1)
