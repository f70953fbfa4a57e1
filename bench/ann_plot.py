"""Recall against queries per second, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def plot(result: dict[str, Any], path: Path) -> Path | None:
    """Draw the curves of a result of `bench.ann`; None, and a word, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        click.echo("no plot: matplotlib is not installed (pip install vecdb[bench])", err=True)
        return None
    shown = [(k, threads) for k in result["k"] for threads in result["query_threads"]]
    figure = Figure(figsize=(8, 0.7 + 4.8 * len(shown)), layout="constrained")
    for axes, (k, threads) in zip(
        figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True
    ):
        _curves(axes, result["engines"], k, threads)
    rows, dim = result["base_shape"]
    figure.suptitle(
        f"{rows:,} x {dim}, {result['build']['metric']}, {result['machine']['processor']}\n"
        f"commit {result['commit'][:12]}",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)
    return path


def _curves(axes: Any, engines: dict[str, Any], k: int, threads: int) -> None:
    """Draw each engine's best speeds: no point that another is both faster and better than."""
    for number, (name, engine) in enumerate(engines.items()):
        points = [p for p in engine["points"] if p["k"] == k and p["threads"] == threads]
        points = [
            p for p in sorted(points, key=lambda p: p["recall"])
            if not any(o["recall"] >= p["recall"] and o["qps"] > p["qps"] for o in points)
        ]  # fmt: skip
        recalls, speeds = [p["recall"] for p in points], [p["qps"] for p in points]
        style = ("-", "--", ":")[number // 10 % 3]
        axes.plot(recalls, speeds, style, marker="o", markersize=4, label=name)
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.002)
    axes.set_xlabel(f"recall@{k}")
    axes.set_ylabel(f"queries per second, {threads} thread{'s' if threads > 1 else ''}")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
