"""`bench.unindexed`: comparing by codes finds what comparing vectors finds."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.unindexed import main


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_each_way_is_timed_and_the_exact_ones_are_exact(tmp_path: Path, metric: str) -> None:
    rng = np.random.default_rng(3)
    for name, count in (("base", 400), ("queries", 20)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((count, 12)).astype(np.float32))
    files = ["--base", f"{tmp_path}/base.npy", "--queries", f"{tmp_path}/queries.npy"]
    out = tmp_path / "out.json"
    how = ["--rows", "100,400", "--batch", "8", "--metric", metric, "--out", str(out)]
    done = CliRunner().invoke(main, [*files, *how])
    assert done.exit_code == 0, done.output
    lines = json.loads(out.read_text())["results"]
    assert [(line["rows"], line["way"]) for line in lines] == [
        (rows, way) for rows in (100, 400) for way in ("codes", "vectors", "graph")
    ]
    assert all(line["recall"] == 1 for line in lines if line["way"] != "graph")
    assert all(0 < line["p50_us"] <= line["p90_us"] and line["many_us"] > 0 for line in lines)
