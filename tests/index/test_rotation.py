"""The random map under the codes is linear, keeps inner products, and hides where data lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.kernels import rotation
from vecdb.kernels.jit import kernel

DIMS = [1, 2, 63, 64, 65, 100, 128, 191, 192, 300, 384, 512, 768, 1000, 1536, 3072, 4095, 4096]


def _vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", DIMS)
def test_inner_products_are_kept(dim: int) -> None:
    vectors = _vectors(6, dim)
    turned = rotation.rotate(vectors, rotation.draw_signs(dim, seed=5))
    assert turned.shape == (6, rotation.rotated_dim(dim))
    assert turned.dtype == np.float32
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_array_less(
        np.abs(turned @ turned.T - vectors @ vectors.T), 1e-5 * np.outer(norms, norms)
    )


@pytest.mark.parametrize("normalise", [False, True])
def test_vectors_are_normalised_and_moved_before_they_are_rotated(normalise: bool) -> None:
    vectors, centre, signs = _vectors(3, 100), _vectors(1, 100, 1)[0], rotation.draw_signs(100, 5)
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalise else vectors
    np.testing.assert_allclose(
        rotation.rotate(vectors, signs, centre, normalise=normalise),
        rotation.rotate(scaled - centre, signs),
        atol=1e-5,
    )


@given(dim=st.integers(1, 4096), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_the_map_is_linear_and_keeps_lengths(dim: int, seed: int) -> None:
    x, y = _vectors(2, dim, seed % 1000)
    signs = rotation.draw_signs(dim, seed)
    a, b, both = rotation.rotate(np.stack([x, y, 3 * x - 2 * y]), signs)
    scale = float(np.linalg.norm(3 * a) + np.linalg.norm(2 * b))  # of what may cancel out
    np.testing.assert_allclose(3 * a - 2 * b, both, atol=1e-5 * scale)
    np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(x), rtol=1e-5)


def test_the_map_is_decided_by_the_seed_alone_and_for_good() -> None:
    signs = rotation.draw_signs(100, 7)
    np.testing.assert_array_equal(signs, rotation.draw_signs(100, 7))
    assert (signs != rotation.draw_signs(100, 8)).any()
    assert set(np.unique(signs)) == {-1, 1}
    # A stored index draws its signs again: what a seed gives must never change.
    first_bits = np.packbits(signs[0, :32] > 0, bitorder="little").tolist()
    assert first_bits == [139, 74, 229, 241]


@pytest.mark.parametrize("dim", [64, 192, 384, 1000])
def test_one_coordinate_is_spread_over_all(dim: int) -> None:
    """Codes take one bit of each coordinate: none may hold more than a little of the vector."""
    some = np.ascontiguousarray(np.eye(dim, dtype=np.float32)[:: dim // 16])
    turned = rotation.rotate(some, rotation.draw_signs(dim, 0))
    assert np.abs(turned).max() < 8 / np.sqrt(turned.shape[1])
    assert (turned > 0).mean() == pytest.approx(0.5, abs=0.1)


@kernel
def _rotate_one(rows, r, signs):  # type: ignore[no-untyped-def]
    rotation.rotate_row(rows, r, signs)


def test_a_row_is_rotated_in_place_and_its_neighbours_are_left_alone() -> None:
    signs = rotation.draw_signs(192, 0)
    rows = _vectors(3, 192)
    before = rows.copy()
    _rotate_one(rows, 1, signs)
    np.testing.assert_array_equal(rows[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(rows[1:2], rotation.rotate(before[1:2], signs))


def test_zeros_and_read_only_vectors_are_ordinary_inputs() -> None:
    vectors = np.zeros((2, 10), np.float32)
    vectors.flags.writeable = False
    assert not rotation.rotate(vectors, rotation.draw_signs(10, 0)).any()
