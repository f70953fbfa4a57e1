"""Where compiled kernels are kept, and what importing them does to others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vecdb.kernels.jit import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="without the JIT nothing is cached")

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
    assert _folders(NUMBA_CACHE_DIR=str(tmp_path)) == [str(tmp_path)] * 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders are Linux's")
def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert _folders(XDG_CACHE_HOME=str(in_the_way))[0] == "None"
