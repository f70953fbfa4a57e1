"""`bench.ann`: what it says of an engine is what the engine did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from bench.ann import main
from bench.ann_data import hits_of, load, true_limits
from bench.ann_engines import ENGINES, BuildOptions, Matrix
from bench.ann_sweep import qps_at

RNG = np.random.default_rng(3)
BASE = RNG.standard_normal((400, 12)).astype(np.float32)
QUERIES = RNG.standard_normal((20, 12)).astype(np.float32)


class Blind:
    """Finds the first rows, whatever is asked, allowed or not."""

    parameter = "-"
    packages = ()

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.size = len(base)

    def values(self, k: int) -> Sequence[int]:
        return [0]

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> Any:
        return np.tile(np.arange(k), (len(queries), 1))

    def search_allowed(self, queries: Matrix, k: int, value: int, allowed: Any) -> Any:
        found = self.search(queries, k, value)
        found[:, -1] = -1
        return found

    def index_bytes(self) -> int:
        return 10 * self.size


class Missing(Blind):
    def build(self, base: Matrix, options: BuildOptions) -> None:
        import no_such_package_of_ann  # noqa: F401


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "base.npy", BASE)
    np.save(tmp_path / "queries.npy", QUERIES)
    return tmp_path


def bench(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    files = ["--base", f"{folder}/base.npy", "--queries", f"{folder}/queries.npy"]
    out = folder / "out.json"
    done = CliRunner().invoke(
        main, [*files, "--passes", "1", "--metric", "l2", "--out", str(out), *options]
    )
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done.output


def test_exact_search_is_exact_in_everything_that_is_measured(files: Path) -> None:
    result, text = bench(
        files, "--engines", "vecdb-flat", "--k", "1,10", "--query-threads", "1,2",
        "--filter-selectivity", "0.5,0.01", "--correlated", "--churn", "2",
    )  # fmt: skip
    points = result["engines"]["vecdb-flat"]["points"]
    assert [(p["k"], p["threads"], p["recall"]) for p in points] == [
        (k, threads, 1.0) for k in (1, 10) for threads in (1, 2)
    ]
    assert len(result["filtered"]) == 2 * 3 * 2
    for found in result["filtered"]:
        assert found["allowed"] == round(400 * found["selectivity"])
        for point in found["points"]:
            assert (point["recall"], point["short"], point["forbidden"]) == (1.0, 0, 0)
    (churn,) = result["churn"]
    assert churn["points"] == [{"value": 0, "fresh": 1.0, "after": 1.0}]
    assert "k = 10, far filter" in text
    assert "deleted and inserted again, 2 times" in text


def test_what_an_engine_gets_wrong_is_counted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "blind", Blind)
    result, text = bench(files, "--engines", "blind", "--filter-selectivity", "0.05")
    assert result["engines"]["blind"]["points"][0]["recall"] < 0.2
    assert result["engines"]["blind"]["bytes_per_vector"] == 10
    point = result["filtered"][0]["points"][0]
    assert point["short"] == len(QUERIES)
    assert point["forbidden"] > 0
    assert point["recall"] < 0.5
    assert "!" in text
    assert result["churn"] == []
    fewer = ["--filter-selectivity", "0.05", "--filter-queries", "7"]
    result, _ = bench(files, "--engines", "blind", *fewer)
    assert result["filtered"][0]["points"][0]["short"] == 7


def test_a_missing_package_leaves_one_engine_out(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "missing", Missing)
    result, text = bench(files, "--engines", "missing,vecdb-flat")
    assert list(result["engines"]) == ["vecdb-flat"]
    assert "no_such_package_of_ann is not installed" in result["left_out"]["missing"]
    assert "missing: left out" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "1,x"], "must be numbers above 0"),
        (["--k", "500"], "there are 400 vectors"),
        (["--engines", "nothing"], "must be among"),
        (["--filter-selectivity", "1.5"], "must be at most 1"),
    ],
)
def test_wrong_options_are_named(files: Path, options: list[str], said: str) -> None:
    paths = ["--base", f"{files}/base.npy", "--queries", f"{files}/queries.npy"]
    done = CliRunner().invoke(main, [*paths, "--out", str(files / "o.json"), *options])
    assert done.exit_code == 1
    assert said in done.output


def test_files_of_ann_benchmarks(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="it comes with vecdb[bench]")
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = BASE, QUERIES
        file.attrs["distance"] = "angular"
    base, queries, metric = load(path, None, None)
    assert metric == "cosine"
    assert np.allclose(np.linalg.norm(base, axis=1), 1)
    assert queries.shape == QUERIES.shape
    assert load(path, None, "l2")[2] == "l2"


def test_an_npy_needs_queries(files: Path) -> None:
    with pytest.raises(click.ClickException, match="--queries is needed"):
        load(files / "base.npy", None, None)


def test_equal_vectors_are_equally_right() -> None:
    base = np.concatenate([BASE, BASE])
    limits = true_limits("l2", QUERIES, base, [2, 4])
    order = ((QUERIES[:, None] - BASE[None]) ** 2).sum(2).argsort(axis=1)
    found = np.stack([order[:, 0], order[:, 0] + 400], axis=1)
    assert hits_of("l2", QUERIES, base, limits[2], found).tolist() == [2] * len(QUERIES)
    assert hits_of("l2", QUERIES, base, limits[2], order[:, :2]).tolist() == [1] * len(QUERIES)
    assert hits_of("l2", QUERIES, base, limits[4], order[:, :2]).tolist() == [2] * len(QUERIES)


def test_speed_at_a_recall_lies_between_its_neighbours() -> None:
    points = [{"recall": 0.8, "qps": 100.0}, {"recall": 1.0, "qps": 1.0}]
    assert qps_at(points, 0.9) == pytest.approx(10)
    assert qps_at(points, 1.0) == 1
    assert qps_at(points[:1], 0.9) is None
