"""How many tokens a text has for a model whose tokenizer is not here."""

from __future__ import annotations

import math
import re

_ALONE = re.compile(r"[^A-Za-z \x80-\U0010ffff]| (?=[0-9])")


def estimated_tokens(text: str) -> int:
    """Return more tokens than the usual tokenizers make of `text`, in nearly all cases.

    Digits, ASCII punctuation, line ends and blanks before digits count one each; ASCII letters and
    other blanks, one per three (English words take one token per four or five); other characters,
    two per three bytes of UTF-8 (a Chinese character has three, and takes one to three tokens).
    """
    return math.ceil(token_estimate(text))


def token_estimate(text: str) -> float:
    """Return the same, not rounded: what the pieces of a text add up to is about right for it."""
    alone = len(_ALONE.findall(text))
    characters = sum(character < "\x80" for character in text)
    others = len(text.encode("utf-8", "replace")) - characters
    return alone + (characters - alone + 2 * others) / 3
