"""The ONNX graph against the numpy reference, on tiny random models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from tests.decode.reference import ReferenceDecoder
from tests.decode.scoring import log_probabilities
from tests.decode.tiny_gguf import CONTEXT, write_tiny_gguf
from vecdb.decode import GenerationParams, generation
from vecdb.decode.gguf_file import BlockMatrix, GgufFile
from vecdb.decode.llama_graph import build_llama, fold_remainder, nearest_zero_points, pack_codes
from vecdb.decode.onnx import OnnxDecoder
from vecdb.errors import DecoderError

TOKENS = np.random.default_rng(7).integers(0, 260, size=CONTEXT).tolist()
GREEDY = GenerationParams(max_tokens=40)


def decoder(gguf, folder, activations="float32", target="cpu"):
    path = folder / f"{activations}-{target}.onnx"
    onnx.save(build_llama(GgufFile(gguf), activations, target), path)
    return OnnxDecoder(path, threads=1)


@pytest.mark.parametrize(
    ("kind", "embedding_kind", "tied"),
    [
        (Kind.Q4_1, Kind.Q8_0, True),
        (Kind.Q4_1, Kind.Q4_1, False),
        (Kind.Q4_0, Kind.Q8_0, False),
        (Kind.Q8_0, Kind.Q8_0, True),
        (Kind.F16, Kind.F16, True),
        (Kind.F32, Kind.F32, False),
    ],
)
def test_float32_activations_are_the_reference(tmp_path, kind, embedding_kind, tied):
    gguf = write_tiny_gguf(tmp_path / "m.gguf", kind, embedding_kind=embedding_kind, tied=tied)
    reference, ours = ReferenceDecoder(gguf), decoder(gguf, tmp_path)
    expected = reference.log_probabilities(TOKENS)
    np.testing.assert_allclose(log_probabilities(ours, TOKENS), expected, atol=2e-5)
    prompt = TOKENS[:30]
    assert list(ours.generate(prompt, GREEDY)) == list(reference.greedy(prompt, 40))


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q8_0])
def test_int8_activations_are_near_it(tmp_path, kind):
    gguf = write_tiny_gguf(tmp_path / "m.gguf", kind)
    expected = ReferenceDecoder(gguf).log_probabilities(TOKENS)
    scores = log_probabilities(decoder(gguf, tmp_path, "int8"), TOKENS)
    assert np.abs(scores - expected).max() < 0.3
    assert abs(scores.mean() - expected.mean()) < 0.01


def test_the_graph_for_cuda_is_near_it(tmp_path, tiny_path):
    """Half-precision attention; the CPU has kernels for this graph too."""
    expected = ReferenceDecoder(tiny_path).log_probabilities(TOKENS)
    ours = decoder(tiny_path, tmp_path, "float32", "cuda")
    np.testing.assert_allclose(log_probabilities(ours, TOKENS), expected, atol=0.02)


def test_prompt_in_parts_gives_the_same(tmp_path, tiny_path, monkeypatch):
    ours, prompt = decoder(tiny_path, tmp_path), TOKENS[:100]
    whole = list(ours.generate(prompt, GREEDY))
    monkeypatch.setattr(generation, "_PREFILL_TOKENS", 7)
    assert list(ours.generate(prompt, GREEDY)) == whole


def test_four_bit_weights_stay_four_bit(tmp_path, tiny_path):
    model = build_llama(GgufFile(tiny_path), "int8")
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    bits = [
        next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        for node in products
    ]
    assert bits == [4] * (len(products) - 1) + [8]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["blk.0.ffn_down.codes"] == (64, 4, 16)


@given(st.integers(0, 2**32 - 1))
def test_zero_point_and_remainder_are_the_minimum(seed):
    random = np.random.default_rng(seed)
    scales = random.choice([0.0, 1e-4, 0.1, 3.0], size=(3, 5)).astype(np.float16)
    minima = random.normal(size=(3, 5)).astype(np.float16)
    codes = random.integers(0, 16, size=(3, 5, 32), dtype=np.uint8)
    matrix = BlockMatrix(codes, scales.astype(np.float32), minima.astype(np.float32), 4)
    zero_points, remainder = nearest_zero_points(matrix)
    assert zero_points.max() <= 15
    centred = codes.astype(np.float64) - zero_points[..., None]
    weights = matrix.scales[..., None] * centred + remainder[..., None]
    np.testing.assert_allclose(weights.reshape(3, -1), matrix.dequantized(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("blocks", [3, 32, 40])
def test_folded_remainder_is_near_it(blocks):
    random = np.random.default_rng(blocks)
    remainder = random.uniform(-0.1, 0.1, size=(4, blocks)).astype(np.float32)
    remainder[1] = 0
    matrix = BlockMatrix(
        np.zeros((4, blocks, 32), np.uint8),
        np.ones((4, blocks), np.float32),
        np.zeros((4, blocks), np.float32),
        4,
    )
    folded, zero_points = fold_remainder(matrix, np.zeros((4, blocks), np.uint8), remainder)
    columns = folded.dequantized()[:, blocks * 32 :]
    assert folded.shape == (4, 32 * (blocks + -(-blocks // 32)))
    assert zero_points.shape == folded.scales.shape
    np.testing.assert_allclose(columns[:, :blocks], remainder, atol=0.1 / 14 + 1e-6)
    assert not columns[:, blocks:].any()
    assert not columns[1].any()


def test_codes_are_packed_low_half_first():
    codes = np.array([[1, 2, 3]], dtype=np.uint8)
    assert pack_codes(codes, 4).tolist() == [[0x21, 0x03]]
    assert pack_codes(codes, 8).tolist() == [[1, 2, 3]]


def test_unsupported_files_say_what_is(tmp_path):
    with pytest.raises(DecoderError, match=r"'gpt2'.*only 'llama'"):
        GgufFile(write_tiny_gguf(tmp_path / "a.gguf", architecture="gpt2")).shape()
    other = write_tiny_gguf(tmp_path / "b.gguf", Kind.Q5_0)
    with pytest.raises(DecoderError, match=r"attn_q.weight is of type Q5_0.*Q4_0, Q4_1, Q8_0"):
        build_llama(GgufFile(other), "int8")
    (tmp_path / "c.gguf").write_bytes(b"not a model at all")
    with pytest.raises(DecoderError, match="not a readable GGUF file"):
        GgufFile(tmp_path / "c.gguf")
    with pytest.raises(DecoderError, match=r"no 'tokenizer.nothing'"):
        GgufFile(other).value("tokenizer.nothing")
    with pytest.raises(DecoderError, match="no tensor 'nothing'"):
        GgufFile(other).matrix("nothing")
