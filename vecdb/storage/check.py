"""Walks every file of a data directory and says, in words, what is wrong with it.

The layout it expects::

    LOCK                                  who has the directory open
    catalog/NNNNNNNNNN.json               manifests: which collections there are, and where
    c000001/manifest/NNNNNNNNNN.json      manifests: of which files a collection consists
    c000001/wal/NNNNNNNNNNNNNNNNNNNN.wal  writes that are in no segment yet
    c000001/segments/...                  what the manifest names
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vecdb.errors import (
    CorruptFileError,
    NewerFormatError,
    StorageIOError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.storage.base import Store
from vecdb.storage.fileref import FileRef
from vecdb.storage.manifest import (
    Manifest,
    ManifestLog,
    manifest_copy,
    manifest_name,
    manifest_numbers,
    read_manifest_file,
)
from vecdb.storage.operations import decode_operation
from vecdb.storage.sections import open_sections
from vecdb.storage.wal import wal_end, wal_files
from vecdb.storage.wal_file import (
    HEADER_BYTES,
    KIND_MARK,
    TornTail,
    WalFile,
    file_name,
    scan_last,
)

CATALOG = "catalog"
MANIFEST = "manifest"
WAL = "wal"
SEGMENTS = "segments"

_DERIVED = "index"
_FOLDER = re.compile(r"c[0-9]{6,}")
_COLLECTION_FILE = re.compile(_FOLDER.pattern + "/")
_READ_BYTES = 16 << 20
_UNREADABLE = (CorruptFileError, NewerFormatError, StoredFileNotFoundError, StorageIOError)


class Severity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    """Nothing is lost, and nothing needs doing."""
    REPAIRED = "repaired"
    DAMAGE = "damage"
    """Something that was written cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file that is worth telling."""

    severity: Severity
    file: str
    message: str


@dataclass(slots=True)
class CheckReport:
    """What `check_directory` found.

    Attributes
    ----------
    location
        The directory.
    files, bytes
        How many were read.
    findings
        In the order of the walk.
    """

    location: str
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that was written can be read."""
        return all(finding.severity is not Severity.DAMAGE for finding in self.findings)

    def __str__(self) -> str:
        """Return the report as text for a terminal."""
        lines = [f"{f.severity}: {f.message}" for f in self.findings]
        damaged = sum(f.severity is Severity.DAMAGE for f in self.findings)
        verdict = "everything that was written can be read"
        if damaged:
            verdict = f"{damaged} damaged: restore what is named above from a backup"
        lines.append(f"{self.location}: {self.files} files, {self.bytes} bytes read; {verdict}")
        return "\n".join(lines)

    def add(self, severity: Severity, file: str, message: str) -> None:
        """Append a finding."""
        self.findings.append(Finding(severity, file, message))


def check_directory(store: Store, *, repair: bool = False) -> CheckReport:
    """Read every file of a data directory, comparing all checksums and digests.

    Parameters
    ----------
    store
        The data directory; no other process may have it open.
    repair
        Also repair what can be repaired without losing an acknowledged write: cut the torn tail
        off a write-ahead log, which opening it would do as well.

    Raises
    ------
    DirectoryLockedError
        If another process has the directory open.
    """
    held = store.lock()
    try:
        report = CheckReport(store.location())
        _Check(store, report, repair=repair).run()
        return report
    finally:
        held.release()


