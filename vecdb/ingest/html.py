"""The reader of HTML files, through Beautiful Soup with Python's own parser."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, PreformattedString, Tag

from vecdb.errors import UnreadableDocumentError
from vecdb.ingest.document import Document, DocumentBuilder, collapsed
from vecdb.ingest.text import decode_text

_ENCODING_WITHIN = 2_048
"""Bytes; browsers look at the first 1,024."""

_SCRIPTS = HTMLParser.CDATA_CONTENT_ELEMENTS
_UNFINISHED = 20
"""Tags and comments without an end that a file of any length may have."""
_UNFINISHED_WORK = 20_000_000
"""Shorter files may have so many that they make the parser look at as many characters: a second."""

_NO_REFERENCE = re.compile(r"&(?=#(?!\d+(?![\da-fA-F])|[xX][\da-fA-F]))")
_VOID_TAG = re.compile(
    r"""<((?:area|br|col|hr|img|input|link|meta|param|source|wbr)\b
    (?:[^<>"'/]|/(?!>)|"[^"<>]*"|'[^'<>]*')*)>""",
    re.IGNORECASE | re.VERBOSE,
)
_DROPPED = (
    "script, style, noscript, template, svg, math, nav, aside, iframe, object, form, button, "
    "select, [hidden], [aria-hidden=true]"
)
_ITEM_NUMBER = re.compile(r"-?\d{1,9}")
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BLOCK_NAMES = """
address article blockquote body caption center dd details dialog div dl dt fieldset figcaption
figure footer header hr html li main ol p section summary table tbody td tfoot th thead tr ul
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())


def read_html(data: bytes, name: str) -> Document:
    """Read an HTML file: the main element when it has one, else the body.

    The encoding is that of the byte order mark or the meta element, else as for a text file: UTF-8,
    or Windows-1252. The title is that of the title element, or the first heading. Scripts, forms
    and navigation are left out.
    """
    beginning = data[:_ENCODING_WITHIN]
    declared = EncodingDetector.find_declared_encoding(beginning, is_html=True)
    soup = _parse(decode_text(data, declared))
    title = collapsed(soup.title.get_text()) if soup.title else ""
    for dropped in soup.select(_DROPPED):
        dropped.decompose()
    roots = soup.find_all("main")
    root = roots[0] if len(roots) == 1 else soup.body or soup
    document = _Writer().write(root)
    first = document.headings[0].title if document.headings else name
    return Document(title or first, document.text, document.headings)


def plain_text(markup: str) -> str:
    """Return the text of a fragment of HTML."""
    return collapsed(_parse(markup).get_text(" "))


class _Soup(BeautifulSoup):
    """Refuses markup that begins over and over and never ends.

    Each time Python's parser looks through all the rest before it takes such markup for text.
    """

    _unfinished = 0

    def handle_data(self, data: str) -> None:
        """Take in a piece of text or the whole of a comment; called by the parser."""
        self._unfinished += self._is_unfinished(data)
        most = max(_UNFINISHED, _UNFINISHED_WORK // len(self.markup or data))
        if self._unfinished > most:
            raise UnreadableDocumentError(f"it has over {most} tags or comments without an end")
        super().handle_data(data)

    def endData(self, containerClass: type[NavigableString] | None = None) -> None:  # noqa: N802, N803
        """Make a node of what was taken in; a class is given for a comment and its like."""
        if containerClass is not None:
            self._unfinished -= sum(map(self._is_unfinished, self.current_data))
        super().endData(containerClass)

    def _is_unfinished(self, data: str) -> bool:
        if len(data) < 2 or data[0] != "<":
            return False
        in_script = self.currentTag is not None and self.currentTag.name in _SCRIPTS
        return not in_script or data[-1] != ">"  # scripts come in pieces that end with their tags


def _parse(markup: str) -> BeautifulSoup:
    # Else Python's parser takes all that follows the second one for text, tags and all.
    markup = _NO_REFERENCE.sub("&amp;", markup)
    # Else Beautiful Soup looks through all void elements before at each end tag.
    markup = _VOID_TAG.sub(r"<\1 />", markup)
    with warnings.catch_warnings():
        # XHTML reads well enough as HTML, and a short file is not mistaken for a file name here.
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        return _Soup(markup, "html.parser")


@dataclass(slots=True)
class _Row:
    """A row of a table that is being read."""

    cells: list[str] = field(default_factory=list)
    open_cells: int = 0
    """More than one where end tags are left out: the parser puts each cell into the one before."""


class _Writer:
    """Writes an element as plain blocks; walks with a stack, since tags may nest without limit."""

    def __init__(self) -> None:
        self._builder = DocumentBuilder()
        self._inline: list[str] = []
        self._prefix = ""
        # More than one, where a cell holds a table, or a row has no end tag and so holds the next.
        self._rows: list[_Row] = []
        self._item_numbers: dict[int, int] = {}  # the next one, by the identity of its list

    def write(self, root: Tag) -> Document:
        for node, entering in _walk(root):
            if isinstance(node, Tag):
                self._tag(node, entering)
            elif entering and not isinstance(node, PreformattedString):  # comments, doctypes
                self._inline.append(str(node))
        self._end_block()
        return self._builder.build("")

    def _tag(self, tag: Tag, entering: bool) -> None:
        if tag.name == "pre":
            if entering:
                self._end_block()
            else:
                self._builder.verbatim("".join(self._inline))
                self._inline.clear()
        elif tag.name in _HEADINGS:
            if entering:
                self._end_block()
            else:
                self._builder.heading("".join(self._inline), _HEADINGS[tag.name])
                self._inline.clear()
        elif tag.name in ("td", "th") and self._rows:
            self._cell(self._rows[-1], entering)
        elif tag.name == "tr":
            self._end_block()
            if entering:
                self._rows.append(_Row())
            else:
                self._rows.pop()
        elif tag.name == "br":
            self._inline.append(" ")
        elif tag.name == "img" and entering:
            self._inline.append(str(tag.get("alt") or ""))
        elif tag.name in _BLOCKS:
            self._block(tag, entering)

    def _cell(self, row: _Row, entering: bool) -> None:
        text = collapsed("".join(self._inline))
        self._inline.clear()
        if text or not entering:  # a cell without an end tag ends where the next begins
            row.cells.append(text)
        row.open_cells += 1 if entering else -1

    def _block(self, tag: Tag, entering: bool) -> None:
        if self._rows and self._rows[-1].open_cells:  # a paragraph inside a cell stays in its row
            self._inline.append(" ")
            return
        self._end_block()
        if tag.name == "li":
            self._prefix = self._item_mark(tag) if entering else ""

    def _item_mark(self, item: Tag) -> str:
        parent = item.parent
        if parent is None or parent.name != "ol":
            return "- "
        if id(parent) not in self._item_numbers:
            start = str(parent.get("start") or "1")
            self._item_numbers[id(parent)] = int(start) if _ITEM_NUMBER.fullmatch(start) else 1
        number = self._item_numbers[id(parent)]
        self._item_numbers[id(parent)] = number + 1
        return f"{number}. "

    def _end_block(self) -> None:
        text = collapsed("".join(self._inline))
        self._inline.clear()
        if self._rows:  # what is there of the row stands before whatever ends the block
            cells = self._rows[-1].cells
            text = " | ".join([*cells, text]).rstrip(" |")
            cells.clear()
        if text:
            self._builder.paragraph(self._prefix + text)
            self._prefix = ""


def _walk(root: Tag) -> Iterator[tuple[Tag | NavigableString, bool]]:
    """Yield every node under `root` on entering it (true) and every tag on leaving it (false)."""
    stack: list[tuple[object, bool]] = [(root, True)]
    while stack:
        node, entering = stack.pop()
        if isinstance(node, Tag):
            yield node, entering
            if entering:
                stack.append((node, False))
                stack.extend((child, True) for child in reversed(node.contents))
        elif isinstance(node, NavigableString):
            yield node, True
