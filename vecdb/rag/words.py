"""Content words: what of a sentence can be found again in the passage that supports it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Scripts written without spaces are taken character by character; a digit run keeps its decimal
# point, so that 3.11 is one number; an apostrophe keeps a word together.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"
_WORD = re.compile(
    rf"[{_UNSPACED}]|\d+(?:[.,]\d+)*|[^\W\d_{_UNSPACED}][^\W_{_UNSPACED}]*(?:['\u2019][^\W\d_]+)*"
)

_STOP_WORD_LIST = """
a about above after again all also although am an and any anything are as at be because been
before being below between both but by can cannot could did do does doing don't down during
each else etc even ever every few for from further get gets getting give given gives go goes
had has have having he her here hers him his how however i if in into is isn't it its itself
just let like made make makes making many may me might more most much must my no nor not of
off on once one only or other our out over own per please rather really same say says see she
should so some something such take taken takes tell than that the their them then there
therefore these they this those though through thus to too under until up upon us use used
uses using very via was we well were what whatever when where whether which while who whom
whose why will with within without would yet you your
according answer answers based explain described describes mention mentioned mentions passage
passages provided question questions source sources states stated text
"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())

_ENDINGS = (
    "ations", "ation", "itions", "ition", "ions", "ion",
    "ingly", "ings", "ing", "edly", "ied", "ies", "ed", "es",
)  # fmt: skip

# Not "one", which is far more often a pronoun than a number.
_NUMBERS_FROM_TWO = "two three four five six seven eight nine ten eleven twelve"
_NUMBER_WORDS = {
    word: str(number) for number, word in enumerate(_NUMBERS_FROM_TWO.split(), start=2)
}


@dataclass(frozen=True, slots=True)
class Word:
    """A content word in a text.

    Attributes
    ----------
    stem
        What it is compared by: lower case, without the commonest English endings; a number in
        digits.
    start, end
        Its span in the text, in characters.
    """

    stem: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        """Whether it is a number, which nothing but the same number can support."""
        return self.stem[0].isdigit()


def content_words(text: str) -> list[Word]:
    """Return the words of `text` that carry its content, in order, stop words left out."""
    words = []
    for found in _WORD.finditer(text):
        word = found.group().casefold().replace("\u2019", "'")
        if word in _STOP_WORDS:
            continue
        words.append(Word(_stem(_NUMBER_WORDS.get(word, word)), found.start(), found.end()))
    return words


def stems(words: Iterable[Word]) -> frozenset[str]:
    """Return the distinct stems of `words`."""
    return frozenset(word.stem for word in words)


def _stem(word: str) -> str:
    """Cut the commonest English endings, so that "indented" meets "indentation"'s "indent".

    Cruder than Porter's algorithm on purpose: both sides are cut alike, and a stem is only ever
    compared with a stem.
    """
    word = word.removesuffix("'s")
    if word[0].isdigit():
        return word.replace(",", "")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
            break
    else:
        if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
            word = word[:-1]
        elif word.endswith("ly") and len(word) > 5:
            word = word[:-2]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word
