"""Splitting a document into passages that fit an encoder, along the document's own structure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vecdb.config import CHUNK_OVERLAP_TOKENS, CHUNK_TOKENS
from vecdb.errors import InvalidParameterError
from vecdb.rag.sentences import Span, sentence_spans

CountTokens: TypeAlias = Callable[[str], int]
"""How many tokens a text takes."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a document's text.

    Attributes
    ----------
    start, end
        Its span, in characters.
    level
        1 for the outermost.
    title
        Its words.
    """

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document that is embedded as one.

    Attributes
    ----------
    start, end
        Its span in the document's text, in characters.
    headings
        The titles of the headings that it stands under, outermost first.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()


def split_passages(
    text: str,
    count_tokens: CountTokens,
    *,
    max_tokens: int | None = None,
    overlap_tokens: int | None = None,
    headings: Sequence[Heading] = (),
) -> list[Passage]:
    """Split `text` into passages of at most `max_tokens`.

    A passage never crosses a heading. Inside a section, whole paragraphs are packed together;
    only a paragraph that does not fit is cut, between sentences, then lines, then words, and at
    last inside a word.

    Parameters
    ----------
    text
        The document.
    count_tokens
        How many tokens a text takes; the limit is held by this count.
    max_tokens
        The limit; by default `vecdb.config.CHUNK_TOKENS`.
    overlap_tokens
        How much of the end of a passage the next one of the same section repeats, in whole
        sentences; by default none.
    headings
        The headings of `text`, in order, not overlapping. Their own text is in no passage.

    Returns
    -------
    list[Passage]
        In order. Every character of `text` that is neither white space nor in a heading is in
        at least one of them.

    Raises
    ------
    InvalidParameterError
        If a limit is out of range, or the overlap is not below the passage limit.
    """
    limit = CHUNK_TOKENS.check(max_tokens)
    overlap = CHUNK_OVERLAP_TOKENS.check(overlap_tokens)
    if overlap >= limit:
        raise InvalidParameterError(
            f"overlap_tokens={overlap}: must be less than max_tokens={limit}"
        )
    splitter = _Splitter(text, count_tokens, limit, overlap)
    return [
        Passage(start, end, path)
        for section, path in _sections(text, headings)
        for start, end in splitter.split(section)
    ]


def heading_paths(headings: Sequence[Heading]) -> list[tuple[str, ...]]:
    """Return, for the section under each heading, the titles that it stands under."""
    paths = []
    open_headings: list[Heading] = []
    for heading in headings:
        open_headings = [h for h in open_headings if h.level < heading.level] + [heading]
        paths.append(tuple(h.title for h in open_headings))
    return paths


def _sections(text: str, headings: Sequence[Heading]) -> Iterable[tuple[Span, tuple[str, ...]]]:
    """Return the spans between headings, each with the path of the heading before it."""
    starts = [0, *(heading.end for heading in headings)]
    ends = [*(heading.start for heading in headings), len(text)]
    return zip(zip(starts, ends, strict=True), [(), *heading_paths(headings)], strict=True)


class _Splitter:
    """Splits the sections of one text."""

    def __init__(self, text: str, count_tokens: CountTokens, limit: int, overlap: int) -> None:
        self._text = text
        self._count_tokens = count_tokens
        self._limit = limit
        self._overlap = overlap

    def split(self, section: Span) -> list[Span]:
        """Return the spans of the passages of `section`."""
        atoms = self._atoms(section, 0)
        passages: list[Span] = []
        first = 0
        while first < len(atoms):
            start = atoms[first][0]
            if passages:
                start = self._overlap_start(passages[-1], atoms[first])
            count = self._how_many_fit(start, atoms, first)
            passages.append((start, atoms[first + count - 1][1]))
            first += count
        return passages

    def _fits(self, start: int, end: int) -> bool:
        return self._count_tokens(self._text[start:end]) <= self._limit

    def _atoms(self, span: Span, cut: int) -> list[Span]:
        """Cut `span` into pieces that each fit, no finer than needed."""
        start, end = _strip(self._text, span)
        if start >= end:
            return []
        if self._fits(start, end):
            return [(start, end)]
        for next_cut in range(cut, len(_CUTS)):
            pieces = _CUTS[next_cut](self._text, start, end)
            if len(pieces) > 1:
                return [atom for piece in pieces for atom in self._atoms(piece, next_cut + 1)]
        if end - start == 1:
            return [(start, end)]
        middle = (start + end) // 2
        return [
            atom
            for piece in ((start, middle), (middle, end))
            for atom in self._atoms(piece, len(_CUTS))
        ]

    def _how_many_fit(self, start: int, atoms: list[Span], first: int) -> int:
        """Return how many atoms from `first` on fit in a passage from `start`; at least one.

        Gallops, then bisects, because a passage may hold hundreds of atoms. The last count seen
        to fit is the one returned, so that a counter that is not monotone breaks no limit.
        """
        fitting, step = 1, 1
        while first + fitting + step <= len(atoms) and self._fits(
            start, atoms[first + fitting + step - 1][1]
        ):
            fitting += step
            step *= 2
        while step > 1:
            step //= 2
            if first + fitting + step <= len(atoms) and self._fits(
                start, atoms[first + fitting + step - 1][1]
            ):
                fitting += step
        return fitting

    def _overlap_start(self, previous: Span, atom: Span) -> int:
        """Return where a passage beginning with `atom` starts, with the overlap before it."""
        if not self._overlap:
            return atom[0]
        offset, end = previous

        def repeatable(sentence: Span) -> bool:
            begin = offset + sentence[0]
            repeated = self._count_tokens(self._text[begin:end])
            return repeated <= self._overlap and self._fits(begin, atom[1])

        # Bisected, because sentences of nothing but what a tokenizer drops take no tokens: a
        # passage may have any number of them.
        sentences = sentence_spans(self._text[offset:end])
        first = bisect_left(sentences, True, lo=1, key=repeatable)
        return offset + sentences[first][0] if first < len(sentences) else atom[0]


_PARAGRAPH_GAP = re.compile(r"\n[ \t]*\n\s*")
_LINE_GAP = re.compile(r"\n")
_WORD_GAP = re.compile(r"\s+")


def _between(gap: re.Pattern[str]) -> Callable[[str, int, int], list[Span]]:
    """Return a function that cuts a span of a text at the matches of `gap`."""

    def cut(text: str, start: int, end: int) -> list[Span]:
        pieces = []
        for found in gap.finditer(text, start, end):
            pieces.append((start, found.start()))
            start = found.end()
        return [*pieces, (start, end)]

    return cut


def _sentences(text: str, start: int, end: int) -> list[Span]:
    return [(start + s, start + e) for s, e in sentence_spans(text[start:end])]


_CUTS: tuple[Callable[[str, int, int], list[Span]], ...] = (
    _between(_PARAGRAPH_GAP),
    _sentences,
    _between(_LINE_GAP),
    _between(_WORD_GAP),
)


def _strip(text: str, span: Span) -> Span:
    piece = text[span[0] : span[1]]
    return span[0] + len(piece) - len(piece.lstrip()), span[0] + len(piece.rstrip())
