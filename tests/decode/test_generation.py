"""Generation: when it stops, what it refuses, and many at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.decode.tiny_gguf import CONTEXT
from vecdb.decode import GenerationParams, generation
from vecdb.decode import onnx as decode_onnx
from vecdb.decode.onnx import OnnxDecoder
from vecdb.errors import (
    ClosedError,
    DecoderError,
    DeviceUnavailableError,
    InvalidParameterError,
    ResourceExhaustedError,
)
from vecdb.onnx_sessions import cuda_available

PROMPT = [5, 9, 100, 42]


def test_max_tokens(tiny):
    whole = list(tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=20)))
    assert len(whole) == 20
    assert list(tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=5))) == whole[:5]


def test_stop_tokens_are_not_yielded(tiny):
    whole = list(tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=20)))
    stop = whole[7]
    stopped = tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=20, stop_token_ids=(stop,)))
    assert list(stopped) == whole[: whole.index(stop)]


def test_generation_ends_where_the_context_does(tiny):
    prompt = [7] * (CONTEXT - 3)
    assert len(list(tiny.decoder.generate(prompt, GenerationParams(max_tokens=50)))) == 3
    assert len(list(tiny.decoder.generate([7] * (CONTEXT - 1), GenerationParams()))) == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([7] * CONTEXT, f"{CONTEXT} tokens leaves no room in a context of {CONTEXT}"),
        ([], "non-empty"),
        ([[1, 2]], "non-empty sequence of token ids"),
        ([1, -1], "-1 is not in the vocabulary"),
        ([1, 10**6], "1000000 is not in the vocabulary"),
    ],
)
def test_refused_prompts(tiny, prompt, message):
    with pytest.raises(InvalidParameterError, match=message):
        tiny.decoder.generate(prompt, GenerationParams())


def test_a_seed_repeats(tiny):
    params = GenerationParams(max_tokens=30, temperature=1.5, seed=3)
    first = list(tiny.decoder.generate(PROMPT, params))
    assert list(tiny.decoder.generate(PROMPT, params)) == first
    other = GenerationParams(max_tokens=30, temperature=1.5, seed=4)
    assert list(tiny.decoder.generate(PROMPT, other)) != first


def test_generations_at_once_do_not_mix(tiny):
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 260, size=n).tolist() for n in (1, 3, 40, 100, 17, 64, 65, 2)]
    params = GenerationParams(max_tokens=25)
    alone = [list(tiny.decoder.generate(prompt, params)) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: list(tiny.decoder.generate(p, params)), prompts))
    assert together == alone


def test_closing_ends_the_stream(tiny):
    tokens = tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=50))
    next(tokens)
    tokens.close()
    assert list(tokens) == []
    tokens.close()
    untouched = tiny.decoder.generate(PROMPT, GenerationParams())
    untouched.close()
    assert list(untouched) == []


def test_another_thread_may_close_during_a_prompt(tiny, monkeypatch):
    monkeypatch.setattr(generation, "_PREFILL_TOKENS", 1)
    started, steps = threading.Event(), []
    run = decode_onnx.Steps.run

    def slow_run(self, tokens, rows):
        steps.append(len(tokens))
        started.set()
        time.sleep(0.01)
        return run(self, tokens, rows)

    monkeypatch.setattr(decode_onnx.Steps, "run", slow_run)
    tokens = tiny.decoder.generate([7] * 150, GenerationParams())
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, tokens)
        started.wait()
        tokens.close()
        assert rest.result() == []
    assert len(steps) < 150


def test_closed_decoder(tiny_path, tiny):
    graph = tiny.decoder.session()._model_path
    decoder = OnnxDecoder(graph, threads=1)
    tokens = decoder.generate(PROMPT, GenerationParams())
    next(tokens)
    decoder.close()
    with pytest.raises(ClosedError):
        next(tokens)
    with pytest.raises(ClosedError):
        decoder.generate(PROMPT, GenerationParams())


def test_no_memory_for_the_cache(tiny, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(decode_onnx.OrtValue, "ortvalue_from_shape_and_type", refuse)
    with pytest.raises(ResourceExhaustedError, match="keys and values of 128 tokens"):
        next(tiny.decoder.generate(PROMPT, GenerationParams(max_tokens=100)))


def test_cuda_by_name_fails_loudly_without_it(tiny):
    if cuda_available():
        pytest.skip("there is a CUDA provider here")
    with pytest.raises(DeviceUnavailableError, match=r"no CUDA provider.*vecdb\[gpu\]"):
        OnnxDecoder(tiny.decoder.session()._model_path, device="cuda")


def test_not_a_graph(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(DecoderError, match=r"x\.onnx"):
        OnnxDecoder(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("stop", ("",)),
        ("stop", "end"),
    ],
)
def test_parameters_out_of_range_name_themselves(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        GenerationParams(**{name: value})
