"""A directory of backups: immutable files under their digests, and a manifest for each backup.

Its files are described in ``FORMAT.md``, "A directory of backups".

A backup exists from the moment its manifest does, and that is put last. So one that is interrupted
leaves the others as they were, and files that the next one finds already copied.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vecdb.errors import (
    CorruptFileError,
    NewerFormatError,
    NotFoundError,
    ResourceExhaustedError,
    shown,
)
from vecdb.storage.base import Store
from vecdb.storage.fileref import FileRef, digest_of, file_refs
from vecdb.storage.layout import SEGMENT_FILE
from vecdb.storage.manifest import (
    Manifest,
    as_count,
    encode_manifest,
    manifest_copy,
    manifest_name,
    manifest_numbers,
    read_manifest,
)
from vecdb.storage.wal_file import first_seq_of
from vecdb.types import BackupInfo

BACKUP_VERSION = 1
COPY_BYTES = 16 << 20

_BACKUPS = "backups"
_FILES = "files"
_FILE = re.compile(r"files/[0-9a-f]{64}", re.ASCII)
_LOG_FILE = re.compile(r"wal/([0-9]{20}\.wal)", re.ASCII)

Step = Callable[[int], None]
"""Called with the bytes just copied, so that a caller can show them, or raise to stop."""


@dataclass(frozen=True, slots=True)
class CollectionBackup:
    """A collection as a backup holds it.

    Attributes
    ----------
    settings
        As they stand in the catalog.
    manifest
        The contents of the collection's manifest; the files it names are segments.
    log
        The files of its write-ahead log, each up to the last record of the backup.
    sequence
        The number of that record: the last write that is in the backup.
    points
        How many points there are after it.
    """

    settings: dict[str, Any]
    manifest: dict[str, Any]
    log: tuple[FileRef, ...]
    sequence: int
    points: int

    @property
    def files(self) -> list[FileRef]:
        """All its files, by their names in the collection's folder."""
        return [*file_refs(self.manifest), *self.log]

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the backup's manifest."""
        return {
            "settings": self.settings,
            "manifest": self.manifest,
            "log": [ref.to_json() for ref in self.log],
            "sequence": self.sequence,
            "points": self.points,
        }

    @classmethod
    def from_json(cls, entry: Any) -> CollectionBackup:
        """Read what `to_json` returned.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is not of that form, or names a file that a collection cannot have.
        """
        settings, manifest = entry["settings"], entry["manifest"]
        if not isinstance(settings, dict) or not isinstance(manifest, dict):
            raise TypeError("settings and manifest must be objects")
        log = tuple(FileRef.from_json(ref) for ref in entry["log"])
        found = cls(settings, manifest, log, as_count(entry["sequence"]), as_count(entry["points"]))
        for ref in file_refs(manifest):
            if not SEGMENT_FILE.fullmatch(ref.name):
                raise ValueError(f"a segment's file is called {ref.name!r:.200}")
        for ref in log:
            name = _LOG_FILE.fullmatch(ref.name)
            if name is None or first_seq_of(name[1]) is None:
                raise ValueError(f"a log file is called {ref.name!r:.200}")
        names = [ref.name for ref in found.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have one name")
        return found


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """The contents of a backup's manifest."""

    number: int
    taken: datetime
    collections: dict[str, CollectionBackup]
    new_files: int
    new_bytes: int

    @property
    def files(self) -> dict[str, FileRef]:
        """Its files by digest."""
        return {ref.sha256: ref for one in self.collections.values() for ref in one.files}

    @property
    def info(self) -> BackupInfo:
        """What a caller is told of it."""
        files = self.files.values()
        return BackupInfo(
            number=self.number,
            taken=self.taken,
            points={name: one.points for name, one in sorted(self.collections.items())},
            files=len(files),
            bytes=sum(ref.size for ref in files),
            new_files=self.new_files,
            new_bytes=self.new_bytes,
        )


class BackupDirectory:
    """The backups in a store that holds nothing else.

    Who adds or prunes must own the store's lock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def prepare(self) -> None:
        """Make sure that what is here can be counted on by a backup that follows.

        Raises
        ------
        CorruptFileError
            If a folder is a link: nothing is written to where that leads.
        """
        self._refuse_links([_BACKUPS, _FILES])
        # A file that a killed process left may have a name that no fsync has reached yet. Listing
        # makes names durable; without it, a backup that finds all its files here might lose one.
        self._store.list()

    def numbers(self) -> list[int]:
        """Return the numbers of the backups, ascending, damaged ones included."""
        return manifest_numbers(self._store.within(_BACKUPS))

    def read(self, number: int | None = None) -> StoredBackup:
        """Return a backup, the newest one for None.

        Raises
        ------
        NotFoundError
            If there is none of that number, or none at all.
        CorruptFileError
            If its manifest is damaged, or describes what no database can be made of. Another one
            is never taken in its place.
        NewerFormatError
            If a newer vecdb wrote it.
        """
        where, numbers = self._store.location(), self.numbers()
        if not numbers:
            raise NotFoundError(f"there are no backups in {where}")
        wanted = numbers[-1] if number is None else number
        if wanted not in numbers:
            raise NotFoundError(
                f"there is no backup {shown(wanted)} in {where}; there are {numbers[0]} "
                f"to {numbers[-1]}"
            )
        self._refuse_links(
            [f"{_BACKUPS}/{name(wanted)}" for name in (manifest_name, manifest_copy)]
        )
        return _parsed(
            read_manifest(self._store.within(_BACKUPS), wanted),
            self._store.location(f"{_BACKUPS}/{manifest_name(wanted)}"),
        )

    def infos(self) -> list[BackupInfo]:
        """Return what there is, oldest first; of a damaged one, that it is."""
        found = []
        for number in self.numbers():
            try:
                found.append(self.read(number).info)
            except (CorruptFileError, NewerFormatError) as error:
                found.append(BackupInfo(number, None, {}, 0, 0, 0, 0, damage=str(error)))
        return found

    def add(self, source: Store, ref: FileRef, step: Step) -> bool:
        """Copy a file, unless it is here; return whether it had to be copied.

        Parameters
        ----------
        source
            Where `ref` lies under its name. Of a longer file, the first ``ref.size`` bytes are
            taken.

        Raises
        ------
        CorruptFileError
            If these bytes do not have the digest of `ref`; nothing is kept.
        DiskFullError, StorageIOError
        """
        name = f"{_FILES}/{ref.sha256}"
        self._refuse_links([name])
        there = self._store.exists(name)
        if there and self._store.size(name) == ref.size:
            return False
        with self._store.create(name, overwrite=there) as writer:
            for piece in _verified(source, ref.name, ref, step):
                writer.write(piece)
        return True

    def publish(
        self, collections: Mapping[str, CollectionBackup], new: list[FileRef]
    ) -> BackupInfo:
        """Make a backup of files that are here, durably.

        Parameters
        ----------
        new
            Those that it had to copy.
        """
        number = max(self.numbers(), default=0) + 1
        taken = datetime.now(UTC).replace(microsecond=0)
        body = {
            "backup": BACKUP_VERSION,
            "taken": taken.isoformat(),
            "collections": {name: one.to_json() for name, one in collections.items()},
            "new_files": len(new),
            "new_bytes": sum(ref.size for ref in new),
        }
        data = encode_manifest(number, body)
        self._store.put(f"{_BACKUPS}/{manifest_name(number)}", data)
        with suppress(ResourceExhaustedError):  # the backup is there; its second copy can be missed
            self._store.put(f"{_BACKUPS}/{manifest_copy(number)}", data)
        return self.read(number).info

    def prune(self, keep: int) -> int:
        """Delete all backups but the newest `keep` readable ones; return how many files went.

        Files are deleted only when every backup that stays can be read, so that it is known that
        none of them needs them.

        Raises
        ------
        CorruptFileError, NewerFormatError
            If one cannot; older backups are gone by then, their files are not.
        """
        self.prepare()
        readable = [info.number for info in self.infos() if info.damage is None]
        oldest = min(readable[-keep:], default=0)
        for number in self.numbers():
            if number < oldest:
                for name in (manifest_copy(number), manifest_name(number)):
                    self._store.delete(f"{_BACKUPS}/{name}")
        needed = {digest for number in self.numbers() for digest in self.read(number).files}
        there = [file for file in self._store.list(_FILES) if _FILE.fullmatch(file)]
        doomed = [file for file in there if file.removeprefix(f"{_FILES}/") not in needed]
        for file in doomed:
            self._store.delete(file)
        return len(doomed)

    def check_files(self, backup: StoredBackup) -> None:
        """Look at every file of a backup without reading it.

        Raises
        ------
        CorruptFileError
            If one is missing, has another length, or is not a file.
        """
        self._refuse_links([f"{_FILES}/{digest}" for digest in backup.files])
        for digest, ref in backup.files.items():
            name = f"{_FILES}/{digest}"
            where = self._store.location(name)
            if not self._store.exists(name):
                raise CorruptFileError(
                    f"backup {backup.number} is damaged: {where} is missing, or not a file"
                )
            size = self._store.size(name)
            if size != ref.size:
                raise CorruptFileError(
                    f"backup {backup.number} is damaged: {where} has {size} bytes, not {ref.size}"
                )

    def verify(self, backup: StoredBackup, step: Step) -> None:
        """Read every byte of a backup.

        Raises
        ------
        CorruptFileError
            If any of them is not what was copied.
        """
        self.check_files(backup)
        for digest, ref in backup.files.items():
            for _ in _verified(self._store, f"{_FILES}/{digest}", ref, step):
                pass

    def copy_out(self, ref: FileRef, target: Store, step: Step) -> None:
        """Write a backup's file under its own name into `target`.

        Raises
        ------
        CorruptFileError
            If its bytes are not what was copied; then there is no such file in `target`.
        DiskFullError, StorageIOError, AlreadyExistsError
        """
        with target.create(ref.name) as writer:
            for piece in _verified(self._store, f"{_FILES}/{ref.sha256}", ref, step):
                writer.write(piece)

    def _refuse_links(self, names: list[str]) -> None:
        for name in names:
            if self._store.is_link(name):
                raise CorruptFileError(
                    f"{self._store.location(name)} is reached through a symbolic link: vecdb "
                    "writes none, so this backup is damaged, or was tampered with"
                )


def prefix_ref(store: Store, name: str, length: int, step: Step) -> FileRef:
    """Return a reference to the first `length` bytes of a file, which are read for it."""
    return FileRef(name, length, digest_of(store, name, length, lambda _: step(0)))


def _verified(store: Store, name: str, ref: FileRef, step: Step) -> Iterator[bytes]:
    """Yield the first ``ref.size`` bytes of a file; raises at the end if their digest differs."""
    digest = hashlib.sha256()
    copied = 0
    while copied < ref.size:
        piece = store.read(name, copied, min(COPY_BYTES, ref.size - copied))
        if not piece:
            break
        digest.update(piece)
        copied += len(piece)
        yield piece
        step(len(piece))
    if digest.hexdigest() != ref.sha256:
        raise CorruptFileError(
            f"{store.location(name)} is damaged: its first {ref.size} bytes do not have the "
            f"SHA-256 {ref.sha256}"
        )


def _parsed(manifest: Manifest, where: str) -> StoredBackup:
    body = manifest.body
    try:
        if not as_count(body["backup"]):
            raise ValueError("it is of format 0, and they count from 1")
        if body["backup"] > BACKUP_VERSION:
            raise NewerFormatError(
                f"{where} is a backup of format {body['backup']}; this vecdb reads formats up to "
                f"{BACKUP_VERSION}: restore it with the version that wrote it, or a later one"
            )
        taken = datetime.fromisoformat(body["taken"])
        if taken.tzinfo is None:
            raise ValueError("the time has no zone")
        return StoredBackup(
            manifest.number,
            taken,
            {name: CollectionBackup.from_json(one) for name, one in body["collections"].items()},
            as_count(body["new_files"]),
            as_count(body["new_bytes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"{where} does not describe a backup: {error}") from error
