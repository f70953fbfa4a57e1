"""Text to token ids, with the limit of the encoder, through the tokenizers library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.config import TEXT_BYTES
from vecdb.errors import EmptyBatchError, InvalidTextError
from vecdb.registry.extras import needs_extra

with needs_extra():
    from tokenizers import Encoding, Tokenizer

TokenIds = NDArray[np.int64]
"""The ids of one text, special tokens included, shape (tokens,)."""


def check_text(text: object) -> str:
    """Return `text` if it can be encoded.

    Raises
    ------
    InvalidTextError
        If it is not a str, holds nothing but white space, is longer than the limit, or cannot
        be written as UTF-8.
    """
    if not isinstance(text, str):
        raise InvalidTextError(f"a text must be a str, not {type(text).__name__}")
    if not text or text.isspace():
        raise InvalidTextError(f"text {text!r:.80} is empty: there is nothing to encode")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"text {text!r:.80} holds a lone surrogate at {error.start}: not valid Unicode"
        ) from error
    if size > TEXT_BYTES.greatest:
        raise InvalidTextError(
            f"a text of {size} bytes is too long: at most {TEXT_BYTES.greatest}; split it"
        )
    return text


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the checked texts as a list.

    Raises
    ------
    EmptyBatchError
        If there is none.
    InvalidTextError
        As `check_text`; or when given one str, whose letters would be taken for texts.
    """
    if isinstance(texts, str):
        raise InvalidTextError(f"texts must be a sequence of str, not one str: {texts!r:.80}")
    if len(texts) == 0:
        raise EmptyBatchError("there is no text to encode")
    return [check_text(text) for text in texts]


class TextTokenizer:
    """A tokenizer.json and the encoder's limit.

    Parameters
    ----------
    path
        The tokenizer.json; the truncation and padding written in it are ignored.
    max_tokens
        The limit, special tokens included.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._room = max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[TokenIds], NDArray[np.bool_]]:
        """Return each text's ids, cut to the limit, and which were cut."""
        if len(texts) == 1:  # without waking the library's threads
            encodings = [self._tokenizer.encode(texts[0], add_special_tokens=False)]
        else:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        cut = np.array([len(encoding) > self._room for encoding in encodings], dtype=np.bool_)
        return [self._finish(encoding) for encoding in encodings], cut

    def _finish(self, encoding: Encoding) -> TokenIds:
        if len(encoding) > self._room:
            encoding.truncate(self._room)
        whole = self._tokenizer.post_process(encoding)
        return np.array(whole.ids, dtype=np.int64)

    def count(self, text: str) -> int:
        """Return the number of the text's tokens, special tokens included, without the limit."""
        return len(self._tokenizer.encode(text))

    def split(self, text: str) -> list[tuple[int, int]]:
        """Return spans of characters, in order, that each fit the limit.

        A span ends at white space where there is some in its second half, else between two
        words or signs, else (in a word that alone exceeds the limit) anywhere. White space
        at the ends of spans is in none; every other character is, also one that is no token.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoding) <= self._room:
            return [(0, len(text))]
        offsets, words = encoding.offsets, encoding.word_ids
        spans: list[tuple[int, int]] = []
        first = start = 0
        while first < len(offsets):
            end = min(first + self._room, len(offsets))
            while True:
                end = _boundary(text, offsets, words, first, end)
                following = _cut(text, offsets, end)
                span = _stripped(text, start, max(offsets[end - 1][1], following))
                # Cut inside a word, its rest may become more pieces than it was before.
                excess = self.count(text[span[0] : span[1]]) - self.max_tokens
                if excess <= 0 or end - first <= 1:
                    break
                end = max(first + 1, end - excess)
            if span[0] < span[1]:  # some tokenizers have tokens of white space
                spans.append(span)
            first, start = end, following
        return spans


def _cut(text: str, offsets: Sequence[tuple[int, int]], at: int) -> int:
    """Return where the span that begins with token `at` begins, or the end of the text.

    Between two tokens may stand what the tokenizer drops: accents, which belong to the letter
    before them, and signs without a width. They go with what is before them, but for those that no
    white space parts from what follows.
    """
    if at == len(offsets):
        return len(text)
    before, following = offsets[at - 1][1], offsets[at][0]
    spaces = [i for i in range(before, following) if text[i].isspace()]
    return spaces[-1] + 1 if spaces else following


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _boundary(
    text: str,
    offsets: Sequence[tuple[int, int]],
    words: Sequence[int | None],
    first: int,
    end: int,
) -> int:
    """Return the best place in (first, end] to end a span of tokens that begins at `first`."""
    if end == len(offsets):
        return end
    for at in range(end, first + (end - first) // 2, -1):
        if any(map(str.isspace, text[offsets[at - 1][1] : offsets[at][0]])):
            return at
    for at in range(end, first, -1):
        if words[at - 1] != words[at]:
            return at
    return end
