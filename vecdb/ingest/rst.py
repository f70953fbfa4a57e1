"""The reader of reStructuredText files, through docutils.

Python's own documents are written for Sphinx, whose roles and directives plain docutils does not
know. Every role is read as its text, and the body of an unknown directive as what it is: more
reStructuredText. Nothing is registered with docutils, which other code in the process may use, and
a document can include no file.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser, states
from docutils.utils import new_document

from vecdb.errors import UnreadableDocumentError
from vecdb.ingest.document import Document, DocumentBuilder, collapsed
from vecdb.ingest.text import decode_text

_MAX_DIRECTIVE_DEPTH = 8
_MARKS = re.compile(r"[*`|_:]")
_MOST_INLINE_WORK = 10_000_000
"""Marks times characters of one run of text: docutils may look through all the rest for each mark.
At most about half a second, and many times what a paragraph has that somebody wrote."""

_UNKNOWN_DIRECTIVE = re.compile(r'Unknown directive type "')
_OPTION_LINES = re.compile(r"\A(?:[ \t]*:[\w-]+:[^\n]*\n?)+")
_TITLE_AND_TARGET = re.compile(r"(?P<title>.+?)\s*<(?P<target>[^<>]+)>\Z", re.DOTALL)
_PREFIXED_ROLES = {"pep": "PEP ", "rfc": "RFC ", "issue": "issue ", "gh": "issue "}
_TITLED_ADMONITIONS = (
    nodes.attention,
    nodes.caution,
    nodes.danger,
    nodes.error,
    nodes.hint,
    nodes.important,
    nodes.note,
    nodes.tip,
    nodes.warning,
)
_HIDDEN = (
    nodes.comment,
    nodes.substitution_definition,
    nodes.target,
    nodes.pending,
    nodes.raw,
    nodes.decoration,
    nodes.label,
)


def read_rst(data: bytes, name: str) -> Document:
    """Read a reStructuredText file, with or without a header of fields as PEPs have it.

    The title is the header's (for a PEP, with its number), or that of the first section.

    Raises
    ------
    UnreadableDocumentError
        If the file nests so deeply that docutils cannot parse it.
    """
    try:
        writer = _Writer()
        writer.write(_parse(decode_text(data)).children, level=1)
    except RecursionError:
        raise UnreadableDocumentError("it nests too deeply to be parsed") from None
    document = writer.builder.build("")
    first = document.headings[0].title if document.headings else name
    title = writer.fields.get("title") or first
    if "pep" in writer.fields and "title" in writer.fields:
        title = f"PEP {writer.fields['pep']}: {title}"
    return Document(title, document.text, document.headings)


def _read_role(
    rawsource: str, text: str, role: str, lineno: int
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Stand in for `Inliner.interpreted`: a role is its text, whatever the role."""
    return [nodes.inline(rawsource, _role_text(role, nodes.unescape(text)))], []


def _role_text(role: str, text: str) -> str:
    titled = _TITLE_AND_TARGET.match(text)
    if titled:
        return titled.group("title")
    prefix = _PREFIXED_ROLES.get(role.casefold().rpartition(":")[2], "")
    if text.startswith("~"):
        text = text.rpartition(".")[2]
    return prefix + text.lstrip("!~")


