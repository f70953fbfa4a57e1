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


def wrong(recall, times=1):
    """Let as many guesses be wrong, with pairs that nothing else holds."""
    for number in range(times):
        base = 10_000 + 10 * len(recall._tokens) + number
        for token in (base, base + 1, base + 2, base, base + 1):
            recall.add(token)
        recall.draft(9)
        recall.add(base + 3)


def test_a_draft_is_what_followed_last_time():
    recall = Recall([1, 2, 3, 1, 2])
    assert recall.draft(9) == [3]
    recall.add(9)
    assert recall.draft(9) == []
    assert Recall([]).draft(9) == []
    assert Recall([5]).draft(9) == []
    assert Recall([5, 5]).draft(9) == []


def test_the_more_tokens_agree_the_longer_is_the_draft():
    text = list(range(100, 120))
    assert Recall([*text, 0, *text[3:5]]).draft(9) == text[5:6]
    assert Recall([*text, 0, *text[3:6]]).draft(9) == text[6:9]
    assert Recall([*text, 0, *text[3:8]]).draft(9) == text[8:11]
    assert Recall([*text, 0, *text[3:9]]).draft(9) == text[9:16]
    assert Recall([*text, 0, *text[3:9]]).draft(2) == text[9:11]
    assert Recall([*text, 0, *text[3:9]]).draft(0) == []


def test_a_longer_match_outweighs_a_later_one():
    assert Recall([7, 1, 2, 3, 4, 8, 1, 2, 9, 7, 1, 2]).draft(9) == [3, 4, 8]


def test_the_beginning_of_the_text_is_a_match_too():
    assert Recall([1, 2, 3, 4, 1, 2]).draft(9) == [3]
    assert Recall([1, 2, 3, 4, 5, 6, 1, 2, 3]).draft(9) == [4, 5, 6]
    assert Recall([1, 2, 9, 2, 1, 2]).draft(9) == [9]  # what stands before the first is not its end


def test_no_draft_where_the_text_went_on_differently():
    assert Recall([1, 2, 3, 1, 2, 4, 1, 2]).draft(9) == []
    assert Recall([1, 2, 4, 1, 2, 4, 1, 2]).draft(9) == [4, 1, 2]


def test_a_draft_may_copy_from_itself():
    assert Recall([1, 2] * 5).draft(9) == [1, 2, 1, 2, 1, 2, 1]


def test_only_the_latest_places_are_compared():
    many = [token for number in range(40) for token in (1, 2, 100 + number)]
    assert Recall([5, *many[:3], *many, 5, 1, 2]).draft(9) == []
    assert Recall([*many, 5, *many[:3], 5, 1, 2]).draft(9) == [100, 5, 1]


def test_wrong_guesses_make_it_ask_for_longer_matches_and_right_ones_for_shorter():
    text = list(range(100, 120))
    recall = Recall(text)
    wrong(recall)
    for token in text[3:5]:
        recall.add(token)
    assert recall.draft(9) == []  # two tokens agree, three are asked for
    recall.add(text[5])  # as was thought, so two are enough again
    recall.add(0)
    for token in text[9:11]:
        recall.add(token)
    assert recall.draft(9) == text[11:12]


def test_it_never_asks_for_more_than_five():
    text = list(range(100, 120))
    recall = Recall(text)
    wrong(recall, times=9)
    recall.add(0)
    for token in text[3:7]:
        recall.add(token)
    assert recall.draft(9) == []
    recall = Recall(text)
    wrong(recall, times=9)
    for token in text[3:8]:
        recall.add(token)
    assert recall.draft(9) == text[8:11]


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


def counted_steps(decoder, monkeypatch, prompt, params):
    """Return what is generated and how many tokens each step took."""
    sizes = []
    run = Steps.run

    def counted(self, tokens, rows):
        sizes.append(len(tokens))
        return run(self, tokens, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "run", counted)
        return list(decoder.generate(prompt, params)), sizes


def test_right_guesses_save_steps(tiny, ahead, monkeypatch):
    params = GenerationParams(max_tokens=40)
    tokens, sizes = counted_steps(ahead, monkeypatch, REPEATING, params)
    steps = sizes[1:]
    guessed = sum(steps) - len(steps)
    saved = len(tokens) - 1 - len(steps)
    assert 0 < saved < guessed  # this prompt leads to right guesses and to wrong ones
    assert counted_steps(tiny.decoder, monkeypatch, REPEATING, params) == (
        tokens,
        [len(REPEATING), *[1] * 39],
    )


@pytest.mark.parametrize("right", range(8))
def test_what_of_a_draft_is_right_is_kept(tiny, ahead, monkeypatch, right):
    """The draft is the true continuation up to some token: so many tokens come of its step."""
    params = GenerationParams(max_tokens=12)
    expected = list(tiny.decoder.generate(RANDOM, params))
    draft = [*expected[1 : 1 + right], *((token + 1) % 260 for token in expected[1 + right : 8])]
    drafts = iter([draft])
    monkeypatch.setattr(Recall, "draft", lambda self, most: next(drafts, []))
    tokens, sizes = counted_steps(ahead, monkeypatch, RANDOM, params)
    assert tokens == expected
    assert sizes == [len(RANDOM), 8, *[1] * (10 - right)]
