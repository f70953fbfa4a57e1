"""The graph against the numpy reference, on random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.encode import reference, tiny
from vecdb.encode import bert_graph
from vecdb.encode.onnx import EncoderSession
from vecdb.encode.settings import BertSettings
from vecdb.errors import InvalidParameterError

LENGTHS = [1, 2, 7, 16, 32]


def session_of(weights: bert_graph.Weights, settings: BertSettings, folder: Path) -> EncoderSession:
    path = folder / "graph.onnx"
    path.write_bytes(bert_graph.build(weights, settings).SerializeToString())
    return EncoderSession(path, device="cpu")


def sequences(rng: np.random.Generator, lengths: list[int]) -> list[np.ndarray]:
    return [rng.integers(0, len(tiny.VOCABULARY), length) for length in lengths]


def padded(texts: list[np.ndarray], filler: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.full((len(texts), lengths.max()), filler, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return ids, lengths


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("heads", "layers", "eps"), [(1, 1, 1e-12), (4, 3, 1e-5)])
def test_equals_the_reference(
    tmp_path: Path, pooling: str, normalized: bool, heads: int, layers: int, eps: float
) -> None:
    settings = BertSettings(heads, layers, eps, pooling, normalized)  # type: ignore[arg-type]
    weights = tiny.weights(settings, seed=heads)
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    session = session_of(weights, settings, tmp_path)
    texts = sequences(np.random.default_rng(1), LENGTHS)
    ids, lengths = padded(texts, filler=3)
    sentences = session.run(ids, lengths, "sentence")
    tokens = session.run(ids, lengths, "tokens")
    assert sentences.dtype == tokens.dtype == np.float32
    for row, text in enumerate(texts):
        expected = reference.sentence(exact, settings, text)
        np.testing.assert_allclose(sentences[row], expected, atol=2e-5)
        np.testing.assert_allclose(
            tokens[row, : len(text)], reference.tokens(exact, settings, text), atol=5e-5
        )


def test_padding_and_neighbours_do_not_matter(tmp_path: Path) -> None:
    settings = BertSettings(heads=4, layers=2)
    session = session_of(tiny.weights(settings), settings, tmp_path)
    texts = sequences(np.random.default_rng(2), LENGTHS)
    alone = np.concatenate([session.run(*padded([text], 0), "sentence") for text in texts])
    together = session.run(*padded(texts, 0), "sentence")
    other_filler = session.run(*padded(texts, 9), "sentence")
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_array_equal(together, other_filler)


def test_prefix_and_half_precision_weights(tmp_path: Path) -> None:
    settings = BertSettings(heads=2, layers=1)
    half = {f"bert.{name}": w.astype(np.float16) for name, w in tiny.weights(settings).items()}
    half["bert.embeddings.position_ids"] = np.arange(32)[None]  # old checkpoints carry it
    session = session_of(half, settings, tmp_path)
    exact = {name: value.astype(np.float64) for name, value in half.items()}
    [text] = sequences(np.random.default_rng(3), [9])
    np.testing.assert_allclose(
        session.run(*padded([text], 0), "sentence")[0],
        reference.sentence(exact, settings, text),
        atol=1e-5,
    )


def test_wrong_weights_are_named() -> None:
    settings = BertSettings(heads=4, layers=2)
    weights = tiny.weights(settings)
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(InvalidParameterError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        bert_graph.build(weights, settings)
    with pytest.raises(InvalidParameterError, match="not a multiple of 7"):
        bert_graph.build(tiny.weights(settings), BertSettings(heads=7, layers=2))
