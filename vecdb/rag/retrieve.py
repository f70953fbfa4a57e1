"""What answering needs of a search, and which of its hits are about the question at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vecdb.rag.words import content_words, stems
from vecdb.types import Filter, Hit, Metric


class Retriever(Protocol):
    """Finds the points that may answer a question."""

    @property
    def metric(self) -> Metric:
        """How `Hit.score` is to be read."""

    def retrieve(self, question: str, k: int, filter: Filter | None) -> Sequence[Hit]:
        """Return at most `k` hits, best first."""


class Searchable(Protocol):
    """A collection that is searched by text."""

    def search(self, query: str, *, k: int, filter: Filter | None) -> Sequence[Hit]:
        """Return at most `k` hits, best first."""


@dataclass(frozen=True, slots=True)
class CollectionRetriever:
    """A `Retriever` over a collection's own search."""

    collection: Searchable
    metric: Metric

    def retrieve(self, question: str, k: int, filter: Filter | None) -> Sequence[Hit]:
        """Search the collection for the question's words."""
        return self.collection.search(question, k=k, filter=filter)


@dataclass(frozen=True, slots=True)
class Relevance:
    """When a hit counts as being about the question.

    It does when its cosine similarity, plus `word_weight` times the share of the question's
    content words that its text holds, reaches `threshold`. The defaults are for all-MiniLM-L6-v2:
    on Python's PEPs they let through 87 of 90 questions that the collection answers, none of 60
    about other things, and 4 of 30 about other programming (bench/notes/answering.md).
    """

    threshold: float = 0.52
    word_weight: float = 0.15


def relevant_hits(
    question: str, hits: Sequence[Hit], metric: Metric, relevance: Relevance
) -> list[Hit]:
    """Return the hits that are about `question`, in their order; hits without text never are."""
    wanted = stems(content_words(question))
    relevant = []
    for hit in hits:
        if hit.text:
            likeness = similarity(hit.score, metric)
            likeness += relevance.word_weight * word_overlap(wanted, hit.text)
            if likeness >= relevance.threshold:
                relevant.append(hit)
    return relevant


def similarity(score: float, metric: Metric) -> float:
    """Turn a score between unit vectors into their cosine."""
    if metric is Metric.L2:
        return 1.0 - score * score / 2.0
    return score


def word_overlap(wanted: frozenset[str], text: str) -> float:
    """Return the share of the stems `wanted` that occur in `text`; 0 when none are wanted."""
    if not wanted:
        return 0.0
    return len(wanted & stems(content_words(text))) / len(wanted)
