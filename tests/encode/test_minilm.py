"""all-MiniLM-L6-v2 itself: the float32 reference, whatever the batch; the published vectors."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.encode import reference
from vecdb.encode import Encoder
from vecdb.registry.models import fetch_all, find_model

DATA = Path(__file__).parents[2].parent / "shared" / "data"

WORDS = (
    "the database keeps every acknowledged write and python embeds questions 数据库 базы данных",
    "Übergrößenträger naïve façade قاعدة βάση 🚀🔥 x=f(y)+1; https://example.org/?q=%20 ก็ 한국어",
    "supercalifragilisticexpialidocious 1234567890 \u200bzero\u200dwidth ﬁligree e\u0301",
)


def hundred_texts() -> list[str]:
    """Texts of about 1 to 256 tokens, in many scripts, and some single characters."""
    rng = np.random.default_rng(42)
    words = " ".join(WORDS).split()
    texts = ["a", "\u0000x", "?", "\u0301", "🚀", "日", "[SEP] [MASK] [CLS]", "\tword\r\n"]
    counts = np.geomspace(1, 140, 100 - len(texts)).astype(int)
    return texts + [" ".join(rng.choice(words, count)) for count in counts]


@pytest.fixture(scope="module")
def ids() -> list[np.ndarray]:
    """The texts' ids by the library's own truncation, not by vecdb's."""
    path = fetch_all(find_model("all-MiniLM-L6-v2"), progress=False)["tokenizer.json"]
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return [np.array(encoding.ids) for encoding in tokenizer.encode_batch(hundred_texts())]


@pytest.fixture(scope="module")
def expected(ids: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """In a process of its own with one BLAS thread: with more, small products crawl on a busy
    machine.
    """
    folder = tmp_path_factory.mktemp("reference")
    weights = fetch_all(find_model("all-MiniLM-L6-v2"), progress=False)["model.safetensors"]
    np.savez(folder / "ids.npz", *ids)
    command = [sys.executable, reference.__file__, weights, folder / "ids.npz", folder / "out.npy"]
    subprocess.run(command, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    return np.load(folder / "out.npy")


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left.astype(np.float64) * right).sum(1) / norms


def test_equals_the_float32_reference(
    minilm: Encoder, ids: list[np.ndarray], expected: np.ndarray
) -> None:
    lengths = [len(each) for each in ids]
    assert (min(lengths), max(lengths)) == (2, 256)  # 2: nothing but [CLS] and [SEP]
    encoded = minilm.encode(hundred_texts())
    assert cosines(encoded.vectors, expected).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_they_are_batched_with(minilm: Encoder, expected: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = hundred_texts()
    order = rng.permutation(len(texts))
    for part in np.array_split(order, 9):
        vectors = minilm.encode([texts[i] for i in part]).vectors
        assert cosines(vectors, expected[part]).min() >= 0.9999


def test_token_vectors_and_counts(minilm: Encoder, ids: list[np.ndarray]) -> None:
    texts = hundred_texts()[:30]
    rows = minilm.token_vectors(texts)
    assert [each.shape for each in rows] == [(len(each), 384) for each in ids[:30]]
    pooled = np.stack([each.mean(0) for each in rows])
    assert cosines(pooled, minilm.encode(texts).vectors).min() >= 0.999999
    assert [minilm.count_tokens(text) for text in texts] == [len(each) for each in ids[:30]]


def test_long_texts_are_cut_or_split(minilm: Encoder) -> None:
    text = "Retrieval-augmented answers cite what they rest on. " * 100
    encoded = minilm.encode([text, "short"])
    assert encoded.truncated.tolist() == [True, False]
    spans = minilm.split(text)
    assert all(minilm.count_tokens(text[start:end]) <= minilm.max_tokens for start, end in spans)
    assert " ".join(text[start:end] for start, end in spans).split() == text.split()
    assert minilm.max_tokens == 256


def test_published_vectors(minilm: Encoder) -> None:
    """The float16 embeddings of the PEP sentences, computed elsewhere from the same weights."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there: the shared data is not part of a clone")
    published = np.load(DATA / "pep_sentences_minilm_f16.npy", mmap_mode="r")
    with gzip.open(DATA / "pep_sentences.txt.gz", "rt", encoding="utf-8") as file:
        sentences = file.read().splitlines()
    rows = np.random.default_rng(7).choice(len(sentences), 200, replace=False)
    vectors = minilm.encode([sentences[row] for row in rows]).vectors
    assert cosines(vectors, published[rows].astype(np.float32)).min() >= 0.99999
