"""Where sentences begin and end, in prose and in what a model writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
"""First character and the one after the last."""

_BLOCK_END = re.compile(
    r"\n[ \t]*\n\s*"  # an empty line
    r"|\n(?=[ \t]*(?:[-*\u2022+]|\d{1,3}[.)])[ \t])"  # the next line is an item of a list
)
# The end of a sentence: its mark, closing quotes or brackets, then citation markers, then space.
# A mark begins where no mark is before it: what follows a run of marks is the same from each of
# them, and trying them all would take a time quadratic in the run.
_SENTENCE_END = re.compile(
    r"(?P<mark>(?<![.!?\u2026])[.!?\u2026]+)[\"'\u2019\u201d)\]*`]*(?:[ ]?\[\d{1,3}\])*[.]?(?=\s|$)"
    r"|[\u3002\uff01\uff1f][\u300d\u300f\uff09]*"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|al|ca|approx|fig|eq|sec|ch|vol|no|nos|pp|dr|mr|mrs|ms|"
    r"prof|st|jr|sr|inc|ltd|u\.s|u\.k|a\.k\.a))$",
    re.IGNORECASE,
)
_INK = re.compile(r"\S")
_LIST_NUMBER = re.compile(r"^\s*(?:[-*\u2022+]\s+)?\d{1,3}$")


def sentence_spans(text: str) -> list[Span]:
    """Split `text` into sentences.

    Empty lines and list items end a sentence whatever precedes them. The spans leave out the
    white space between sentences, are in order, do not overlap, and together hold every other
    character of `text`.
    """
    spans = []
    for block_start, block_end in _blocks(text):
        start = block_start
        for end in _ends(text, block_start, block_end):
            spans.append(_trimmed(text, start, end))
            start = end
    return [span for span in spans if span[0] < span[1]]


def _blocks(text: str) -> Iterator[Span]:
    start = 0
    for gap in _BLOCK_END.finditer(text):
        yield start, gap.start()
        start = gap.end()
    yield start, len(text)


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    sentence_start = start
    for found in _SENTENCE_END.finditer(text, start, end):
        if found.end() < end and not _is_end(text, sentence_start, found):
            continue
        sentence_start = found.end()
        yield found.end()
    if sentence_start < end:
        yield end


def _is_end(text: str, sentence_start: int, found: re.Match[str]) -> bool:
    if found.group("mark") != ".":
        return True
    mark = found.start()
    if mark - sentence_start <= 12 and _LIST_NUMBER.match(text[sentence_start:mark]):
        return False
    following = _INK.search(text, found.end())
    if following and following.group().islower():
        return False
    return not _ABBREVIATION.search(text[max(sentence_start, mark - 12) : mark])


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
