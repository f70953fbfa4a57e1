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

_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_ASCII_PROBE = "<\\x41 +AGE-"  # reads otherwise in UTF-7, in UTF-16 and with Python's own escapes


def decode_text(data: bytes, declared: str | None = None) -> str:
    r"""Decode a text file: by its byte order mark, else as declared, as UTF-8 or as Windows-1252.

    It is UTF-8 when most of what is not ASCII in it is. Line ends become ``\n``, and bytes that the
    encoding leaves open U+FFFD.

    Parameters
    ----------
    data
        The file.
    declared
        The name of the encoding that the file says it has, in ASCII. One that is not known, or in
        which ASCII would read otherwise, such as UTF-16, is passed over.

    Raises
    ------
    UnreadableDocumentError
        If the file is binary: it holds NUL after decoding, or is not what its mark says.
    """
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if marked is not None:
        try:
            text = data.decode(marked)
        except UnicodeDecodeError as error:
            raise UnreadableDocumentError(
                f"it begins with the byte order mark of {marked} but is not: {error}"
            ) from None
    else:
        encoding = _known_encoding(declared) if declared else None
        text = data.decode(encoding, errors="replace") if encoding else _guessed(data)
    if "\0" in text:
        raise UnreadableDocumentError("it holds NUL bytes, so it is no text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _known_encoding(declared: str) -> str | None:
    """Return the codec for a declared encoding; None for UTF-8, which many claim wrongly, as well.

    Pages that claim a subset of a Windows code page are read as all of it, as browsers do.
    """
    try:
        name = codecs.lookup(declared).name
        reads_ascii = _ASCII_PROBE.encode().decode(name, "replace") == _ASCII_PROBE
    except (LookupError, ValueError):  # ValueError: names with NUL, codecs that decode nothing
        return None
    name = _SUPERSETS.get(name, name)
    return name if reads_ascii and name != "utf-8" else None


def _guessed(data: bytes) -> str:
    text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd")
    good = len(text) - bad - len(text.encode("ascii", "ignore"))
    return text if bad == 0 or good > bad else data.decode("cp1252", errors="replace")


def read_text(data: bytes, name: str) -> Document:
    """Read a plain text file as it is."""
    return Document(name, decode_text(data))
