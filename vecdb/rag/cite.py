"""Citations: which stretch of which source each sentence of an answer rests on.

A small model seldom writes ``[n]`` after a sentence, and what it writes need not be true. So the
sentences are attributed by support: a sentence is cited to the source whose best stretch of one to
three sentences of a paragraph holds the greatest share of its content words, each word weighted
by how rare it is among the sources' sentences. A marker written by the model only breaks ties and
adds a second source; it is never taken without support.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vecdb.rag.sentences import Span, sentence_spans
from vecdb.rag.words import Word, content_words, stems
from vecdb.types import Citation, Source

_MARKER = re.compile(r"\[\s*(?:source\s*)?(\d{1,3}(?:\s*,\s*\d{1,3})*)\s*\]", re.IGNORECASE)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_CLAUSE_END = re.compile(r"[,;:](?=\s)|\s[-\u2013\u2014]{1,2}(?=\s)")
_LEAST_CLAUSE = 3
_CLAUSE_MARGIN = 0.1
_WINDOW = 3
_WORTH_A_SENTENCE_MORE = 0.1
_ELSEWHERE = 0.5
_ASKED = 0.5
_SHORT = 3


@dataclass(frozen=True, slots=True)
class _Sentence:
    span: Span
    stems: frozenset[str]
    paragraph: int


@dataclass(frozen=True, slots=True)
class _Support:
    source: Source
    span: Span
    score: float

    def citation(self, span: Span) -> Citation:
        """Return the citation of this support for a span of the answer."""
        return Citation(
            source=self.source.number,
            id=self.source.id,
            start=span[0],
            end=span[1],
            chunk_start=self.span[0],
            chunk_end=self.span[1],
            score=self.score,
        )


def cite(
    answer: str, sources: Sequence[Source], min_support: float = 0.5, question: str = ""
) -> list[Citation]:
    """Attribute the sentences of `answer` to `sources`.

    Parameters
    ----------
    answer
        The text that a model wrote.
    sources
        What it had before it.
    min_support
        The least score, from 0 to 1, at which a source is said to support a sentence: the
        weighted share of the sentence's content words that the cited stretch holds, where words
        that only the rest of the same source holds count half. Every number must be in the
        stretch itself or the source's first line.
    question
        What was asked. Its words count half, since an answer may repeat them without knowing
        anything; the words that the answer adds have to reach `min_support` by themselves. A
        sentence of one or two words of its own ("The answer is 4.") is read as being about them.

    Returns
    -------
    list[Citation]
        In the order of the answer's text, the best source of a sentence first. When no source
        supports a sentence, those of its clauses that one does are cited; the rest is not.
    """
    index = _SupportIndex(sources, stems(content_words(question)), min_support)
    return [
        citation
        for span in sentence_spans(answer)
        for citation in _of_sentence(answer, span, index) or _of_clauses(answer, span, index)
    ]


def _of_sentence(answer: str, span: Span, index: _SupportIndex) -> list[Citation]:
    """Cite a whole sentence: its best source, and any other that it names and that supports it."""
    sentence, named = _without_markers(answer[slice(*span)])
    found = index.supports(content_words(sentence))
    found.sort(key=lambda s: (-s.score, s.source.number not in named, s.source.number))
    return [
        support.citation(span)
        for rank, support in enumerate(found)
        if rank == 0 or support.source.number in named
    ]


def _of_clauses(answer: str, span: Span, index: _SupportIndex) -> list[Citation]:
    """Cite what is supported of a sentence that is not as a whole: runs of its clauses.

    A model often goes on from what it read to what it makes up in one sentence.
    """
    ends = [span[0] + found.end() for found in _CLAUSE_END.finditer(answer[slice(*span)])]
    citations: list[Citation] = []
    for start, end in pairwise([span[0], *ends, span[1]]):
        clause = _stripped(answer, start, end)
        best = _best(answer, clause, index)
        if best is None:
            continue
        if citations and citations[-1].source == best.source and citations[-1].end == start:
            joined = _best(answer, (citations[-1].start, best.end), index)
            if joined is not None and joined.source == best.source:
                citations[-1] = joined
                continue
        citations.append(best)
    return citations


def _best(answer: str, span: Span, index: _SupportIndex) -> Citation | None:
    # A clause has few words, which meet by chance more easily than a sentence's.
    words = content_words(_without_markers(answer[slice(*span)])[0])
    enough = len(stems(words)) >= _LEAST_CLAUSE and index.adds(words)
    found = index.supports(words, _CLAUSE_MARGIN) if enough else []
    best = max(found, key=lambda s: (s.score, -s.source.number), default=None)
    return None if best is None else best.citation(span)


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _without_markers(sentence: str) -> tuple[str, frozenset[int]]:
    """Return `sentence` with its markers blanked out, and the numbers that they name."""
    named = frozenset(
        int(number)
        for found in _MARKER.finditer(sentence)
        for number in re.findall(r"\d+", found.group(1))
    )
    return _MARKER.sub(" ", sentence), named


def _sentences(text: str) -> list[_Sentence]:
    sentences: list[_Sentence] = []
    paragraph, previous_end = 0, 0
    for start, end in sentence_spans(text):
        paragraph += _PARAGRAPH_END.search(text, previous_end, start) is not None
        sentences.append(_Sentence((start, end), stems(content_words(text[start:end])), paragraph))
        previous_end = end
    return sentences


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a sentence says, as weighted stems.

    Attributes
    ----------
    weights
        Every stem, with its weight.
    added
        The stems that the question did not have.
    numbers
        The numbers among `added`.
    """

    weights: dict[str, float]
    added: frozenset[str]
    numbers: frozenset[str]

    def share(self, held: frozenset[str], everywhere: frozenset[str]) -> float:
        """Return how much of the claim a stretch holds, what the source has elsewhere at half."""
        return self._share(frozenset(self.weights), held, everywhere)

    def added_share(self, held: frozenset[str], everywhere: frozenset[str]) -> float:
        """Return the same of what the claim adds to the question; 1 when it adds nothing."""
        return self._share(self.added, held, everywhere) if self.added else 1.0

    def _share(
        self, claimed: frozenset[str], held: frozenset[str], everywhere: frozenset[str]
    ) -> float:
        total = sum(self.weights[stem] for stem in claimed)
        inside = sum(self.weights[stem] for stem in claimed & held)
        elsewhere = sum(self.weights[stem] for stem in (claimed & everywhere) - held)
        return min(1.0, (inside + _ELSEWHERE * elsewhere) / total)


