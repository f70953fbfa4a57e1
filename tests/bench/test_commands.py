"""Benches as commands."""

from __future__ import annotations

import importlib

import pytest
from click.testing import CliRunner


@pytest.mark.parametrize("name", ["backup", "storage"])
def test_help_measures_nothing(name: str) -> None:
    told = CliRunner().invoke(importlib.import_module(f"bench.{name}").main, ["--help"])
    assert told.exit_code == 0
    assert f"python -m bench.{name}" in told.output
