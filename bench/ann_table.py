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
    parts += _filtered(result["filtered"]) + _churned(result["churn"])
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


def _filtered(results: list[dict[str, Any]]) -> list[str]:
    """Return a table for each k and kind of filter: speed at recall .95, or what was reached."""
    if not results:
        return []
    parts = []
    for k, kind in dict.fromkeys((r["k"], r["kind"]) for r in results):
        part = [r for r in results if (r["k"], r["kind"]) == (k, kind)]
        shares = list(dict.fromkeys(r["selectivity"] for r in part))
        lines = [
            f"k = {k}, {kind} filter: QPS at recall .95 among the allowed, or (best recall);",
            "! where some query got fewer results than there are",
            f"{'engine':<24}" + "".join(f"{share:>14.2%}" for share in shares),
        ]
        for name in dict.fromkeys(r["engine"] for r in part):
            cells = [_filter_cell(r["points"]) for r in part if r["engine"] == name]
            lines.append(f"{name:<24}" + "".join(f"{cell:>14}" for cell in cells))
        parts.append("\n".join(lines))
    return parts


def _filter_cell(points: list[dict[str, Any]]) -> str:
    mark = "!" if any(p["short"] for p in points) else ""
    reached = [p["qps"] for p in points if p["recall"] >= 0.95 and not p["forbidden"]]
    return (
        f"{max(reached):,.0f}{mark}"
        if reached
        else f"({max(p['recall'] for p in points):.3f}){mark}"
    )


def _churned(results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return []
    lines = [
        "{rows_each:,} rows deleted and inserted again, {rounds} times".format(**results[0]),
        f"{'engine':<24}{'worst change':>19}{'B/vector':>16}{'after':>9}{'del. s':>9}{'ins. s':>9}",
    ]
    for r in results:
        falls = [(p["fresh"] - p["after"], p["value"]) for p in r["points"]]
        fall, value = max(falls)
        lines.append(
            f"{r['engine']:<24}{f'{-fall:+.4f} at {value}':>19}{r['bytes_fresh']:>16,.0f}"
            f"{r['bytes_after']:>9,.0f}{r['remove_s']:>9.2f}{r['insert_s']:>9.2f}"
        )
    return ["\n".join(lines)]
