"""The results of `bench.ann` as text."""

from __future__ import annotations

from typing import Any

from bench.ann_sweep import RECALLS, qps_at


def tables(result: dict[str, Any]) -> str:
    """Return all that was measured, a table for each k and number of threads."""
    parts = [
        f"k = {k}, {threads} query thread{'s' if threads > 1 else ''}\n"
        + _speeds(result["engines"], k, threads)
        for k in result["k"]
        for threads in result["query_threads"]
    ]
    parts += [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n\n".join(parts)


def _speeds(engines: dict[str, Any], k: int, threads: int) -> str:
    lines = [
        f"{'engine':<24}{'build s':>9}{'B/vector':>10}"
        + "".join(f"{f'QPS at {r:.2f}':>14}" for r in RECALLS)
        + f"{'p50 us at .95':>15}"
    ]
    for name, result in engines.items():
        points = [p for p in result["points"] if p["k"] == k and p["threads"] == threads]
        speeds = [qps_at(points, r) for r in RECALLS]
        reached = [p["p50_us"] for p in points if p["recall"] >= 0.95 and "p50_us" in p]
        cells = [f"{s:,.0f}" if s else "-" for s in speeds]
        lines.append(
            f"{name:<24}{result['build_s']:>9.1f}{result['bytes_per_vector']:>10,.0f}"
            + "".join(f"{c:>14}" for c in cells)
            + f"{f'{min(reached):,.0f}' if reached else '-':>15}"
        )
    return "\n".join(lines)
