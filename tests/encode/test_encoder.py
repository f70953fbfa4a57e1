"""The encoder as callers see it, on a tiny random model."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from tests.encode import reference, tiny
from tests.encode.conftest import TINY
from vecdb.caller import checking_caller
from vecdb.encode import Encoder, load_encoder
from vecdb.encode.onnx import EncoderSession
from vecdb.encode.transformer import TransformerEncoder
from vecdb.errors import (
    CancelledError,
    ClosedError,
    DeviceUnavailableError,
    EmptyBatchError,
    InternalError,
    InvalidParameterError,
    InvalidTextError,
    MissingDependencyError,
    ModelNotFoundError,
)
from vecdb.registry.cache import sha256_of

TEXTS = ["the cat sat on a mat", "a dog", "unbelievable . the dog ran , the cat ran", "😀 日本語"]
LONG = "the cat sat on a mat . " * 5


def test_vectors_are_the_reference_s(tiny_encoder: Encoder, tiny_folder: Path) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    encoded = tiny_encoder.encode([*TEXTS, LONG])
    assert encoded.vectors.dtype == np.float32
    assert encoded.vectors.flags.c_contiguous
    assert encoded.vectors.shape == (5, tiny_encoder.dim) == (5, 24)
    assert encoded.truncated.tolist() == [False] * 4 + [True]
    vocabulary = {word: i for i, word in enumerate(tiny.VOCABULARY)}
    for text, row in (("the cat", 0), ("a dog ran .", 1)):
        ids = np.array([2, *(vocabulary[word] for word in text.split()), 3])
        expected = reference.sentence(weights, TINY, ids)
        vector = tiny_encoder.encode([text]).vectors[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        [tokens] = tiny_encoder.token_vectors([text])
        assert tokens.shape == (len(ids), 24), row
        np.testing.assert_allclose(tokens, reference.tokens(weights, TINY, ids), atol=2e-5)


def test_info_names_everything(tiny_encoder: Encoder, tiny_folder: Path) -> None:
    info = tiny_encoder.info
    assert info.model == str(tiny_folder.resolve())
    assert info.weights_sha256 == sha256_of(tiny_folder / "model.safetensors")
    assert info.tokenizer_sha256 == sha256_of(tiny_folder / "tokenizer.json")
    assert (info.pooling, info.prefix, info.normalized) == ("mean", "", True)
    assert (info.dim, info.max_tokens) == (24, 16)
    assert tiny_encoder.provider == "CPUExecutionProvider"


def test_many_texts_keep_their_order(tiny_encoder: Encoder) -> None:
    texts = [TEXTS[i % 4] if i % 7 else LONG for i in range(1100)]
    encoded = tiny_encoder.encode(texts)
    assert encoded.truncated.tolist() == [i % 7 == 0 for i in range(1100)]
    alone = {text: tiny_encoder.encode([text]).vectors[0] for text in (*TEXTS, LONG)}
    np.testing.assert_allclose(encoded.vectors, [alone[text] for text in texts], atol=1e-5)
    tokens = tiny_encoder.token_vectors(texts)
    assert [len(rows) for rows in tokens] == [
        min(16, tiny_encoder.count_tokens(text)) for text in texts
    ]


def test_concurrent_callers(tiny_encoder: Encoder) -> None:
    alone = [tiny_encoder.encode([text]).vectors[0] for text in TEXTS]
    with ThreadPoolExecutor(16) as callers:
        found = list(callers.map(lambda i: tiny_encoder.encode([TEXTS[i % 4]]), range(400)))
    for i, encoded in enumerate(found):
        np.testing.assert_allclose(encoded.vectors[0], alone[i % 4], atol=1e-5)


def test_submit(tiny_encoder: Encoder) -> None:
    assert isinstance(tiny_encoder, TransformerEncoder)
    encoded = tiny_encoder.submit([TEXTS[0], LONG]).result(10)
    np.testing.assert_allclose(
        encoded.vectors, tiny_encoder.encode([TEXTS[0], LONG]).vectors, atol=1e-5
    )
    assert encoded.truncated.tolist() == [False, True]


def test_spans_of_a_long_text(tiny_encoder: Encoder) -> None:
    spans = tiny_encoder.split(LONG)
    assert len(spans) == 3
    pieces = [LONG[start:end] for start, end in spans]
    assert not tiny_encoder.encode(pieces).truncated.any()
    assert " ".join(pieces).split() == LONG.split()


def test_bad_texts(tiny_encoder: Encoder) -> None:
    for call in (tiny_encoder.encode, tiny_encoder.token_vectors):
        with pytest.raises(EmptyBatchError):
            call([])
        with pytest.raises(InvalidTextError, match="empty"):
            call(["fine", "  "])
        with pytest.raises(InvalidTextError):
            call("one text")
    for one in (tiny_encoder.split, tiny_encoder.count_tokens):
        with pytest.raises(InvalidTextError):
            one("")


def test_closed(tiny_folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_folder), cache_dir=tmp_path)
    encoder.encode(TEXTS)
    encoder.close()
    encoder.close()
    with pytest.raises(ClosedError):
        encoder.encode(TEXTS)


def test_graph_is_cached_under_weights_and_settings(tiny_folder: Path, tmp_path: Path) -> None:
    load_encoder(str(tiny_folder), cache_dir=tmp_path).close()
    [graph] = tmp_path.rglob("*.onnx")
    assert graph.parent.name == sha256_of(tiny_folder / "model.safetensors")
    written = graph.stat().st_mtime_ns
    load_encoder(str(tiny_folder), cache_dir=tmp_path).close()
    assert graph.stat().st_mtime_ns == written
    graph.write_bytes(graph.read_bytes()[:-1])
    load_encoder(str(tiny_folder), cache_dir=tmp_path).close()
    other = tiny.write_model(tmp_path / "other", type(TINY)(heads=2, layers=2, max_tokens=16))
    load_encoder(str(other), cache_dir=tmp_path).close()
    assert len(list(tmp_path.rglob("*.onnx"))) == 2


def test_without_cuda(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match=r"no CUDA provider.*vecdb\[gpu\]"):
        load_encoder(str(tiny_folder), cache_dir=tmp_path, device="cuda")
    encoder = load_encoder(str(tiny_folder), cache_dir=tmp_path, device="auto")
    assert encoder.provider == "CPUExecutionProvider"
    encoder.close()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_start(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the package is onnxruntime-gpu and the driver is missing."""
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(DeviceUnavailableError, match="fell back to the CPU"):
        load_encoder(str(tiny_folder), cache_dir=tmp_path, device="cuda")
    encoder = load_encoder(str(tiny_folder), cache_dir=tmp_path, device="auto")
    assert encoder.provider == "CPUExecutionProvider"
    assert len(encoder.encode(TEXTS).vectors) == 4
    encoder.close()


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing of the kind")
    for name in ("x.onnx", "missing.onnx"):
        with pytest.raises(InternalError, match=name):
            EncoderSession(tmp_path / name, device="cpu")


