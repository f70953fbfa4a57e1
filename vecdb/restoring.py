"""Making a data directory of a backup.

A restored collection gets a folder that no catalog names yet; one new catalog then puts all of
them in the place of whatever was there. Until that moment the directory is what it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vecdb.backup import ignore
from vecdb.catalog import Catalog, CatalogEntry
from vecdb.collection import Collection, CollectionSettings
from vecdb.collection.settings import check_name
from vecdb.collection.stored import StoredCollection
from vecdb.errors import (
    AlreadyExistsError,
    CorruptFileError,
    DiskFullError,
    FailedPreconditionError,
    InvalidNameError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.models import Models
from vecdb.storage import ManifestLog, PosixStore, Store
from vecdb.storage.backup import BackupDirectory, Step, StoredBackup
from vecdb.storage.layout import CATALOG, RESTORING, folder_number
from vecdb.storage.manifest import manifest_numbers
from vecdb.types import BackupInfo

_log = logging.getLogger(__name__)


def restore_backup(
    backups: str | Path,
    data: str | Path,
    *,
    number: int | None = None,
    replace: bool = False,
    step: Step = ignore,
) -> BackupInfo:
    """Make a data directory of a backup; see `restore_store`.

    Parameters
    ----------
    backups
        The directory of backups.
    data
        The data directory, which no process may have open.
    number
        Which backup; None for the newest.
    replace
        Put it in the place of what is in the directory.
    """
    return restore_store(
        PosixStore.at(backups), PosixStore.at(data), number=number, replace=replace, step=step
    )


def restore_store(
    backups: Store,
    data: Store,
    *,
    number: int | None = None,
    replace: bool = False,
    step: Step = ignore,
) -> BackupInfo:
    """Make a data directory of a backup, whole or not at all.

    Every byte is compared with its digest and every collection opened before any of it counts.

    Raises
    ------
    NotFoundError
        If there is no such backup.
    CorruptFileError, NewerFormatError
        If it is damaged, or was written by a newer vecdb; the data directory is as it was.
    AlreadyExistsError
        If there is something in the data directory, and `replace` is false.
    DirectoryLockedError
        If a process has the data directory open, or the directory of backups for writing.
    DiskFullError, StorageIOError
        If this was the last step, the data directory is as it was, or restored.
    """
    directory = BackupDirectory(backups)
    directory.read(number)  # before a lock makes a directory that is not there
    with _kept_as_it_is(backups):
        backup = directory.read(number)
        settings = _checked(directory, backup)
        held = data.lock()
        try:
            data.discard_unfinished()
            _forget_interrupted(data)
            _Restore(directory, backup, settings, data, step).run(replace=replace)
        finally:
            held.release()
    return backup.info


def refuse_half_restored(data: Store, catalog: Catalog) -> None:
    """Keep a directory that was to become a restored one from being taken for an empty one.

    Raises
    ------
    FailedPreconditionError
    """
    if not data.exists(RESTORING):
        return
    if catalog.is_new:
        raise FailedPreconditionError(
            f"a restore into {data.location()} was interrupted: run it again, or delete the "
            "directory to begin an empty database"
        )
    data.delete(RESTORING)  # the catalog decides; folders it does not name are dropped


@contextmanager
def _kept_as_it_is(backups: Store) -> Iterator[None]:
    """Keep others from pruning the backups, where anybody could."""
    held = backups.lock_for_reading()
    try:
        yield
    finally:
        if held is not None:
            held.release()


def _checked(directory: BackupDirectory, backup: StoredBackup) -> dict[str, CollectionSettings]:
    """Check everything that can be told without reading files; return the settings."""
    where = f"backup {backup.number}"
    found = {}
    for name, one in backup.collections.items():
        try:
            check_name(name)
            StoredCollection.from_body(one.manifest, where)
        except InvalidNameError as error:
            raise CorruptFileError(f"{where} is damaged: {error}") from error
        found[name] = CollectionSettings.from_json(one.settings, f"{where}, collection {name!r}")
    directory.check_files(backup)
    return found


def _forget_interrupted(data: Store) -> None:
    """Delete what a restore that was interrupted has left."""
    if not data.exists(RESTORING):
        return
    if not manifest_numbers(data.within(CATALOG)):
        for folder in data.read(RESTORING).decode("ascii", "replace").split():
            if folder_number(folder) is not None:
                data.delete_tree(folder)
    # Where there is a catalog, it tells which folders count; opening deletes the others.
    data.delete(RESTORING)


class _Restore:
    def __init__(
        self, directory: BackupDirectory, backup: StoredBackup,
        settings: dict[str, CollectionSettings], data: Store, step: Step,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._backup = backup
        self._settings = settings
        self._data = data
        self._step = step

    def run(self, *, replace: bool) -> None:
        there = self._data.list()
        if there and not replace:
            raise AlreadyExistsError(
                f"{self._data.location()} is not empty (it has {there[0]!r:.100}): name another "
                "directory, or ask for what is there to be replaced (--replace)"
            )
        need = sum(ref.size for one in self._backup.collections.values() for ref in one.files)
        free = self._data.free_bytes()
        if need > free:
            raise DiskFullError(
                f"backup {self._backup.number} takes {need} bytes, and there is room for {free} in "
                f"{self._data.location()}"
            )
        catalog = Catalog.replacing(self._data)
        folders = {name: catalog.new_folder() for name in sorted(self._settings)}
        try:
            self._build(folders)
        except BaseException:
            with suppress(VecdbError):
                self._abandon(folders)
            raise
        catalog.publish(
            {
                name: CatalogEntry(folder, self._settings[name].to_json())
                for name, folder in folders.items()
            }
        )
        self._clean_up(catalog)

    def _build(self, folders: dict[str, str]) -> None:
        self._data.put(RESTORING, "".join(f"{f}\n" for f in folders.values()).encode())
        models = Models()
        for name, folder in folders.items():
            one, store = self._backup.collections[name], self._data.within(folder)
            for ref in one.files:
                self._directory.copy_out(ref, store, self._step)
            ManifestLog.open(store.within("manifest")).publish(one.manifest)
            self._try_out(name, store, models)

    def _try_out(self, name: str, store: Store, models: Models) -> None:
        """Open a restored collection, as whoever opens the directory later will."""
        where = f"backup {self._backup.number}, collection {name!r}"
        try:
            opened = Collection(name, self._settings[name], store, models)
            try:
                with opened.maintenance.hold() as held:
                    found = (held.snapshot.sequence, held.snapshot.count(None))
            finally:
                opened.close()
        except (CorruptFileError, StoredFileNotFoundError) as error:
            raise CorruptFileError(f"{where} cannot be opened: {error}") from error
        one = self._backup.collections[name]
        if found != (one.sequence, one.points):
            raise CorruptFileError(
                f"{where} has {found[1]} points after write {found[0]}, and not {one.points} after "
                f"write {one.sequence}"
            )

    def _abandon(self, folders: dict[str, str]) -> None:
        for folder in folders.values():
            self._data.delete_tree(folder)
        self._data.delete(RESTORING)

    def _clean_up(self, catalog: Catalog) -> None:
        """Delete what was replaced; whatever of it stays is deleted at the next opening."""
        try:
            catalog.tidy()
            self._data.delete(RESTORING)
        except VecdbError as error:
            _log.warning("restored; what was there before is not deleted yet: %s", error)
