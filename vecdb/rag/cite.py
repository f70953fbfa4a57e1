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

from vecdb.rag.sentences import Span, sentence_spans
from vecdb.rag.words import Word, content_words, stems
from vecdb.types import Citation, Source

_MARKER = re.compile(r"\[\s*(?:source\s*)?(\d{1,3}(?:\s*,\s*\d{1,3})*)\s*\]", re.IGNORECASE)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_WINDOW = 3
_WORTH_A_SENTENCE_MORE = 0.1
_ELSEWHERE = 0.5


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


def cite(answer: str, sources: Sequence[Source], min_support: float = 0.5) -> list[Citation]:
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
        that only the rest of the same source holds (its title, say) count half. In addition every
        number in the sentence must stand in the source.

    Returns
    -------
    list[Citation]
        In the order of the answer's text, the best source of a sentence first. A sentence that no
        source supports has none.
    """
    index = _SupportIndex(sources)
    citations: list[Citation] = []
    for start, end in sentence_spans(answer):
        sentence, named = _without_markers(answer[start:end])
        found = index.supports(content_words(sentence), min_support)
        found.sort(key=lambda s: (-s.score, s.source.number not in named, s.source.number))
        citations.extend(
            Citation(
                source=support.source.number,
                id=support.source.id,
                start=start,
                end=end,
                chunk_start=support.span[0],
                chunk_end=support.span[1],
                score=support.score,
            )
            for rank, support in enumerate(found)
            if rank == 0 or support.source.number in named
        )
    return citations


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


class _SupportIndex:
    """The sentences of the sources, with the stems that each holds."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = [
            (
                source,
                _sentences(source.text),
            )
            for source in sources
        ]
        self._sentences = sum(len(sentences) for _, sentences in self._sources)
        self._frequency = Counter(
            stem
            for _, sentences in self._sources
            for sentence in sentences
            for stem in sentence.stems
        )

    def _weight(self, stem: str) -> float:
        return math.log(1 + (self._sentences + 1) / (self._frequency[stem] + 1))

    def supports(self, words: Sequence[Word], min_support: float) -> list[_Support]:
        """Return the best stretch of every source that supports `words` well enough."""
        weights = {word.stem: self._weight(word.stem) for word in words}
        numbers = {word.stem for word in words if word.is_number}
        total = sum(weights.values())
        found = []
        for source, sentences in self._sources:
            everywhere = frozenset().union(*(sentence.stems for sentence in sentences))
            if not weights or not numbers <= everywhere:
                continue
            span, score = _best_stretch(sentences, weights, everywhere)
            if score / total >= min_support:
                found.append(_Support(source, span, min(1.0, score / total)))
        return found


def _best_stretch(
    sentences: Sequence[_Sentence],
    weights: dict[str, float],
    everywhere: frozenset[str],
) -> tuple[Span, float]:
    """Return the stretch of at most `_WINDOW` sentences of a paragraph with the most weight.

    A longer stretch has to earn each further sentence, so that the cited span stays short.
    """
    background = _ELSEWHERE * sum(w for stem, w in weights.items() if stem in everywhere)
    toll = _WORTH_A_SENTENCE_MORE * sum(weights.values())
    best_span, best_score, best_worth = (0, 0), 0.0, -math.inf
    for first in range(len(sentences)):
        held: frozenset[str] = frozenset()
        for last in range(first, min(first + _WINDOW, len(sentences))):
            if sentences[last].paragraph != sentences[first].paragraph:
                break
            held |= sentences[last].stems
            inside = sum(w for stem, w in weights.items() if stem in held)
            score = background + (1 - _ELSEWHERE) * inside
            worth = score - toll * (last - first)
            if worth > best_worth:
                best_span = (sentences[first].span[0], sentences[last].span[1])
                best_score, best_worth = score, worth
    return best_span, best_score
