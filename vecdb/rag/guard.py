"""Ends an answer that a small model would otherwise repeat, or turn into a play of both parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from vecdb.rag.sentences import sentence_spans

_LEAST_REPETITION = 20
"""Characters; a shorter sentence ("Yes.") may well come twice."""

_PROMPTS_OWN = ("question:", "<source", "</source")
"""What begins the user's part of the prompt; a model that writes it goes on with the prompt."""


class AnswerGuard:
    """Passes on what a model writes, up to the first sentence that it wrote before.

    What could be the beginning of a repetition is held back until it differs, so that nothing is
    shown that then has to be taken back; everything else passes at once, except white space,
    which waits for what comes after it.
    """

    def __init__(self) -> None:
        self.ended = False
        """Whether the model repeated itself; what it writes from there on is not passed on."""
        self._written = ""
        self._shown = 0  # up to where `_written` was passed on
        self._sentence_start = 0
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """What has been passed on."""
        return self._written[: self._shown]

    def passed(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield what may be shown of `pieces`; stops taking them when the answer has ended."""
        for piece in pieces:
            self._written += piece if self._written else piece.lstrip()
            yield from self._show(self._safe_end())
            if self.ended:
                return
        if not self._is_repetition(self._current()):
            yield from self._show(len(self._written))

    def _safe_end(self) -> int:
        """Return up to where `_written` may be shown, noting the sentences that are complete."""
        base = self._sentence_start
        spans = sentence_spans(self._written[base:])
        for (start, end), (following, _) in pairwise(spans):
            sentence = _normalised(self._written[base + start : base + end])
            if self._ends_answer(sentence):
                self.ended = True
                return base + start
            self._said.append(sentence)
            self._sentence_start = base + following
        current = self._current()
        self.ended = self._ends_answer(current) and (
            current.startswith(_PROMPTS_OWN) or current.endswith((".", "!", "?"))
        )
        if self.ended or self._is_repetition(current) or self._may_be_prompt(current):
            return self._sentence_start
        return len(self._written)

    def _current(self) -> str:
        return _normalised(self._written[self._sentence_start :])

    def _ends_answer(self, sentence: str) -> bool:
        if sentence.startswith(_PROMPTS_OWN):
            return bool(self._said)
        return len(sentence) >= _LEAST_REPETITION and sentence in self._said

    def _may_be_prompt(self, beginning: str) -> bool:
        return bool(self._said) and any(own.startswith(beginning) for own in _PROMPTS_OWN)

    def _is_repetition(self, beginning: str) -> bool:
        """Whether `beginning` could become, or was cut off in, a sentence said before."""
        return bool(beginning) and any(
            len(said) >= _LEAST_REPETITION and said.startswith(beginning) for said in self._said
        )

    def _show(self, end: int) -> Iterator[str]:
        end = len(self._written[:end].rstrip())
        if end > self._shown:
            start, self._shown = self._shown, end
            yield self._written[start:end]


def _normalised(sentence: str) -> str:
    return " ".join(sentence.casefold().split())
