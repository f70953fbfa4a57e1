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
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, engine in result["engines"].items():
        points = sorted(engine["points"], key=lambda p: p["recall"])
        recalls = [p["recall"] for p in points]
        axes.plot(recalls, [p["qps"] for p in points], marker="o", markersize=4, label=name)
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.002)
    axes.set_xlabel(f"recall@{result['k']}")
    axes.set_ylabel("queries per second, one thread")
    rows, dim = result["base_shape"]
    axes.set_title(
        f"{rows:,} x {dim}, {result['build']['metric']}, {result['machine']['processor']}\n"
        f"commit {result['commit'][:12]}",
        fontsize=9,
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    return path
