"""Token ids, the limit, and spans that fit it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encode import tiny
from vecdb.encode.tokenizer import TextTokenizer, check_text, check_texts
from vecdb.errors import EmptyBatchError, InvalidTextError

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny.write_tokenizer(path)
    return TextTokenizer(path, max_tokens=8)


def ids(*words: str) -> list[int]:
    return [tiny.VOCABULARY.index(word) for word in words]


def test_special_tokens_and_truncation(tokenizer: TextTokenizer) -> None:
    texts = ["The cat", "the cat sat on a mat", "the cat sat on a mat .", "unbelievable"]
    for batch in (texts, [texts[0]]):  # several go through the library's threads, one does not
        sequences, cut = tokenizer.tokenize(batch)
        assert sequences[0].tolist() == [CLS, *ids("the", "cat"), SEP]
    sequences, cut = tokenizer.tokenize(texts)
    assert cut.tolist() == [False, False, True, False]
    whole = [CLS, *ids("the", "cat", "sat", "on", "a", "mat"), SEP]
    assert sequences[1].tolist() == sequences[2].tolist() == whole
    assert tokenizer.count(texts[2]) == 9


def test_spans_end_between_words(tokenizer: TextTokenizer) -> None:
    text = "the cat sat on a unbelievable mat"
    spans = tokenizer.split(text)
    assert [text[a:b] for a, b in spans] == ["the cat sat on a", "unbelievable mat"]
    assert tokenizer.split("the cat") == [(0, 7)]


def test_a_word_longer_than_the_limit_is_cut(tokenizer: TextTokenizer) -> None:
    text = "un" + "believable" * 8
    spans = tokenizer.split(text)
    assert len(spans) > 1
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(tokenizer.count(text[a:b]) <= 8 for a, b in spans)


words = st.sampled_from(["the", "cat", "unbelievable", "Ünbelievable", ".", "日本語", "qqq", "😀"])
pieces = st.lists(st.one_of(words, st.text(max_size=5)), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(pieces=pieces, glue=st.sampled_from([" ", "", "\n", "\u200b"]))
def test_spans_fit_and_lose_nothing_but_white_space(
    tokenizer: TextTokenizer, pieces: list[str], glue: str
) -> None:
    text = glue.join(pieces)
    spans = tokenizer.split(text)
    assert all(start < end or len(spans) == 1 for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert all(tokenizer.count(text[start:end]) <= 8 for start, end in spans)
    between = [text[a[1] : b[0]] for a, b in pairwise([(0, 0), *spans, (len(text), len(text))])]
    assert all(not gap or gap.isspace() for gap in between)


def test_what_is_no_token_goes_with_the_word_that_it_stands_at(tokenizer: TextTokenizer) -> None:
    line = "\u200bthe cat\u0301 sat\u200b on a mat\u0301\u0301"
    text = (line + " ") * 3
    assert [text[a:b] for a, b in tokenizer.split(text)] == [line] * 3
    # A mark between two letters is no place to end a span where there is a space.
    marked = "the cat sat on un\u0301believ\u0301able\u0301"
    spans = tokenizer.split(marked)
    assert [marked[a:b] for a, b in spans] == marked.rsplit(" ", 1)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", None, 7, b"bytes", "\ud800", "x" * (1 << 20) + "y"]
)
def test_texts_that_cannot_be_encoded(text: object) -> None:
    with pytest.raises(InvalidTextError):
        check_text(text)


def test_batches_that_cannot_be_encoded() -> None:
    with pytest.raises(EmptyBatchError):
        check_texts([])
    with pytest.raises(InvalidTextError, match="sequence of str, not one str"):
        check_texts("text")
    with pytest.raises(InvalidTextError):
        check_texts(["fine", ""])
