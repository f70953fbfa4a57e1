"""Documents as the tests of their readers look at them."""

from __future__ import annotations

import textwrap

from vecdb.ingest import read_document
from vecdb.ingest.document import Document


def read(name: str, text: str) -> Document:
    return read_document(textwrap.dedent(text).lstrip("\n").encode(), name)


def outline(document: Document) -> list[tuple[int, str]]:
    for h in document.headings:
        assert document.text[h.start : h.end] in (h.title, "")
    return [(h.level, h.title) for h in document.headings]


def blocks(document: Document) -> list[str]:
    return document.text.strip().split("\n\n")