def _with_bounded_work(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Stand in for `Inliner.parse`: text that takes too long keeps its marks."""

    def parse_or_keep(text: str, *place: Any) -> Any:
        if len(text) * len(_MARKS.findall(text)) > _MOST_INLINE_WORK:
            return [nodes.Text(text)], []
        return parse(text, *place)

    return parse_or_keep


def _parse(source: str) -> nodes.document:
    settings = get_default_settings(Parser)
    settings.report_level = 5  # nothing is printed
    settings.halt_level = 6  # nothing is raised
    settings.file_insertion_enabled = False
    settings.raw_enabled = False
    settings.line_length_limit = len(source) + 1
    settings.syntax_highlight = "none"
    document = new_document("document", settings)
    inliner = states.Inliner()
    # Not a subclass: Inliner builds its patterns from vars(self.__class__) and finds none there.
    vars(inliner)["interpreted"] = _read_role
    vars(inliner)["parse"] = _with_bounded_work(inliner.parse)
    Parser(rfc2822=True, inliner=inliner).parse(source, document)
    return document


class _Writer:
    """Writes a docutils tree as plain blocks; no transform has run on it."""

    def __init__(self) -> None:
        self.builder = DocumentBuilder()
        self.fields: dict[str, str] = {}
        self._mark = ""  # of the list item whose first block comes next
        self._directive_depth = 0

    def write(self, children: Iterable[nodes.Node], level: int) -> None:
        for node in children:
            self._block(node, level)

    def _block(self, node: nodes.Node, level: int) -> None:
        match node:
            case nodes.section():
                self.write(node.children, level + 1)
            case nodes.title():
                self.builder.heading(_inline(node), max(1, level - 1))
            case nodes.literal_block() | nodes.doctest_block() | nodes.math_block():
                self.builder.verbatim(node.astext())
            case nodes.line_block():
                self.builder.verbatim("\n".join(_lines(node)))
            case nodes.bullet_list() | nodes.enumerated_list():
                self._list(node, level)
            case nodes.definition_list_item():
                self._definition(node, level)
            case nodes.field_list():
                self._field_list(node)
            case nodes.row():
                cells = [collapsed(" ".join(map(_inline, cell.children))) for cell in node.children]
                self.builder.paragraph(" | ".join(cells))
            case nodes.footnote() | nodes.citation():
                self._mark = f"[{node.children[0].astext()}] " if node.children else ""
                self.write(node.children[1:], level)
            case _ if isinstance(node, _TITLED_ADMONITIONS):
                self._mark = f"{type(node).__name__.capitalize()}: "
                self.write(node.children, level)
            case nodes.image():
                self._paragraph(str(node.get("alt", "")))
            case nodes.system_message():
                self._unknown_directive(node, level)
            case _ if isinstance(node, _HIDDEN):
                pass
            case nodes.TextElement() | nodes.Text():
                self._paragraph(_inline(node))
            case _:
                self.write(node.children, level)

    def _paragraph(self, text: str) -> None:
        if text.strip():
            self.builder.paragraph(self._mark + text)
            self._mark = ""

    def _list(self, node: nodes.Element, level: int) -> None:
        numbered = isinstance(node, nodes.enumerated_list)
        for number, item in enumerate(node.children, start=int(node.get("start", 1))):
            self._mark = f"{number}. " if numbered else "- "
            self.write(item.children, level)
        self._mark = ""

    def _definition(self, node: nodes.Element, level: int) -> None:
        terms = [_inline(child) for child in node.children if isinstance(child, nodes.term)]
        self._mark = f"{', '.join(terms)}: "
        for child in node.children:
            if isinstance(child, nodes.definition):
                self.write(child.children, level)
        self._mark = ""

    def _field_list(self, node: nodes.Element) -> None:
        lines = []
        for field in node.children:
            name, body = _inline(field.children[0]), collapsed(_inline(field.children[1]))
            self.fields.setdefault(name.casefold(), body)
            if body:
                lines.append(f"{name}: {body}")
        self.builder.verbatim("\n".join(lines))

    def _unknown_directive(self, message: nodes.system_message, level: int) -> None:
        """Read the body of a directive that docutils did not know; other messages say nothing."""
        blocks = [c for c in message.children if isinstance(c, nodes.literal_block)]
        unknown = _UNKNOWN_DIRECTIVE.search(message.astext())
        if not blocks or not unknown or self._directive_depth >= _MAX_DIRECTIVE_DEPTH:
            return
        argument, _, body = blocks[0].astext().partition("::")[2].partition("\n")
        body = _OPTION_LINES.sub("", textwrap.dedent(body.strip("\n")))
        self._directive_depth += 1
        self.write(_parse(f"{argument.strip()}\n\n{body}").children, level)
        self._directive_depth -= 1


def _inline(node: Any) -> str:
    """Return the words of running text, without the marks of its footnotes."""
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, nodes.image):
        return str(node.get("alt", ""))
    if isinstance(node, nodes.system_message):
        return ""
    if isinstance(node, nodes.citation_reference):
        return f"[{node.astext()}]"
    parts: list[str] = []
    for child in node.children:
        if not isinstance(child, nodes.footnote_reference):
            parts.append(_inline(child))
        elif parts:  # the space before a footnote's mark goes with it
            parts[-1] = parts[-1].rstrip()
    return ("" if isinstance(node, nodes.TextElement) else " ").join(parts)


def _lines(block: nodes.Element) -> Iterable[str]:
    for child in block.children:
        if isinstance(child, nodes.line_block):
            yield from ("    " + line for line in _lines(child))
        else:
            yield _inline(child)
