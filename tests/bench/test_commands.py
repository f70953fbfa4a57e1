"""Benches as commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench import odd_data


@pytest.mark.parametrize("name", ["backup", "odd_data", "storage"])
def test_help_measures_nothing(name: str) -> None:
    told = CliRunner().invoke(importlib.import_module(f"bench.{name}").main, ["--help"])
    assert told.exit_code == 0
    assert f"python -m bench.{name}" in told.output


@pytest.mark.parametrize("kind", odd_data.KINDS)
def test_odd_data_is_written_with_its_queries_held_out(kind: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(odd_data.main, [kind, "--rows", "1600", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    base, queries = (np.load(tmp_path / f"{name}.npy") for name in ("base", "queries"))
    assert (base.shape[0], queries.shape[0]) == (1600, odd_data.QUERIES)
    assert base.dtype == queries.dtype == np.float32
    assert base.shape[1] == queries.shape[1]
    if kind == "giant":
        assert np.linalg.norm(base[0]) > 1000 * np.linalg.norm(queries, axis=1).max()
    if kind == "moved":
        assert queries.min() > 20 > base[:700].max()