class _SupportIndex:
    """The sentences of the sources, with the stems that each holds."""

    def __init__(
        self, sources: Sequence[Source], asked: frozenset[str], min_support: float
    ) -> None:
        self._asked = asked
        self._min_support = min_support
        self._sources = [(source, _sentences(source.text)) for source in sources]
        self._sentences = sum(len(sentences) for _, sentences in self._sources)
        self._frequency = Counter(
            stem
            for _, sentences in self._sources
            for sentence in sentences
            for stem in sentence.stems
        )

    def adds(self, words: Sequence[Word]) -> bool:
        """Whether there is a word that the question did not have."""
        return not stems(words) <= self._asked

    def supports(self, words: Sequence[Word], margin: float = 0.0) -> list[_Support]:
        """Return the best stretch of every source that supports `words` well enough."""
        least = min(1.0, self._min_support + margin)
        claim = self._claim(words)
        if not claim.weights:
            return []
        found = []
        for source, sentences in self._sources:
            support = _best_stretch(source, sentences, claim, least)
            if support is not None:
                found.append(support)
        return found

    def _claim(self, words: Sequence[Word]) -> _Claim:
        said, asked = stems(words), self._asked
        added = said - asked
        if added and len(said) < _SHORT:
            said |= asked
        return _Claim(
            weights={s: self._rarity(s) * (_ASKED if s in asked else 1.0) for s in said},
            added=added,
            numbers=frozenset(word.stem for word in words if word.is_number) - asked,
        )

    def _rarity(self, stem: str) -> float:
        return math.log(1 + (self._sentences + 1) / (self._frequency[stem] + 1))


def _after_context(source: Source, sentences: Sequence[_Sentence]) -> int:
    """Return the first sentence after the line of context that ingest begins a chunk with.

    What a heading is about supports nothing by itself; its words count as the source's others do.
    """
    title = (source.payload or {}).get("title")
    if not isinstance(title, str) or not source.text.startswith(title):
        return 0
    return next((n for n, sentence in enumerate(sentences) if sentence.paragraph), 0)


def _best_stretch(
    source: Source, sentences: Sequence[_Sentence], claim: _Claim, min_support: float
) -> _Support | None:
    """Return the stretch of at most `_WINDOW` sentences of a paragraph that supports best.

    A longer stretch has to earn each further sentence, so that the cited span stays short.
    """
    everywhere = frozenset().union(*(sentence.stems for sentence in sentences))
    best, best_worth = None, -math.inf
    for first in range(_after_context(source, sentences), len(sentences)):
        held: frozenset[str] = frozenset()
        for last in range(first, min(first + _WINDOW, len(sentences))):
            if sentences[last].paragraph != sentences[first].paragraph:
                break
            held |= sentences[last].stems
            score = claim.share(held, everywhere)
            worth = score - _WORTH_A_SENTENCE_MORE * (last - first)
            if (
                worth > best_worth
                and score >= min_support
                and claim.added_share(held, everywhere) >= min_support
                and claim.numbers <= held | sentences[0].stems
            ):
                span = (sentences[first].span[0], sentences[last].span[1])
                best, best_worth = _Support(source, span, score), worth
    return best
