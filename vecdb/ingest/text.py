"""Bytes to text, and the reader of plain text files."""

from __future__ import annotations

import codecs

from vecdb.errors import UnreadableDocumentError
from vecdb.ingest.document import Document

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    r"""Decode a text file: by its byte order mark, else as UTF-8, else as Windows-1252.

    Line ends become ``\n``. The bytes that Windows-1252 leaves open become U+FFFD.

    Raises
    ------
    UnreadableDocumentError
        If the file is binary: it holds NUL after decoding, or is not what its mark says.
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise UnreadableDocumentError(
                f"it begins with the byte order mark of {encoding} but is not: {error}"
            ) from None
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UnreadableDocumentError("it holds NUL bytes, so it is no text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(data: bytes, name: str) -> Document:
    """Read a plain text file as it is."""
    return Document(name, decode_text(data))
