"""Manifests: numbered immutable files, of which the newest says what a directory consists of.

A manifest appears as a whole or not at all, so a damaged one never comes from a crash: its disk
has changed bytes that were once right. To fall back to an older manifest would then silently take
back deletes, and name files that have been dropped since. Therefore `ManifestLog.open` refuses,
unless the caller asks for what is left.

Everything hangs on the newest manifest, so each is written twice, ``N.json`` and then ``N.copy``:
what the disk does to one file of the two is noticed, told and mended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from vecdb.errors import (
    CorruptFileError,
    InvalidArgumentError,
    NewerFormatError,
    ReadOnlyError,
    ResourceExhaustedError,
    StorageIOError,
    StoredFileNotFoundError,
    VecdbError,
    shown,
)
from vecdb.storage.base import Store
from vecdb.storage.crc import crc32c
from vecdb.storage.fileref import file_refs

MAGIC = "vecdb-manifest"
VERSION = 1
MANIFEST_BYTES_LIMIT = 64 << 20
_COUNT_LIMIT = 1 << 63

_NAME_DIGITS = 10
_NAME = re.compile(r"([0-9]{10})\.(?:json|copy)", re.ASCII)
_OPENING = re.compile(rb"(vecdb-manifest ([1-9][0-9]{0,8})) ([0-9a-f]{8}) ")
_FIRST_LINE = re.compile(rb"vecdb-manifest [0-9]+ [0-9a-f]{8} ([0-9]{10}) ([0-9a-f]{64})\n")
_LOST = (CorruptFileError, StoredFileNotFoundError, StorageIOError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read: its number and the JSON object in it."""

    number: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DamagedManifest:
    """A manifest that cannot be read, and why."""

    number: int
    reason: str


def manifest_name(number: int) -> str:
    """Return the file name of a manifest."""
    return f"{number:0{_NAME_DIGITS}d}.json"


def manifest_copy(number: int) -> str:
    """Return the name of a manifest's second file."""
    return f"{number:0{_NAME_DIGITS}d}.copy"


def manifest_numbers(store: Store) -> list[int]:
    """Return the numbers of the manifests in a store, ascending."""
    found = (_NAME.fullmatch(name) for name in store.list())
    return sorted({int(match[1]) for match in found if match is not None})


def encode_manifest(number: int, body: Mapping[str, Any]) -> bytes:
    """Return the contents of a manifest file.

    Raises
    ------
    InvalidArgumentError
        If `body` cannot be written as JSON, or is too long.
    """
    try:
        text = json.dumps(body, allow_nan=False, sort_keys=True, indent=1).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"a manifest must be a JSON object: {error}") from error
    if len(text) > MANIFEST_BYTES_LIMIT:
        raise InvalidArgumentError(
            f"a manifest of {len(text)} bytes; at most {MANIFEST_BYTES_LIMIT} are possible"
        )
    opening = f"{MAGIC} {VERSION}".encode()
    line = b"%s %08x %010d %s\n" % (opening, crc32c(opening), number, _digest(number, text))
    return line + text


def decode_manifest(number: int, data: bytes, *, where: str) -> Manifest:
    """Return the manifest `number` from the contents of its file.

    Raises
    ------
    CorruptFileError
        If the contents are not what was written.
    NewerFormatError
        If they were written by a newer vecdb.
    """
    opening = _OPENING.match(data)
    if opening is None or int(opening[3], 16) != crc32c(opening[1]):
        raise CorruptFileError(f"{where} is damaged at offset 0, or is not a manifest")
    if int(opening[2]) > VERSION:
        raise NewerFormatError(
            f"{where} is a manifest of format {int(opening[2])}; this vecdb reads formats up to "
            f"{VERSION}: open it with the version that wrote it, or a later one"
        )
    line = _FIRST_LINE.match(data)
    if line is None:
        raise CorruptFileError(f"{where} is damaged: its first line is not that of a manifest")
    text = data[line.end() :]
    if int(line[1]) != number or line[2] != _digest(number, text):
        raise CorruptFileError(
            f"{where} is damaged or renamed: its digest is not that of its number and contents"
        )
    try:
        body = json.loads(text)
        if not isinstance(body, dict):
            raise TypeError(f"it holds a {type(body).__name__}, not an object")
        list(file_refs(body))
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{where} does not hold a manifest: {error}") from error
    return Manifest(number, body)


def as_count(value: object) -> int:
    """Return a number of a manifest that counts something.

    Raises
    ------
    ValueError
        If it is no such number.
    """
    if type(value) is not int or not 0 <= value < _COUNT_LIMIT:
        raise ValueError(f"{shown(value)} is not a count")
    return value


def _digest(number: int, text: bytes) -> bytes:
    return hashlib.sha256(b"%010d\n" % number + text).hexdigest().encode()


def read_manifest(store: Store, number: int) -> Manifest:
    """Read one manifest of a store, as `decode_manifest` does: its file, else its copy."""
    try:
        return read_manifest_file(store, number, manifest_name(number))
    except _LOST as error:
        try:
            found = read_manifest_file(store, number, manifest_copy(number))
        except _LOST:
            raise error from None  # the copy of an old or half-finished one is simply not there
        _log.warning("%s; its copy is sound and is used", error)
        return found


