"""What a reader makes of a file: plain text that knows where its headings are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from vecdb.errors import UnreadableDocumentError
from vecdb.rag.chunk import Heading


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text without its markup.

    Attributes
    ----------
    title
        What the file calls itself; the reader's `name` argument when it does not.
    text
        Its words, blocks separated by empty lines.
    headings
        The headings in `text`, in order.
    """

    title: str
    text: str
    headings: tuple[Heading, ...] = ()


class NoTextError(UnreadableDocumentError):
    """A file that can be read and in which there is no text."""


Reader: TypeAlias = Callable[[bytes, str], Document]
"""Turns a file's bytes and its name into a document, or raises `UnreadableDocumentError`."""

_LONGEST_HEADING = 1_000
"""Characters."""

_SPACE = re.compile(r"\s+")
_NOT_TEXT = re.compile(
    "[\0\ud800-\udfff]"
)  # damaged PDFs and HTML yield them; each is one character


@dataclass(slots=True)
class DocumentBuilder:
    """Collects the blocks of a document in reading order."""

    _blocks: list[str] = field(default_factory=list)
    _headings: list[Heading] = field(default_factory=list)
    _length: int = 0

    def heading(self, title: str, level: int) -> None:
        """Add a heading; white space in it is collapsed, and an empty one is left out.

        One that no reader would take for a heading is running text: as a heading, each chunk
        below would repeat it, and none would hold it.
        """
        title = collapsed(title)
        if len(title) > _LONGEST_HEADING:
            self.paragraph(title)
        elif title:
            start = self._add(title)
            shown = _NOT_TEXT.sub("\ufffd", title)
            self._headings.append(Heading(start, start + len(title), level, shown))

    def mark(self, title: str, level: int) -> None:
        """Begin a section that has a name but no heading in the text, such as a page."""
        self._headings.append(Heading(self._length, self._length, level, title))

    def paragraph(self, text: str) -> None:
        """Add running text; white space in it is collapsed."""
        self.verbatim(collapsed(text))

    def verbatim(self, text: str) -> None:
        """Add text whose lines matter; empty text is left out."""
        if text.strip():
            self._add(text.strip("\n").rstrip())

    def build(self, title: str) -> Document:
        """Return the document; its headings end where their section's text begins."""
        text = _NOT_TEXT.sub("\ufffd", "".join(self._blocks))
        return Document(_NOT_TEXT.sub("\ufffd", collapsed(title)), text, tuple(self._headings))

    def _add(self, block: str) -> int:
        start = self._length
        self._blocks.append(block + "\n\n")
        self._length += len(block) + 2
        return start


def collapsed(text: str) -> str:
    """Return `text` on one line, every run of white space a single space."""
    return _SPACE.sub(" ", text).strip()