def test_unknown_arguments(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="known: all-MiniLM-L6-v2"):
        load_encoder("no-such-model", cache_dir=tmp_path)
    with pytest.raises(ModelNotFoundError, match="no/such/folder"):
        load_encoder("no/such/folder", cache_dir=tmp_path)
    with pytest.raises(InvalidParameterError, match="device='tpu'"):
        load_encoder(str(tiny_folder), cache_dir=tmp_path, device="tpu")
    with pytest.raises(InvalidParameterError, match="threads=0"):
        load_encoder(str(tiny_folder), cache_dir=tmp_path, threads=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        load_encoder(str(tmp_path / "empty"), cache_dir=tmp_path)


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_missing_extra_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from vecdb.encode import load_encoder
from vecdb.errors import MissingDependencyError
try:
    load_encoder(sys.argv[1], cache_dir=sys.argv[2])
except MissingDependencyError as error:
    print(error)
"""
    said = run_python(code, str(tiny_folder), str(tmp_path))
    assert "'onnxruntime' is not installed" in said
    assert 'pip install "vecdb[cpu]"' in said
    assert issubclass(MissingDependencyError, Exception)


def test_imports_stay_cheap(tiny_folder: Path, tmp_path: Path) -> None:
    load_encoder(str(tiny_folder), cache_dir=tmp_path).close()
    code = """
import sys
heavy = ("onnx", "onnxruntime", "tokenizers", "safetensors", "httpx", "torch", "tqdm")
import vecdb.encode
import vecdb.registry.models
print([name for name in heavy if name in sys.modules])
vecdb.encode.load_encoder(sys.argv[1], cache_dir=sys.argv[2]).encode(["the cat"])
print([name for name in heavy if name in sys.modules])
"""
    assert run_python(code, str(tiny_folder), str(tmp_path)).splitlines() == [
        "[]",
        "['onnxruntime', 'tokenizers']",
    ]


def test_texts_of_a_caller_who_has_gone_are_dropped(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(tiny_folder), cache_dir=tmp_path, device="cpu")
    assert isinstance(encoder, TransformerEncoder)
    run, batches, held = encoder._batcher._run, [], threading.Event()

    def counted(*batch: Any) -> Any:
        batches.append(batch)
        assert held.wait(10)
        return run(*batch)

    def gone() -> None:
        if batches:
            raise CancelledError("the caller went away")

    monkeypatch.setattr(encoder._batcher, "_run", counted)
    with pytest.raises(CancelledError), checking_caller(gone):
        encoder.encode(["the cat sat on the mat"] * 2000)
    under_way = len(batches)
    held.set()
    encoder.encode(["the dog"])
    assert len(batches) == under_way + 1
    encoder.close()
