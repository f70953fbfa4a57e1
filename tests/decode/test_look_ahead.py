"""Guessed tokens change how many steps a generation takes; with float32 never what it says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.decode.tiny_gguf import CONTEXT
from vecdb.decode import GenerationParams
from vecdb.decode.look_ahead import Recall
from vecdb.decode.onnx import OnnxDecoder, Steps

RANDOM = np.random.default_rng(3).integers(0, 260, size=40).tolist()
REPEATING = [11, 12, 13, 14] * 10


@pytest.fixture(scope="module")
def ahead(tiny):
    decoder = OnnxDecoder(tiny.decoder.session()._model_path, threads=1, look_ahead=True)
    yield decoder
    decoder.close()


def test_a_guess_is_what_followed_last_time():
    recall = Recall([1, 2, 3, 1, 2])
    assert recall.guess() == 3
    recall.add(4)
    assert recall.guess() is None
    for token in (1, 2):
        recall.add(token)
    assert recall.guess() == 4
    assert Recall([]).guess() is None
    assert Recall([5]).guess() is None


@pytest.mark.parametrize("prompt", [RANDOM, REPEATING], ids=["random", "repeating"])
@pytest.mark.parametrize(
    "params",
    [
        GenerationParams(max_tokens=60),
        GenerationParams(max_tokens=60, temperature=0.8, seed=5),
        GenerationParams(max_tokens=60, temperature=0.3, top_k=3, seed=6),
        GenerationParams(max_tokens=60, repetition_penalty=1.3),
        GenerationParams(max_tokens=2),
        GenerationParams(max_tokens=1_000),
    ],
    ids=["greedy", "sampled", "few choices", "penalty", "two", "to the end of the context"],
)
def test_the_tokens_are_the_same(tiny, ahead, prompt, params):
    expected = list(tiny.decoder.generate(prompt, params))
    assert list(ahead.generate(prompt, params)) == expected
    assert len(expected) == min(params.max_tokens, CONTEXT - len(prompt))


def test_it_stops_at_the_same_token(tiny, ahead):
    whole = list(tiny.decoder.generate(REPEATING, GenerationParams(max_tokens=60)))
    for stop in set(whole):
        params = GenerationParams(max_tokens=60, stop_token_ids=(stop,))
        expected = list(tiny.decoder.generate(REPEATING, params))
        assert list(ahead.generate(REPEATING, params)) == expected


def test_a_right_guess_saves_a_step(tiny, ahead, monkeypatch):
    sizes = []
    run = Steps.run

    def counted(self, tokens, rows):
        sizes.append(len(tokens))
        return run(self, tokens, rows)

    monkeypatch.setattr(Steps, "run", counted)
    params = GenerationParams(max_tokens=40)
    tokens = list(ahead.generate(REPEATING, params))
    steps = sizes[1:]
    guesses = steps.count(2)
    saved = len(tokens) - 1 - len(steps)
    assert 0 < saved < guesses  # this prompt leads to right guesses and to wrong ones
    sizes.clear()
    assert list(tiny.decoder.generate(REPEATING, params)) == tokens
    assert sizes == [len(REPEATING), *[1] * 39]