def read_manifest_file(store: Store, number: int, name: str) -> Manifest:
    """Read the file `name`, one of the two that hold the manifest `number`."""
    where = store.location(name)
    size = store.size(name)
    if not store.exists(name):  # reading a FIFO would never end
        raise CorruptFileError(f"{where} is not a file")
    if size > MANIFEST_BYTES_LIMIT + 1_024:
        raise CorruptFileError(f"{where} has {size} bytes: not a manifest")
    return decode_manifest(number, store.read(name), where=where)


class ManifestLog:
    """The manifests of a store that holds nothing else, and the one way to add another.

    Attributes
    ----------
    latest
        The newest valid manifest, or None when none was ever published.
    damaged
        Damaged manifests that are newer than `latest`; empty unless `open` was told to go on.
    """

    def __init__(
        self,
        store: Store,
        numbers: list[int],
        latest: Manifest | None,
        damaged: list[DamagedManifest],
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._failed = False
        self.latest = latest
        self.damaged = damaged

    @classmethod
    def open(cls, store: Store, *, allow_damaged_newest: bool = False) -> Self:
        """Find the newest valid manifest of a store.

        Parameters
        ----------
        allow_damaged_newest
            Go on with an older manifest where newer ones are damaged, and name those in
            `damaged`. What was deleted since the older one may be there again.

        Raises
        ------
        CorruptFileError
            If the newest manifest is damaged, and with `allow_damaged_newest`, if all are.
        NewerFormatError
            If the newest readable one was written by a newer vecdb.
        """
        numbers = manifest_numbers(store)
        damaged: list[DamagedManifest] = []
        for number in reversed(numbers):
            try:
                return cls(store, numbers, read_manifest(store, number), damaged)
            except (CorruptFileError, StoredFileNotFoundError) as error:
                if not allow_damaged_newest:
                    raise CorruptFileError(_refusal(error, store, numbers)) from error
                damaged.append(DamagedManifest(number, str(error)))
        if damaged:
            raise CorruptFileError(
                f"all {len(damaged)} manifests in {store.location()} are damaged; restore a "
                f"backup. The newest: {damaged[0].reason}"
            )
        return cls(store, numbers, None, [])

    @classmethod
    def replacing(cls, store: Store) -> Self:
        """Return the log of a store whose manifests, damaged or not, are to count no more.

        They do until another is published; `prune` then deletes them.
        """
        return cls(store, manifest_numbers(store), None, [])

    def publish(self, body: Mapping[str, Any]) -> int:
        """Make `body` the newest manifest, durably, and return its number.

        Raises
        ------
        AlreadyExistsError
            If somebody else published one of the next number.
        DiskFullError
            If there is no room; the newest manifest is still the one before.
        StorageIOError
            If the disk failed: which one is the newest shows at the next opening.
        ReadOnlyError
            If it failed earlier.
        """
        if self._failed:
            raise ReadOnlyError(
                f"{self._store.location()} takes no new manifest since writing one failed; mend "
                "the disk and open the data directory again"
            )
        number = self._numbers[-1] + 1 if self._numbers else 1
        data = encode_manifest(number, body)
        try:
            self._store.put(manifest_name(number), data)
        except StorageIOError:
            self._failed = True
            raise
        self._numbers.append(number)
        # Read back from the bytes: later changes of the caller's objects must not show.
        self.latest = decode_manifest(number, data, where=self._store.location())
        self._write(manifest_copy(number), data)
        return number

    def heal(self) -> list[str]:
        """Write the newest manifest's file or copy again where one is missing or damaged.

        Returns
        -------
        list of str
            The names of the files written.

        Raises
        ------
        StorageIOError
            If that failed.
        """
        if self.latest is None or self.damaged:
            return []
        number, healed = self.latest.number, []
        for name in (manifest_name(number), manifest_copy(number)):
            try:
                if read_manifest_file(self._store, number, name) == self.latest:
                    continue
            except _LOST:
                pass
            if self._write(name, encode_manifest(number, self.latest.body)):
                healed.append(name)
        return healed

    def _write(self, name: str, data: bytes) -> bool:
        """Write a file that is there once more in another form; a full disk can wait."""
        try:
            with suppress(ResourceExhaustedError):
                self._store.put(name, data, overwrite=True)
                return True
        except StorageIOError:
            self._failed = True
            raise
        return False

    def prune(self, keep: int = 2) -> None:
        """Delete all manifests but the newest `keep`, oldest first; damaged ones stay."""
        damaged = {one.number for one in self.damaged}
        for number in [n for n in self._numbers if n not in damaged][: -max(keep, 1)]:
            self._store.delete(manifest_copy(number))  # first: a copy alone is one half of damage
            self._store.delete(manifest_name(number))
            self._numbers.remove(number)

    def reachable(self) -> set[str]:
        """Return the names of all files that some manifest still there refers to.

        Only other files may be deleted.

        Raises
        ------
        CorruptFileError
            If a manifest cannot be read, so that nothing is known to be unreachable.
        """
        names: set[str] = set()
        for number in self._numbers:
            names.update(ref.name for ref in file_refs(read_manifest(self._store, number).body))
        return names


def _refusal(error: VecdbError, store: Store, numbers: list[int]) -> str:
    older = len(numbers) - 1
    return (
        f"{error}. It is the newest manifest in {store.location()}, and it was written whole, so "
        f"the disk has changed it; {older} older {'is' if older == 1 else 'are'} there, but going "
        "back would undo later deletes: run `vecdb check`, or restore a backup"
    )
