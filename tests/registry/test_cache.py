"""The cache of model files: where it cannot be used, what is left in it, what is derived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.registry.stand_in import CONTENT, URL, Hub, entry
from vecdb.errors import DiskFullError, StorageAccessError
from vecdb.registry import cache as cache_module
from vecdb.registry.cache import ModelCache
from vecdb.registry.models import fetch, is_cached


def test_what_killed_downloads_left_is_deleted(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from vecdb.registry.cache import ModelCache\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
        "ModelCache(sys.argv[1]).put(sys.argv[2], 'weights.bin', 9, chunks(), 'test')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), entry().sha256]
    folder = tmp_path / entry().sha256

    def put() -> set[Path]:
        ModelCache(tmp_path).put(entry().sha256, "weights.bin", len(CONTENT), [CONTENT], "test")
        return set(folder.glob(".partial-*"))

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == b"begun\n"
        partial = set(folder.glob(".partial-*"))
        assert len(partial) == 1
        assert put() == partial, "what another process writes is left alone"
        writing.kill()
    assert put() == set()


def test_a_folder_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = cache_module._lock
    locked: list[Path] = []

    def late(folder: Path) -> int:
        locked.append(folder)
        if len(locked) == 1:
            folder.rmdir()
        return lock(folder)

    monkeypatch.setattr(cache_module, "_lock", late)
    ModelCache(tmp_path).put(entry().sha256, "weights.bin", len(CONTENT), [CONTENT], "test")
    assert len(locked) == 2
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["weights.bin"]


def test_full_disk(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[URL] = CONTENT

    def full(_: int) -> None:
        raise OSError(cache_module.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"weights\.bin"):
        fetch(entry(), tmp_path / "cache", progress=False)


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A path below which nothing can be written, not even by root."""
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "cache"


def test_cache_that_cannot_be_written(hub: Hub, no_folder: Path) -> None:
    hub.files[URL] = CONTENT
    with pytest.raises(StorageAccessError, match=f"cannot write {no_folder}"):
        fetch(entry(), no_folder, progress=False)
    assert not is_cached(entry(), no_folder)


def test_cache_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ModelCache(tmp_path)
    path = cache.put(entry().sha256, "weights.bin", len(CONTENT), [CONTENT], "test")

    def refuses(_: Path) -> str:
        raise PermissionError(cache_module.errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache_module, "sha256_of", refuses)
    with pytest.raises(StorageAccessError, match=f"cannot read {path}: Permission denied"):
        fetch(entry(), tmp_path, progress=False)


def test_derived_file_where_the_cache_cannot_be_written(
    no_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.write_bytes(b"graph")

    path = ModelCache(no_folder).derive("cd" * 32, "graph-1.onnx", build)
    assert path.read_bytes() == b"graph"
    assert path.parents[1].stat().st_mode & 0o077 == 0
    assert f"cannot write {no_folder}" in caplog.text
    assert ModelCache(no_folder).derive("cd" * 32, "graph-1.onnx", build) == path
    assert len(built) == 1


def test_derived_file_is_built_once_and_again_when_damaged(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.write_bytes(b"graph")

    path = cache.derive("ab" * 32, "graph-1.onnx", build)
    assert cache.derive("ab" * 32, "graph-1.onnx", build) == path
    assert len(built) == 1
    path.write_bytes(b"damage")
    assert cache.derive("ab" * 32, "graph-1.onnx", build).read_bytes() == b"graph"
    assert len(built) == 2
