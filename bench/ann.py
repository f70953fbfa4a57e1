"""Recall against speed of vector indexes: ours and the peers that are installed.

The passes of the engines are interleaved, so that whatever else the machine does hits all alike.
Batches give the queries per second, single calls from Python the latencies. Results are written as
JSON, with a picture beside it, and printed as tables.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import bench.ann_faiss  # Registers itself, as the next does.
import bench.ann_peers  # noqa: F401
from bench.ann_churn import measure_churn
from bench.ann_data import load
from bench.ann_engines import ENGINES, BuildOptions, Matrix
from bench.ann_filter import KINDS, measure_filters
from bench.ann_plot import plot
from bench.ann_sweep import build_all, sweep
from bench.ann_table import tables
from bench.machine import describe_commit, describe_machine

_FILTER_VALUES = 5
"""Values of an engine's parameter that are measured under a filter."""


def run(
    base: Matrix, queries: Matrix, names: list[str], ks: list[int], passes: int,
    query_threads: list[int], options: BuildOptions, selectivities: list[float],
    kinds: list[str], filter_queries: int, churn: int,
) -> dict[str, Any]:  # fmt: skip
    """Build and measure the engines; return everything that is known about the run."""
    engines, facts, left_out = build_all(names, base, options)
    if not engines:
        raise click.ClickException("no engine is left to measure")
    result: dict[str, Any] = {
        "commit": describe_commit(),
        "machine": describe_machine(),
        "base_shape": list(base.shape),
        "queries": len(queries),
        "k": ks,
        "passes": passes,
        "query_threads": query_threads,
        "build": asdict(options),
        "qps": "median of the passes",
        "engines": facts,
        "left_out": left_out,
    }
    swept = sweep(engines, base, queries, ks, query_threads, options.metric, passes)
    for name, points in swept.items():
        facts[name]["points"] = [point.summary() for point in points]
    result["filtered"] = []
    asked = queries[:filter_queries]
    for k in ks if selectivities else []:
        result["filtered"] += measure_filters(
            engines, base, asked, k, options.metric, selectivities, kinds, _FILTER_VALUES
        )
    # Last, since it changes the indexes.
    result["churn"] = (
        measure_churn(engines, base, queries, ks[0], options.metric, churn) if churn else []
    )
    return result


def _numbers(text: str, kind: type, option: str) -> list[Any]:
    try:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise click.ClickException(f"{option} {text!r}: must be numbers above 0, comma-separated")
    return numbers


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise click.ClickException(f"engines {unknown}: must be among {', '.join(ENGINES)}")
    return names


@click.command(help=__doc__)
@click.option(
    "--base", type=click.Path(exists=True, path_type=Path), required=True,
    help=".npy, or .hdf5 as ann-benchmarks has it, with the queries in it.",
)  # fmt: skip
@click.option("--queries", type=click.Path(exists=True, path_type=Path))
@click.option("--k", default="10", show_default=True, help="Numbers, comma-separated.")
@click.option(
    "--metric", type=click.Choice(["cosine", "dot", "l2"]),
    help="By default the .hdf5's, or cosine.",
)  # fmt: skip
@click.option(
    "--engines", default=",".join(ENGINES), show_default=True, help="Names, comma-separated."
)
@click.option("--threads", default=2, show_default=True, help="For building.")
@click.option(
    "--query-threads", default="1", show_default=True, help="Numbers, comma-separated: 1,4."
)
@click.option(
    "--filter-selectivity", default="", help="Shares of the rows that may be found: 0.5,0.1,0.01."
)
@click.option(
    "--correlated", is_flag=True, help="Filters that keep what is near and what is far, too."
)
@click.option(
    "--filter-queries", default=1_000, show_default=True, type=click.IntRange(1),
    help="Asked under each filter: a filter function in Python is called for every node seen.",
)  # fmt: skip
@click.option(
    "--churn", default=0, type=click.IntRange(0), metavar="N",
    help="Delete half of the rows and insert them again, N times.",
)  # fmt: skip
@click.option("--m", default=16, show_default=True)
@click.option(
    "--ef-construction", default=200, show_default=True,
    help="Not of vecdb's graphs of codes, which are built at once, with their default.",
)  # fmt: skip
@click.option("--passes", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="JSON; a PNG beside it."
)
def main(
    base: Path, queries: Path | None, k: str, metric: str | None, engines: str, threads: int,
    query_threads: str, filter_selectivity: str, correlated: bool, filter_queries: int,
    churn: int, m: int, ef_construction: int, passes: int, out: Path,
) -> None:  # fmt: skip
    names, ks = _names(engines), _numbers(k, int, "--k")
    thread_counts = _numbers(query_threads, int, "--query-threads")
    shares = []
    if filter_selectivity:
        shares = _numbers(filter_selectivity, float, "--filter-selectivity")
        if max(shares) > 1:
            raise click.ClickException(f"--filter-selectivity {max(shares)}: must be at most 1")
    x, q, metric = load(base, queries, metric)
    if max(ks) > len(x):
        raise click.ClickException(f"--k {max(ks)}: there are {len(x)} vectors")
    options = BuildOptions(metric, threads, m, ef_construction)
    kinds = list(KINDS if correlated else KINDS[:1])
    result = run(
        x, q, names, ks, passes, thread_counts, options, shares, kinds, filter_queries, churn
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    picture = plot(result, out.with_suffix(".png"))
    click.echo(tables(result))
    click.echo(f"{out}" + (f", {picture}" if picture else ""))


if __name__ == "__main__":
    main()
