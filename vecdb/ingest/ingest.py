"""Files into a collection: read, split, write, in a way that can be interrupted and repeated.

A document's chunks have the ids ``<name>#0000``, ``<name>#0001``, ... and each chunk's payload says
which version of the document it is of (``sha256`` of the file, ``split`` of how it was cut) and how
many chunks that version has. The first chunk is the document's marker:

* A document whose chunks go into one upsert is whole or absent, since a batch is applied whole.
  Chunks that only an older version had are deleted before, while the old marker still stands.
* A longer one gets its marker first, with ``partial: true`` and the greater of the old and new
  numbers of chunks, then its other chunks, and at last the marker again without ``partial``.
* One that has no text any more loses all its chunks in one delete, the marker among them.

So after an interruption every document is either at a version that its marker names in full, or its
marker shows that it has to be done again and how far its chunks may reach.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vecdb.config import BATCH_ROWS, CHUNK_OVERLAP_TOKENS, CHUNK_TOKENS
from vecdb.errors import InvalidArgumentError, InvalidParameterError, UnreadableDocumentError
from vecdb.ingest.chunks import Chunk, IngestOptions, chunk_id, split_document
from vecdb.ingest.document import NoTextError
from vecdb.ingest.files import (
    FoundFile,
    SkippedFile,
    find_files,
    folder_names,
    read_document,
)
from vecdb.ingest.prune import prune as prune_folders
from vecdb.types import Filter, Payload, PointId, Record, UpsertResult

_LOOK_UP = 128
"""How many documents' markers are looked up at once."""


class Target(Protocol):
    """What ingesting needs of a collection, embedded or behind a server."""

    def upsert(
        self, ids: Sequence[PointId], *, texts: Sequence[str], payloads: Sequence[Payload]
    ) -> UpsertResult:
        """Write points, all or none of them."""

    def get(self, ids: Sequence[PointId]) -> Sequence[Record]:
        """Return the points that exist."""

    def delete(self, ids: Sequence[PointId] | None = None, filter: Filter | None = None) -> int:
        """Delete points by their ids or by a filter."""


