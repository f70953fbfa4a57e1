"""Finding the files to ingest, and reading one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vecdb.config import INGEST_FILE_BYTES, STR_ID_BYTES
from vecdb.errors import InvalidParameterError, UnreadableDocumentError, shown
from vecdb.ingest.document import Document, NoTextError, Reader

_CHUNK_NUMBER_BYTES = 12


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read.

    Attributes
    ----------
    name
        Its name among the documents: the given folder's own name and the path below it, with
        ``/``; for a file given by itself, the file's name. Ids are made from it, so it does not
        depend on where the command was started.
    path
        Where it is.
    size
        Bytes.
    """

    name: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file or folder that is not ingested, and why.

    Attributes
    ----------
    name
        As that of a `FoundFile`.
    reason
        In words.
    unreadable
        Whether it may be a document, or hold some, that could not be looked at.
    """

    name: str
    reason: str
    unreadable: bool = False


def find_files(paths: Sequence[Path | str]) -> Iterator[FoundFile | SkippedFile]:
    """Walk over files and folders in a fixed order.

    Hidden files and folders, kinds of file without a reader, and files over
    `vecdb.config.INGEST_FILE_BYTES` are skipped, as is a file whose name was met before. Below a
    folder, links to folders are not followed, nor are those to files outside of it.

    Raises
    ------
    InvalidParameterError
        If one of `paths` does not exist; before anything is yielded.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        if not root.exists():
            raise InvalidParameterError(f"path {str(root)!r}: there is no such file or folder")
    return _walk(roots)


def folder_names(paths: Sequence[Path | str]) -> list[str]:
    """Return what the names of files below those of `paths` that are folders begin with."""
    return [Path(path).resolve().name for path in paths if Path(path).is_dir()]


def suffixes() -> list[str]:
    """Return the file name endings that have a reader."""
    return [".txt", ".text", ".md", ".markdown", ".rst", ".html", ".htm", ".xhtml", ".pdf"]


def read_document(data: bytes, name: str) -> Document:
    """Read a file's bytes with the reader for its kind.

    Raises
    ------
    UnreadableDocumentError
        If it is damaged, locked or not of its kind; `NoTextError` if it has no text.
    """
    path = Path(name)
    read = _reader(path.suffix.casefold())
    try:
        document = read(data, path.stem)
    except UnreadableDocumentError:
        raise
    except Exception as error:  # the parsers are others' work, and fail on some bytes in any way
        raise UnreadableDocumentError(f"it cannot be parsed: {shown(error)}") from error
    if not document.text.strip():
        raise NoTextError("it has no text in it")
    return document


def _reader(suffix: str) -> Reader:
    # Imported one by one: a folder of text files needs no PDF library.
    match suffix:
        case ".txt" | ".text":
            from vecdb.ingest.text import read_text

            return read_text
        case ".md" | ".markdown":
            from vecdb.ingest.markdown import read_markdown

            return read_markdown
        case ".rst":
            from vecdb.ingest.rst import read_rst

            return read_rst
        case ".html" | ".htm" | ".xhtml":
            from vecdb.ingest.html import read_html

            return read_html
        case ".pdf":
            from vecdb.ingest.pdf import read_pdf

            return read_pdf
    raise UnreadableDocumentError(f"no reader for {suffix!r}: known are {', '.join(suffixes())}")


def _walk(roots: Sequence[Path]) -> Iterator[FoundFile | SkippedFile]:
    met: set[str] = set()
    for root in roots:
        for found in _below(root) if root.is_dir() else [_judge(root, root.name)]:
            if found.name in met:
                yield SkippedFile(found.name, "another file was given with the same name")
            else:
                met.add(found.name)
                yield found


def _below(root: Path) -> Iterator[FoundFile | SkippedFile]:
    """Yield the files below `root`, sorted; hidden and unreadable ones with their folder only."""
    top = root.resolve()
    unreadable: list[OSError] = []

    def name_of(path: Path) -> str:
        return "/".join([top.name, *path.relative_to(root).parts])

    def refused() -> Iterator[SkippedFile]:
        while unreadable:
            error = unreadable.pop()
            yield _unreadable(name_of(Path(error.filename)), error)

    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        yield from refused()
        folders.sort()
        for hidden in [name for name in folders if name.startswith(".")]:
            folders.remove(hidden)
            yield SkippedFile(name_of(Path(folder, hidden)), "hidden")
        for file in sorted(files):
            path = Path(folder, file)
            found = _judge(path, name_of(path))
            if isinstance(found, FoundFile) and _leads_out(path, top):
                found = SkippedFile(found.name, "a link that leads out of the folder")
            yield found
    yield from refused()


def _leads_out(path: Path, top: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(top)


def _unreadable(name: str, error: OSError) -> SkippedFile:
    return SkippedFile(name, f"cannot be read: {error.strerror}", unreadable=True)


def _judge(path: Path, name: str) -> FoundFile | SkippedFile:
    if path.name.startswith("."):
        return SkippedFile(name, "hidden")
    if path.suffix.casefold() not in suffixes():
        return SkippedFile(name, f"no reader for this kind of file ({path.suffix or 'no suffix'})")
    try:
        status = path.stat()
    except FileNotFoundError:
        return SkippedFile(name, "a link to nothing, or just deleted")
    except OSError as error:
        return _unreadable(name, error)
    if not stat.S_ISREG(status.st_mode):
        return SkippedFile(name, "not a regular file")
    if status.st_size > INGEST_FILE_BYTES.greatest:
        return SkippedFile(
            name, f"{status.st_size} bytes: the limit is {INGEST_FILE_BYTES.greatest}"
        )
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return SkippedFile(ascii(name), "its name is not Unicode text")
    if length > STR_ID_BYTES.greatest - _CHUNK_NUMBER_BYTES:
        return SkippedFile(name, f"its path has {length} bytes, too many for an id")
    return FoundFile(name, path, status.st_size)
