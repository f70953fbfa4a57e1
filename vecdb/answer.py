"""An answer as it is written: what `ask` returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vecdb.errors import FailedPreconditionError
from vecdb.types import AnswerEnd, Citation, FinishReason, Source


class AnswerStream(Protocol):
    """Yields pieces of text, then exactly one `AnswerEnd`; `close` stops the generation."""

    def __iter__(self) -> Iterator[str | AnswerEnd]: ...
    def __next__(self) -> str | AnswerEnd: ...
    def close(self) -> None:
        """Stop the generation; any thread may call it, also while another waits for a piece."""


class Answer:
    """An answer being written: iterate for its text, then read the rest.

    `text`, `citations`, `sources` and `finish_reason` finish the iteration when it has not ended;
    of an answer that failed, they raise its error again. Any thread may cancel it.
    """

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream
        self._pieces: list[str] = []
        self._end: AnswerEnd | None = None
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces of text that were not yielded before, as they are generated."""
        while (event := self._next_event()) is not None:
            yield event

    def cancel(self) -> None:
        """Stop the generation; what was generated so far stays readable."""
        if self._end is None:
            # Before the stream is closed: whoever waits for it sees why it ended.
            self._end = AnswerEnd([], [], FinishReason.CANCELLED, 0, len(self._pieces))
            self._stream.close()

    def _next_event(self) -> str | None:
        """Return the next piece of text; None at the end."""
        if self._has_ended():
            return None
        if self._failure is not None:
            raise self._failure
        try:
            event = next(self._stream, None)
        except Exception as error:
            if self._has_ended():  # a stream may fail when it is closed
                return None
            self._failure = error
            raise
        if self._has_ended():
            return None
        if event is None:
            raise FailedPreconditionError("the answer broke off before its end: ask again")
        if isinstance(event, AnswerEnd):
            self._end = event
            return None
        self._pieces.append(event)
        return event

    def _has_ended(self) -> bool:
        return self._end is not None

    def _finished(self) -> AnswerEnd:
        while self._end is None:
            self._next_event()
        return self._end

    @property
    def text(self) -> str:
        """The whole answer."""
        self._finished()
        return "".join(self._pieces)

    @property
    def citations(self) -> list[Citation]:
        """What the answer rests on, in the order of its text."""
        return self._finished().citations

    @property
    def sources(self) -> list[Source]:
        """The passages that were put before the decoder."""
        return self._finished().sources

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended."""
        return self._finished().finish_reason

    @property
    def end(self) -> AnswerEnd:
        """Everything known at the end of the answer, token counts included."""
        return self._finished()
