"""Where compiled kernels are kept, and what importing them does to others."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.samples import clustered
from vecdb.index import ByteCodes, HnswIndex, IvfIndex, Queries, rank_exactly, warm_up
from vecdb.kernels import (
    byte_scan,
    coded_insert,
    coded_rows,
    coded_scan,
    coded_search,
    compact_insert,
    compact_rows,
    compact_scan,
    compact_search,
    distance,
    graph,
    graph_build,
    graph_bulk,
    graph_bulk_link,
    graph_bulk_reach,
    graph_filtered,
    ivf,
    ivf_coarse,
    ivf_codes,
    ivf_search,
    kmeans,
    rotation,
    scan,
    word_codes,
)
from vecdb.kernels.jit import COMPILED, direct_kernel
from vecdb.types import Metric

pytestmark = pytest.mark.skipif(not COMPILED, reason="without the JIT nothing is cached")

MODULES = (
    byte_scan, distance, graph, graph_build, graph_filtered, ivf, ivf_coarse, ivf_codes, ivf_search,
    kmeans, rotation, scan, coded_insert, coded_rows, coded_scan, coded_search, compact_insert,
    compact_rows, compact_scan, compact_search, graph_bulk, graph_bulk_link, graph_bulk_reach,
    word_codes,
)  # fmt: skip
KERNELS = 41

SHOW = """
import numba
from vecdb.kernels import jit
print(jit.CACHE_FOLDER)
print(numba.config.CACHE_DIR)
"""


def _folders(**environment: str) -> list[str]:
    changed = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | environment
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=changed, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders are Linux's")
def test_kernels_are_cached_per_user_and_numbas_own_setting_is_left_alone(tmp_path: Path) -> None:
    ours, numbas = _folders(XDG_CACHE_HOME=str(tmp_path))
    assert Path(ours).parent == tmp_path / "vecdb" / "kernels"
    assert Path(ours).is_dir()
    assert numbas == ""


def test_the_users_folder_is_used_when_there_is_one(tmp_path: Path) -> None:
    ours, numbas = _folders(NUMBA_CACHE_DIR=str(tmp_path))
    assert Path(ours).parent == tmp_path / "vecdb" / "kernels"  # below: a hash, there too
    assert numbas == str(tmp_path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders are Linux's")
def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert _folders(XDG_CACHE_HOME=str(in_the_way))[0] == "None"


@direct_kernel
def _total(numbers: Any) -> Any:
    total = 0.0
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def test_a_direct_kernel_refuses_other_types_in_tests_and_takes_read_only_arrays() -> None:
    numbers = np.ones(3, np.float32)
    assert _total(numbers) == 3
    with pytest.raises(TypeError, match=r"_total is given .*float64.*: must be .*float32"):
        _total(np.ones(3))
    with pytest.raises(TypeError, match="must be"):
        _total(np.ones((3, 2), np.float32)[:, 0])
    numbers.flags.writeable = False
    assert _total(numbers) == 3


def test_each_kernel_is_compiled_for_one_set_of_types(tmp_path: Path) -> None:
    """A second set would be a second wait on somebody's first call."""
    index = HnswIndex(17, m=4, ef_construction=10)
    warm_up()
    index.build(clustered(300, 17), threads=2)
    index.save(tmp_path / "i")
    loaded = HnswIndex.load(tmp_path / "i")
    for ef, mask in ((2, None), (2, np.arange(300) % 3 > 0), (300, None)):
        loaded.search(clustered(3, 17), 2, ef=ef, filter=mask)
    loaded.add(clustered(3, 17, seed=1))
    for how in (("rabitq", None), ("sq8", "memory"), ("sq8", "mmap"), ("sq8", "none")):
        coded = HnswIndex(17, "dot", quantization=how[0], rerank=how[1])
        coded.build(clustered(300, 17), threads=2)
        coded.save(tmp_path / "c")
        for grown in (coded, HnswIndex.load(tmp_path / "c")):
            for ef, mask in ((2, None), (2, np.arange(300) % 3 > 0), (300, None)):
                rows, distances = grown.search(clustered(3, 17), 2, ef=ef, filter=mask)
            grown.add(clustered(3, 17, seed=1))
            asked = Queries(clustered(3, 17), Metric.DOT)
            ByteCodes(Metric.DOT).search(asked, clustered(303, 17), 2)
            rank_exactly(Metric.DOT, asked, clustered(303, 17), rows, distances)
    for options in ({"quantization": "none"}, {"rerank": "none"}, {"bits": 1}):
        lists = IvfIndex(17, **options)
        for start in range(0, 300, 30):
            lists.add(clustered(300, 17)[start : start + 30])
        lists.save(tmp_path / "l")
        for each in (lists, IvfIndex.load(tmp_path / "l")):
            for mask in (None, np.arange(300) % 3 > 0):
                each.search(clustered(40, 17), 2, filter=mask)
            each.remove(np.arange(60))
            each.add(clustered(40, 17, seed=1))
    kernels = {}
    for module in MODULES:
        for name, thing in vars(module).items():
            for each in (thing, getattr(thing, "__wrapped__", None)):  # of a direct kernel
                if type(getattr(each, "_cache", None)).__name__ == "FunctionCache":
                    kernels[f"{each.__module__}.{name}"] = each
    assert len(kernels) == KERNELS
    counts = {name: len(k.signatures) for name, k in kernels.items()}
    assert counts == dict.fromkeys(counts, 1)
