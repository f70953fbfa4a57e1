"""Sampling against a plain statement of each filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.decode import GenerationParams
from vecdb.decode.sampling import Sampler, distribution, penalized


def naive_distribution(logits, params):
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if params.top_k:
        order = order[: params.top_k]
    weights = [np.exp((float(logits[t]) - float(logits[order[0]])) / params.temperature)
               for t in order]  # fmt: skip
    total = sum(weights)
    shares = [weight / total for weight in weights]
    kept, mass = [], 0.0
    for token, share in zip(order, shares, strict=True):
        if share < params.min_p * shares[0] or mass >= params.top_p:
            break
        kept.append((token, share))
        mass += share
    total = sum(share for _, share in kept)
    return {token: share / total for token, share in kept}


@given(
    logits=st.lists(st.integers(-40, 40), min_size=1, max_size=30),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 100]),
    top_p=st.sampled_from([0.1, 0.7, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_filters(logits, temperature, top_k, top_p, min_p):
    params = GenerationParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    values = np.array(logits, dtype=np.float32) / 4
    tokens, probabilities = distribution(values, params)
    expected = naive_distribution(values, params)
    # Tokens of next to no probability may be left out, or lie on the other side of a threshold.
    ours = dict(zip(tokens.tolist(), probabilities.tolist(), strict=True))
    for token in ours.keys() | expected.keys():
        if abs(ours.get(token, 0.0) - expected.get(token, 0.0)) > 1e-9:
            shares = np.cumsum(list(expected.values()))
            assert np.abs(shares - top_p).min() < 1e-9, (ours, expected)


def test_greedy_takes_the_first_of_the_best():
    sampler = Sampler(GenerationParams(), [])
    assert sampler.choose(np.array([1, 5, 5, 2], dtype=np.float32)) == 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-40, 1e-6])
def test_next_to_no_temperature_takes_one_of_the_best(temperature):
    logits = np.array([1, -3e38, 9, 9, 2], dtype=np.float32)
    params = GenerationParams(temperature=temperature, repetition_penalty=0.01, seed=1)
    sampler = Sampler(params, [])
    assert {sampler.choose(logits) for _ in range(20)} <= {2, 3}


def test_sampling_follows_the_distribution():
    params = GenerationParams(temperature=1.0, seed=1)
    sampler = Sampler(params, [])
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    counts = np.bincount([sampler.choose(logits) for _ in range(4_000)], minlength=3)
    np.testing.assert_allclose(counts / 4_000, [0.5, 0.3, 0.2], atol=0.03)


def test_repetition_penalty():
    logits = np.array([2.0, -2.0, 1.0], dtype=np.float32)
    assert penalized(logits, {0, 1}, 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]
    sampler = Sampler(GenerationParams(repetition_penalty=3.0), [])
    assert [sampler.choose(logits) for _ in range(2)] == [0, 2]
    assert Sampler(GenerationParams(repetition_penalty=3.0), [0]).choose(logits) == 2
