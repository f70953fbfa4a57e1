"""`bench.target_recall`: the recall that it tells is the one that was delivered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.target_recall import INDEXES, fill, main
from vecdb.index import FlatIndex


class Half:
    """Finds every other of the nearest, and rows that are not among them."""

    def __init__(self, dim: int, metric: str) -> None:
        self._exact = FlatIndex(dim, metric)

    def build(self, vectors: np.ndarray, threads: int) -> None:
        self._exact.build(vectors, threads=threads)

    def search(self, queries: np.ndarray, k: int, target_recall: float, filter: Any) -> Any:
        ids, distances = self._exact.search(queries, 2 * k, filter=filter)
        return ids[:, ::2], distances[:, ::2]


def test_what_is_found_is_counted_among_the_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    for name, count in (("base", 400), ("queries", 20)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((count, 12)).astype(np.float32))
    monkeypatch.setitem(INDEXES, "half", Half)
    files = ["--base", f"{tmp_path}/base.npy", "--queries", f"{tmp_path}/queries.npy"]
    out = tmp_path / "out.json"
    how = ["--indexes", "half,graph-rabitq", "--k", "10", "--shares", "1,0.5", "--targets", "0.9"]
    done = CliRunner().invoke(main, [*files, *how, "--out", str(out)])
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())["results"]
    recalls = {(r["index"], r["share"]): r["recall"] for r in results}
    assert recalls["half", 1] == recalls["half", 0.5] == 0.5
    wrong = CliRunner().invoke(main, [*files, "--indexes", "nothing"])
    assert wrong.exit_code == 2
    assert "unknown index 'nothing': graph-rabitq" in wrong.output
    assert min(recalls["graph-rabitq", 1], recalls["graph-rabitq", 0.5]) > 0.99


def test_rows_after_the_first_are_added_as_they_stand() -> None:
    class Noted:
        def __init__(self) -> None:
            self.parts: list[np.ndarray] = []

        def build(self, vectors: np.ndarray, threads: int) -> None:
            self.parts = [vectors]

        def add(self, vectors: np.ndarray, threads: int) -> None:
            self.parts.append(vectors)

    vectors = np.arange(1_000, dtype=np.float32)[:, None]
    for first, lengths in ((None, [1_000]), (150, [150, 400, 400, 50])):
        index = Noted()
        fill(index, vectors, first, 1)
        assert list(map(len, index.parts)) == lengths
        np.testing.assert_array_equal(np.concatenate(index.parts), vectors)
