"""Taking a backup of collections, and looking at those there are.

A backup is taken while writes go on. Of each collection it holds what its manifest names and the
end of its write-ahead log at one moment, so nothing has to be sealed for it: it can be taken from
a collection whose disk is full or has failed, and leaves no small segments behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vecdb.caller import check_caller
from vecdb.collection import Collection
from vecdb.collection.holds import StoppedError
from vecdb.collection.snapshot import described
from vecdb.collection.stored import StoredSegment
from vecdb.config import BACKUPS_KEPT
from vecdb.errors import (
    ClosedError,
    CorruptFileError,
    DataLossError,
    NewerFormatError,
    NotFoundError,
    StoredFileNotFoundError,
)
from vecdb.storage import FileRef, PosixStore, Store
from vecdb.storage.backup import (
    BackupDirectory,
    CollectionBackup,
    Step,
    prefix_ref,
)
from vecdb.types import BackupInfo

_log = logging.getLogger(__name__)


def ignore(_: int) -> None:
    """Show nobody how many bytes were copied."""


def take_backup(
    store: Store,
    collections: Mapping[str, Collection],
    still_there: Callable[[str], bool],
    *,
    keep: int | None = None,
    step: Step = ignore,
) -> BackupInfo:
    """Add a backup of open collections to a directory of backups.

    Parameters
    ----------
    store
        The directory; only what no earlier backup in it has is copied.
    collections
        Those to be backed up. One that is dropped meanwhile is left out.
    still_there
        Returns whether a collection has not been dropped.
    keep
        Delete all backups but the newest `keep`, this one among them; None keeps all.
    step
        Called with the number of bytes just copied.

    Raises
    ------
    CorruptFileError
        If data to be copied is damaged; a damaged index is left out.
    DirectoryLockedError
        If the directory is being written to.
    ClosedError
        If the collections are closed meanwhile.
    DiskFullError, StorageIOError
    """
    kept = None if keep is None else BACKUPS_KEPT.check(keep)
    held = store.lock()
    try:
        directory = BackupDirectory(store)
        directory.prepare()
        store.discard_unfinished()
        copied: dict[str, CollectionBackup] = {}
        new: list[FileRef] = []
        for name, collection in sorted(collections.items()):
            try:
                copied[name] = _copy(collection, directory, new, step)
            except StoppedError:
                if still_there(name):
                    raise ClosedError(
                        "the database was closed before its backup was done"
                    ) from None
        taken = directory.publish(copied, new)
        if kept is not None:
            _prune(directory, kept)
        return taken
    finally:
        held.release()


def _copy(
    collection: Collection, directory: BackupDirectory, new: list[FileRef], step: Step
) -> CollectionBackup:
    with collection.maintenance.hold() as held:
        if held.snapshot.damaged:
            raise CorruptFileError(
                f"collection {collection.name!r} cannot be backed up: "
                f"{described(held.snapshot.damaged)}. Restore its files, or accept the loss with "
                "`vecdb check --repair`: a backup has all collections or none"
            )

        def checked(copied: int) -> None:
            check_caller()
            held.check()
            step(copied)

        def add(ref: FileRef) -> None:
            held.check()
            if directory.add(held.store, ref, checked):
                new.append(ref)

        segments = [_copy_segment(segment, add) for segment in held.stored.segments]
        log = []
        for file, length in held.log:
            ref = prefix_ref(held.store, f"wal/{file}", length, checked)
            add(ref)
            log.append(ref)
        stored = replace(held.stored, segments=tuple(segments))
        snapshot = held.snapshot
    return CollectionBackup(
        collection.settings.to_json(), stored.to_body(), tuple(log), snapshot.sequence,
        snapshot.count(None),
    )  # fmt: skip


def _copy_segment(segment: StoredSegment, add: Callable[[FileRef], None]) -> StoredSegment:
    for ref in segment.files:
        try:
            add(ref)
        except (CorruptFileError, StoredFileNotFoundError) as error:
            if ref != segment.index:
                raise
            _log.warning("an index is left out of the backup, to be built again: %s", error)
            segment = replace(segment, index=None)
    return segment


def _prune(directory: BackupDirectory, keep: int) -> None:
    try:
        directory.prune(keep)
    except (CorruptFileError, NewerFormatError) as error:
        # The backup just taken stands; what cannot be told to be needless is kept.
        _log.warning("files of older backups are kept: %s", error)


def list_backups(
    path: str | Path, *, verify: bool = False, step: Step = ignore
) -> list[BackupInfo]:
    """Return the backups in a directory, oldest first.

    Parameters
    ----------
    path
        The directory.
    verify
        Also read every byte of them.
    step
        Called with the number of bytes just read.
    """
    directory = BackupDirectory(PosixStore.at(path))
    return [_verified(directory, one, step) if verify else one for one in directory.infos()]


def _verified(directory: BackupDirectory, info: BackupInfo, step: Step) -> BackupInfo:
    if info.damage is not None:
        return info
    try:
        directory.verify(directory.read(info.number), step)
    except (DataLossError, NotFoundError) as error:
        return replace(info, damage=str(error))
    return info