class _Check:
    def __init__(self, store: Store, report: CheckReport, *, repair: bool) -> None:
        self._store = store
        self._report = report
        self._repair = repair

    def run(self) -> None:
        names = self._store.list()
        folders = {name.split("/", 1)[0] for name in names if _COLLECTION_FILE.match(name)}
        catalog = self._manifests(CATALOG)
        if catalog is not None:
            listed = self._listed(catalog)
        elif folders:
            self._damage(CATALOG, f"{self._store.location(CATALOG)} has no readable manifest")
            listed = dict.fromkeys(sorted(folders), "an unlisted collection")
        elif not self._report.findings:
            self._note("", "holds no database")
            return
        else:
            return
        for folder, name in listed.items():
            self._collection(folder, name)
        for folder in sorted(folders - listed.keys()):
            self._note(folder, "is in no catalog; it is deleted when the database is opened")
        for name in names:
            if name.split("/", 1)[0] not in folders | {CATALOG}:
                self._note(name, "is none of vecdb's files")

    def _listed(self, catalog: Manifest) -> dict[str, str]:
        entries = catalog.body.get("collections")
        if not isinstance(entries, dict):
            self._damage(CATALOG, f"{self._store.location(CATALOG)} does not list collections")
            return {}
        found = {}
        for name, entry in entries.items():
            folder = entry.get("dir") if isinstance(entry, dict) else None
            if isinstance(folder, str) and _FOLDER.fullmatch(folder):
                found[folder] = f"collection {name!r}"
            else:
                self._damage(CATALOG, f"the catalog does not say where collection {name!r} lies")
        return found

    def _collection(self, folder: str, name: str) -> None:
        latest = self._manifests(f"{folder}/{MANIFEST}")
        applied = 0
        named: set[str] = set()
        if latest is not None:
            applied = latest.body.get("applied_seq", 0)
            for role, ref in _roles(latest.body):
                named.add(f"{folder}/{ref.name}")
                self._referenced(folder, role, ref)
        self._wal(folder, name, applied if isinstance(applied, int) else 0)
        known = (f"{folder}/{MANIFEST}/", f"{folder}/{WAL}/")
        for file in self._store.list(folder):
            if file not in named and not file.startswith(known):
                self._note(file, "is named by no manifest; it is deleted at the next opening")

    def _manifests(self, folder: str) -> Manifest | None:
        """Read every manifest of a folder, and its copy; return the newest valid one."""
        store = self._store.within(folder)
        for number in manifest_numbers(store):
            self._both_files(store, folder, number)
        try:
            log = ManifestLog.open(store, allow_damaged_newest=True)
        except _UNREADABLE:
            return None  # each was reported above
        for name in log.heal() if self._repair else []:
            message = f"{store.location(name)} is written again from its copy; nothing lost"
            self._report.add(Severity.REPAIRED, f"{folder}/{name}", message)
        return log.latest

    def _both_files(self, store: Store, folder: str, number: int) -> None:
        """Report what is wrong with a manifest's file and its copy; one of them is enough."""
        wrong: dict[str, str] = {}
        missing = set()
        for name in (manifest_name(number), manifest_copy(number)):
            try:
                self._count(f"{folder}/{name}")
                read_manifest_file(store, number, name)
            except StoredFileNotFoundError as error:
                missing.add(name)
                wrong[name] = str(error)
            except _UNREADABLE as error:
                wrong[name] = str(error)
        if missing == wrong.keys() == {manifest_copy(number)}:
            return  # as the first vecdb wrote it, or a crash came before the copy
        for name, reason in wrong.items():
            if len(wrong) < 2:
                advice = "the other file of the two is sound; this one is written again at opening"
                self._note(f"{folder}/{name}", f"is unusable ({reason}); {advice}")
            elif name not in missing:
                self._damage(f"{folder}/{name}", reason)

    def _referenced(self, folder: str, role: str, ref: FileRef) -> None:
        file = f"{folder}/{ref.name}"
        try:
            reason = self._compare(file, ref)
        except VecdbError as error:
            reason = str(error)
        if reason is None:
            return
        if role == _DERIVED:
            advice = "it is derived and will be built again; searches are exact meanwhile"
            self._note(file, f"is unusable ({reason}); {advice}")
        else:
            self._damage(file, reason)

    def _compare(self, file: str, ref: FileRef) -> str | None:
        """Return what is wrong with a file that a manifest names, or None."""
        where = self._store.location(file)
        size = self._store.size(file)
        self._count(file)
        if size != ref.size:
            return f"{where} has {size} bytes; its manifest says {ref.size}"
        open_sections(self._store, file, kind=None)
        digest = hashlib.sha256()
        for offset in range(0, size, _READ_BYTES):
            digest.update(self._store.read(file, offset, _READ_BYTES))
        if digest.hexdigest() != ref.sha256:
            return f"{where} is not the file that its manifest names: its SHA-256 differs"
        return None

    def _wal(self, folder: str, name: str, applied: int) -> None:
        store = self._store.within(f"{folder}/{WAL}")
        firsts = wal_files(store)
        end = wal_end(store)
        settled = end is not None and end <= applied
        expected, reached = applied + 1, applied
        followings = [*firsts[1:], None] if firsts else []  # no log before the first write
        for first, following in zip(firsts, followings, strict=True):
            file = f"{folder}/{WAL}/{file_name(first)}"
            self._count(file)
            if first > expected and not settled:
                self._damage(file, f"{name}: records {expected} to {first - 1} are missing")
            try:
                reached = self._wal_file(WalFile(store, file_name(first)), file, following, applied)
            except _UNREADABLE as error:
                reached = end or 0
                if settled:
                    advice = "everything in it is in segments; it is begun anew at opening"
                    self._note(file, f"is damaged ({error}); {advice}")
                else:
                    self._damage(file, str(error))
            expected = max(expected, following or 0)
        if end is not None and reached < end and not settled:
            message = f"{name}: the log was closed after record {end} and ends with {reached}"
            self._damage(f"{folder}/{WAL}", f"{message}: it has been cut short")

    def _wal_file(self, wal: WalFile, file: str, following: int | None, applied: int) -> int:
        """Read a log file; return the number of its last valid record."""
        last, end = wal.first_seq - 1, HEADER_BYTES
        for span in wal.spans():
            if following is not None and span.seq >= following:
                break
            last, end = span.seq, span.end
            if span.kind != KIND_MARK and span.seq > applied:
                record = wal.record(span)
                decode_operation(record.kind, record.body, record.where)
        if following is None:
            torn = scan_last(wal).torn
            if torn is not None:
                self._torn(file, torn)
        elif last + 1 < following:
            raise wal.damage(end, last + 1, f"the log goes on until record {following - 1}")
        return last

    def _torn(self, file: str, torn: TornTail) -> None:
        what = f"{torn.where} ends, from offset {torn.offset} on, in {torn.length} bytes of a write"
        if not self._repair:
            advice = "it is cut off at the next opening, or by --repair"
            self._note(file, f"{what} that a crash cut short; {advice}")
            return
        ending = self._store.append(file)
        try:
            ending.truncate(torn.offset)
            ending.sync()
        finally:
            ending.close()
        message = f"{what} that a crash cut short and nobody was promised: cut off, nothing lost"
        self._report.add(Severity.REPAIRED, file, message)

    def _count(self, file: str) -> None:
        self._report.files += 1
        self._report.bytes += self._store.size(file)

    def _damage(self, file: str, message: str) -> None:
        self._report.add(Severity.DAMAGE, file, message)

    def _note(self, file: str, message: str) -> None:
        where = self._store.location(file)
        text = message if message.startswith(where) else f"{where} {message}"
        self._report.add(Severity.NOTE, file, text)


def _roles(body: Any, role: str = "") -> Iterator[tuple[str, FileRef]]:
    """Yield the file references in a manifest's body, each with the key it stands under."""
    if isinstance(body, list):
        for value in body:
            yield from _roles(value, role)
    elif isinstance(body, dict):
        if body.keys() == {"name", "size", "sha256"}:
            yield role, FileRef.from_json(body)
        else:
            for key, value in body.items():
                yield from _roles(value, key)
