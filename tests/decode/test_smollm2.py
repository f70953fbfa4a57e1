"""The real model against the numpy reference."""

from __future__ import annotations

import json

import pytest

from tests.decode.make_golden import GOLDEN, QUESTIONS
from tests.decode.reference import ReferenceDecoder
from vecdb.decode import GenerationParams, load_chat_model

GENERATIONS = json.loads(GOLDEN.read_text("utf-8"))["generations"]


@pytest.fixture(scope="module")
def exact(smollm2_path):
    model = load_chat_model("SmolLM2-135M-Instruct", device="cpu", activations="float32")
    yield model
    model.close()


@pytest.mark.parametrize("golden", GENERATIONS, ids=range(len(GENERATIONS)))
def test_greedy_output_is_the_reference_token_for_token(exact, golden):
    """The reference does not stop at an end token, so neither does this."""
    tokens = exact.decoder.generate(golden["prompt"], GenerationParams(max_tokens=64))
    assert list(tokens) == golden["tokens"]


def test_the_golden_file_is_what_the_reference_says(smollm2_path):
    golden = min(GENERATIONS, key=lambda one: len(one["prompt"]))
    reference = ReferenceDecoder(smollm2_path)
    assert list(reference.greedy(golden["prompt"], 4)) == golden["tokens"][:4]


def test_prompts_are_those_of_the_golden_file(smollm2):
    for golden in GENERATIONS:
        messages = [{"role": "user", "content": golden["question"]}]
        assert smollm2.tokenizer.encode_messages(messages) == golden["prompt"]


def test_it_answers(smollm2):
    question = [{"role": "user", "content": QUESTIONS[0]}]
    assert "Paris" in "".join(smollm2.stream(question, GenerationParams(max_tokens=20)))