@dataclass(slots=True)
class IngestReport:
    """What an ingest did, by document name.

    Attributes
    ----------
    added, replaced, unchanged
        The documents that were new, had changed, and were there already.
    skipped
        Files that are no documents, with the reason.
    failed
        Documents that could not be ingested, and folders that could not be read, with the reason.
    chunks
        How many chunks were written.
    pruned
        How many chunks were deleted, of documents that are gone.
    truncated
        The ids of chunks that were over the encoder's limit after all.
    seconds
        How long it took.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    failed: list[SkippedFile] = field(default_factory=list)
    chunks: int = 0
    pruned: int = 0
    truncated: list[PointId] = field(default_factory=list)
    seconds: float = 0.0


def ingest(
    paths: Sequence[Path | str],
    target: Target,
    options: IngestOptions | None = None,
    *,
    prune: bool = False,
    progress: bool | None = None,
) -> IngestReport:
    """Write files and folders into a collection, as far as they are new or have changed.

    Documents that are there unchanged are left alone, changed ones are replaced, and no chunk of
    an older version stays, also when there is no text in the file any more. A file that cannot be
    read is reported and does not end the rest; what an earlier ingest wrote for it stays.

    A document is known by its name, that of a `FoundFile`: so a folder may be moved, and two
    folders of one name replace each other's documents of one path.

    Parameters
    ----------
    paths
        Files and folders.
    target
        A collection with an encoder.
    options
        The defaults when None.
    prune
        Also delete the documents of the given folders whose files are gone, or are skipped by now.
        Nothing is, when a part of a folder could not be read.
    progress
        Whether to draw a bar on stderr; by default when stderr is a terminal.

    Raises
    ------
    InvalidParameterError
        If a path does not exist or an option is out of range.
    VecdbError
        What the collection raises; what was written before stays, and the next ingest goes on
        from there.
    """
    from tqdm import tqdm

    options = options or IngestOptions()
    CHUNK_TOKENS.check(options.chunk_tokens)
    if CHUNK_OVERLAP_TOKENS.check(options.overlap_tokens) >= options.chunk_tokens:
        raise InvalidParameterError(
            f"overlap_tokens={options.overlap_tokens}: must be less than "
            f"chunk_tokens={options.chunk_tokens}"
        )
    BATCH_ROWS.check(options.batch_rows)
    started = time.monotonic()
    report = IngestReport()
    files = []
    for found in find_files(paths):
        if isinstance(found, FoundFile):
            files.append(found)
        else:
            (report.failed if found.unreadable else report.skipped).append(found)
    with tqdm(
        total=sum(file.size for file in files),
        desc="ingesting",
        unit="B",
        unit_scale=True,
        disable=None if progress is None else not progress,
    ) as bar:
        run = _Run(target, options, report, bar.update)
        for first in range(0, len(files), _LOOK_UP):
            run.bring_up_to_date(files[first : first + _LOOK_UP])
        run.flush()
    if prune and not any(file.unreadable for file in report.failed):
        report.pruned = prune_folders(target, folder_names(paths), [file.name for file in files])
    report.seconds = time.monotonic() - started
    return report


class _Run:
    """One ingest: holds back the chunks of whole documents until they fill a batch."""

    def __init__(
        self,
        target: Target,
        options: IngestOptions,
        report: IngestReport,
        advance: Callable[[float], object],
    ) -> None:
        self._target = target
        self._options = options
        self._report = report
        self._advance = advance
        self._waiting: list[_Waiting] = []

    def bring_up_to_date(self, files: Sequence[FoundFile]) -> None:
        """Write what is new or changed in `files`; the last batch may still wait for `flush`."""
        markers = self._markers(files)
        for file in files:
            old = markers.get(file.name)
            try:
                data = file.path.read_bytes()
                sha256 = hashlib.sha256(data).hexdigest()
                if old is not None and old.is_of(sha256, self._options.split):
                    self._report.unchanged.append(file.name)
                    self._advance(file.size)
                    continue
                chunks = split_document(
                    read_document(data, file.name), file.name, sha256, self._options
                )
            except OSError as error:
                self._fail(file, f"cannot be read: {error.strerror or error}")
            except NoTextError as error:
                self._empty(file, old, str(error))
            except UnreadableDocumentError as error:
                self._fail(file, str(error))
            else:
                self._write(_Waiting(file, chunks, old))

    def flush(self) -> None:
        """Write the documents that wait, in one batch; if it is refused, one by one."""
        waiting, self._waiting = self._waiting, []
        try:
            self._write_whole(waiting)
        except InvalidArgumentError as error:
            if len(waiting) == 1:
                self._fail(waiting[0].file, str(error))
                return
            for document in waiting:
                self._waiting = [document]
                self.flush()

    def _write_whole(self, documents: Sequence[_Waiting]) -> None:
        shrunk = [document for document in documents if document.stale_ids()]
        if shrunk:
            self._mark_partial(shrunk)
            self._target.delete([id_ for document in shrunk for id_ in document.stale_ids()])
        if documents:
            self._upsert([chunk for document in documents for chunk in document.chunks])
        for document in documents:
            self._done(document)

    def _markers(self, files: Sequence[FoundFile]) -> dict[str, _Marker]:
        found = {}
        for record in self._target.get([chunk_id(file.name, 0) for file in files]):
            marker = _Marker.of(record)
            if marker is not None:
                found[marker.name] = marker
        return found

    def _write(self, document: _Waiting) -> None:
        rows = self._options.batch_rows
        waiting = sum(len(other.chunks) for other in self._waiting)
        if waiting + len(document.chunks) > rows:
            self.flush()
        if len(document.chunks) <= rows:
            self._waiting.append(document)
            return
        try:
            self._write_in_parts(document)
        except InvalidArgumentError as error:
            self._fail(document.file, str(error))

    def _write_in_parts(self, document: _Waiting) -> None:
        marker, *others = document.chunks
        self._mark_partial([document])
        rows = self._options.batch_rows
        for first in range(0, len(others), rows):
            self._upsert(others[first : first + rows])
        stale = document.stale_ids()
        if stale:
            self._target.delete(stale)
        self._upsert([marker])
        self._done(document)

    def _mark_partial(self, documents: Sequence[_Waiting]) -> None:
        """Write of each that it is not there in full, and how far its chunks may reach.

        Until the final marker is written no version counts as there, not the old one either, should
        the file change back to it.
        """
        markers = [document.chunks[0] for document in documents]
        self._target.upsert(
            [marker.id for marker in markers],
            texts=[marker.text for marker in markers],
            payloads=[
                {**marker.payload, "chunks": document.reach(), "partial": True}
                for marker, document in zip(markers, documents, strict=True)
            ],
        )

    def _upsert(self, chunks: Sequence[Chunk]) -> None:
        result = self._target.upsert(
            [chunk.id for chunk in chunks],
            texts=[chunk.text for chunk in chunks],
            payloads=[chunk.payload for chunk in chunks],
        )
        self._report.chunks += len(chunks)
        self._report.truncated.extend(result.truncated)

    def _done(self, document: _Waiting) -> None:
        names = self._report.replaced if document.old else self._report.added
        names.append(document.file.name)
        self._advance(document.file.size)

    def _empty(self, file: FoundFile, old: _Marker | None, reason: str) -> None:
        if old is not None:
            self._target.delete(_Waiting(file, [], old).stale_ids())
            reason += ", so what was written for it before is deleted"
        self._fail(file, reason)

    def _fail(self, file: FoundFile, reason: str) -> None:
        self._report.failed.append(SkippedFile(file.name, reason))
        self._advance(file.size)


@dataclass(frozen=True, slots=True)
class _Marker:
    """What a document's first chunk in the collection says about the version that is there."""

    name: str
    sha256: str
    split: str
    chunks: int
    partial: bool

    @classmethod
    def of(cls, record: Record) -> _Marker | None:
        """Read a record's payload; None when it was not written by an ingest."""
        match record.payload:
            case {
                "path": str(name),
                "sha256": str(sha256),
                "split": str(split),
                "chunks": int(chunks),
                **others,
            }:
                return cls(name, sha256, split, chunks, bool(others.get("partial")))
        return None

    def is_of(self, sha256: str, split: str) -> bool:
        """Whether that version is there in full."""
        return (self.sha256, self.split, self.partial) == (sha256, split, False)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A document that is read and not yet written."""

    file: FoundFile
    chunks: list[Chunk]
    old: _Marker | None

    def reach(self) -> int:
        """Return how many chunks this version or the older one has."""
        return max(len(self.chunks), self.old.chunks if self.old else 0)

    def stale_ids(self) -> list[str]:
        """Return the ids that only the older version may have."""
        return [chunk_id(self.file.name, n) for n in range(len(self.chunks), self.reach())]
