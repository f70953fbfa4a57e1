"""Codes of two bytes a coordinate: exact products, and bounds that hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.index.samples import clustered
from vecdb.index.graph_carve import words_of
from vecdb.index.workers import Workers
from vecdb.kernels.jit import kernel
from vecdb.kernels.word_codes import (
    REST,
    SQUARE,
    STEP,
    dot_words,
    least_squared,
    squared_of_codes,
)

ROWS = 8


@kernel
def _all_pairs(words, products, least, about):  # type: ignore[no-untyped-def]
    for i in range(0, ROWS, 4):
        for j in range(0, ROWS, 2):
            eight = dot_words(words.codes, i, words.codes, j, j + 1, words.codes.shape[1])
            for t in range(4):
                for side in range(2):
                    one, other = words.facts[i + t], words.facts[j + side]
                    steps, squares = (one[STEP], other[STEP]), (one[SQUARE], other[SQUARE])
                    product, place = eight[2 * t + side], (i + t, j + side)
                    products[place] = product
                    least[place] = least_squared(product, steps, (one[REST], other[REST]), squares)
                    about[place] = squared_of_codes(product, steps, squares)


def _compare(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, their products, and what distances are at least, and about."""
    words = words_of(vectors, Workers())
    products = np.zeros((ROWS, ROWS), np.int32)
    least, about = np.zeros((2, ROWS, ROWS), np.float32)
    _all_pairs(words, products, least, about)
    return words.codes, products, least, about


@pytest.mark.parametrize("width", [1, 16, 48, 384, 4_096])
def test_products_are_exact_where_they_are_largest(width: int) -> None:
    """Every coordinate at the largest level: no sum overflows."""
    vectors = np.where(np.arange(ROWS * width).reshape(ROWS, width) % 7 < 3, 2.0, -2.0)
    codes, products, _, about = _compare(vectors.astype(np.float32))
    wide = codes.astype(np.int64)
    assert (products == wide @ wide.T).all()
    true = np.square(vectors[:, None] - vectors[None]).sum(axis=2)
    np.testing.assert_allclose(about, true, rtol=1e-4, atol=1e-4 * width)


@given(st.integers(1, 70), st.sampled_from([1e-12, 1e-6, 1.0, 1e6]), st.integers(0, 2**32 - 1))
def test_no_two_rows_are_nearer_than_their_codes_say(dim: int, scale: float, seed: int) -> None:
    vectors = clustered(ROWS, dim, seed=seed) * np.float32(scale)
    vectors[3], vectors[4], vectors[5, 1:] = vectors[2], 0, 0
    _, _, least, about = _compare(vectors)
    wide = vectors.astype(np.float64)
    true = np.square(wide[:, None] - wide[None]).sum(axis=2)
    assert (least <= true + np.finfo(np.float32).tiny).all()
    largest = np.square(wide).sum(axis=1).max()
    np.testing.assert_allclose(about, true, rtol=0.01, atol=1e-4 * largest)
    np.testing.assert_allclose(least, true, rtol=0.02, atol=1e-4 * largest)
