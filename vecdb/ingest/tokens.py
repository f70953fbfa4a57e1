"""An estimate of how many tokens a text takes, where the encoder itself is on another machine."""

from __future__ import annotations

import re

_PIECE = re.compile(r"(?P<word>[A-Za-z]+)|(?P<number>[0-9]+)|[^\s]")
_WHOLE_WORD = 6
_WORD_PIECE = 4
_NUMBER_PIECE = 3
_SPECIAL_TOKENS = 2


def estimate_tokens(text: str) -> int:
    """Return about how many WordPiece tokens `text` takes, rather too many than too few.

    Words of up to six letters count one token, longer ones one more for every four letters;
    every mark and every letter outside ASCII counts one. Against MiniLM's tokenizer on Python's
    PEPs (bench/notes/answering.md) the true count is 0.90 of this on average, and 1.23 of it for
    the worst passage in a thousand: hence `vecdb.config.CHUNK_TOKENS` 200 for a limit of 256.
    """
    tokens = _SPECIAL_TOKENS
    for piece in _PIECE.finditer(text):
        length = piece.end() - piece.start()
        if piece.group("word"):
            tokens += 1 + max(0, -(-(length - _WHOLE_WORD) // _WORD_PIECE))
        elif piece.group("number"):
            tokens += -(-length // _NUMBER_PIECE)
        else:
            tokens += 1
    return tokens
