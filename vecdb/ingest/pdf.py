"""The reader of PDF files, through pypdf; each page is a section, so that citations name it."""

from __future__ import annotations

import io
import logging
import re
import zlib

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

from vecdb.errors import UnreadableDocumentError
from vecdb.ingest.document import Document, DocumentBuilder, NoTextError

_CUT_WORD = re.compile(r"(?<=[^\W\d_])-\n(?=[a-z])")

# A damaged PDF can surface as any of these from inside pypdf, which trusts the objects it reads.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    PyPdfError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)


_QUIET = logging.NullHandler()


def read_pdf(data: bytes, name: str) -> Document:
    """Read the text of a PDF file; its title is that of its metadata.

    Raises
    ------
    UnreadableDocumentError
        If the file is damaged or needs a password; `NoTextError` if no page has text (a scan).
    """
    # pypdf's remarks on what it puts right name no file; Python would print them on stderr.
    logging.getLogger("pypdf").addHandler(_QUIET)
    builder = DocumentBuilder()
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocumentError("it needs a password")
        title = (reader.metadata.title if reader.metadata else None) or ""
        for number, page in enumerate(reader.pages, start=1):
            text = _CUT_WORD.sub("", page.extract_text())
            if text.strip():
                builder.mark(f"page {number}", 1)
                builder.verbatim(text)
    except UnreadableDocumentError:
        raise
    except DependencyError as error:
        raise UnreadableDocumentError(f"its encryption needs another package: {error}") from error
    except _DAMAGE as error:
        raise UnreadableDocumentError(f"it is damaged: {error!r}") from error
    document = builder.build(title.strip() or name)
    if not document.headings:
        raise NoTextError(
            "it has no text in it (is it a scan? run it through text recognition first)"
        )
    return document
