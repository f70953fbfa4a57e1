"""The command that compares indexes, which only a checkout of the repository can run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from vecdb.cli_options import reported
from vecdb.errors import NotFoundError

_REPOSITORY = Path(__file__).parents[1]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@reported
def bench(arguments: tuple[str, ...]) -> None:
    """Compare the indexes with other libraries': recall beside queries per second.

    Takes the options of `python -m bench.ann`, which it runs; `vecdb bench -- --help` tells them.
    The benchmarks are not in the installed package: clone vecdb's repository and, in it,
    `pip install -e '.[bench]'`.
    """
    if not (_REPOSITORY / "bench" / "ann.py").is_file():
        raise NotFoundError(
            "the benchmarks are not in the installed package: clone vecdb's repository and, in it, "
            "pip install -e '.[bench]'"
        )
    sys.path.insert(0, str(_REPOSITORY))
    importlib.import_module("bench.ann").main(list(arguments), prog_name="vecdb bench --")
