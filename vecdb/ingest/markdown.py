"""The reader of Markdown files (CommonMark with tables), through markdown-it-py."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from vecdb.ingest.document import Document, DocumentBuilder, collapsed
from vecdb.ingest.html import plain_text
from vecdb.ingest.text import decode_text

# Two rules of hyphens may also stand around text: front matter has a field in its first line, not
# counting comments.
_FRONT_MATTER = re.compile(
    r"""\A---[ \t]*\n(?P<fields>(?:\#[^\n]*\n)*["']?[\w.-]+["']?:(?=\s).*?)
    \n(?:---|\.\.\.)[ \t]*(?:\n|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_TITLE_FIELD = re.compile(
    r"""^title:[ \t]*
    (?: [|>][-+\d]*[ \t]*(?P<lines>(?:\n[ \t]+.*)+)  # a block: the indented lines below
      | (?P<title>.+) )$""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
_BREAK = re.compile(r"<br\b", re.IGNORECASE)


def read_markdown(data: bytes, name: str) -> Document:
    """Read a Markdown file; its title is that of the front matter, or the first heading."""
    source = decode_text(data)
    title = ""
    front = _FRONT_MATTER.match(source)
    if front:
        source = source[front.end() :]
        field = _TITLE_FIELD.search(front.group("fields"))
        if field:
            title = collapsed(field.group("lines") or field.group("title").strip("\"' "))
    writer = _Writer()
    writer.write(MarkdownIt("commonmark").enable("table").parse(source))
    document = writer.builder.build("")
    first = document.headings[0].title if document.headings else name
    return Document(title or first, document.text, document.headings)


class _Writer:
    """Writes the block tokens of a Markdown file as plain blocks."""

    def __init__(self) -> None:
        self.builder = DocumentBuilder()
        self._heading_level = 0
        self._counters: list[int | None] = []  # of the open lists; None for bullets
        self._item_mark = ""
        self._row: list[str] | None = None

    def write(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            match token.type:
                case "heading_open":
                    self._heading_level = int(token.tag[1:])
                case "heading_close":
                    self._heading_level = 0
                case "bullet_list_open":
                    self._counters.append(None)
                case "ordered_list_open":
                    start = token.attrGet("start")
                    self._counters.append(1 if start is None else int(start))
                case "bullet_list_close" | "ordered_list_close":
                    self._counters.pop()
                case "list_item_open":
                    self._open_item()
                case "tr_open":
                    self._row = []
                case "tr_close":
                    self.builder.paragraph(" | ".join(self._row or []))
                    self._row = None
                case "inline":
                    self._inline(_inline_text(token.children or []))
                case "fence" | "code_block":
                    self.builder.verbatim(token.content)
                case "html_block":
                    self.builder.paragraph(plain_text(token.content))

    def _open_item(self) -> None:
        number = self._counters[-1]
        if number is None:
            self._item_mark = "- "
        else:
            self._item_mark = f"{number}. "
            self._counters[-1] = number + 1

    def _inline(self, text: str) -> None:
        if self._heading_level:
            self.builder.heading(text, self._heading_level)
        elif self._row is not None:
            self._row.append(text)
        else:
            self.builder.paragraph(self._item_mark + text)
            self._item_mark = ""


def _is_break(token: Token) -> bool:
    return token.type == "html_inline" and _BREAK.match(token.content) is not None


def _inline_text(tokens: Sequence[Token]) -> str:
    parts = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):
            parts.append(token.content)  # the content of an image is its alternative text
        elif token.type in ("softbreak", "hardbreak") or _is_break(token):
            parts.append(" ")
    return "".join(parts)
