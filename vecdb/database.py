"""A data directory: which collections there are, and the work in their background."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from vecdb.backup import list_backups, take_backup
from vecdb.catalog import Catalog, CatalogEntry
from vecdb.collection import Collection, CollectionSettings
from vecdb.collection.budget import Budget, SpaceLimits, Usage
from vecdb.collection.footprint import Footprint
from vecdb.collection.inherited import Inherited
from vecdb.collection.recovery import refuse_if_gone
from vecdb.collection.settings import check_name
from vecdb.config import (
    DEFAULT_DECODER,
    DIM,
    MIN_FREE_BYTES,
    SCRUB_BYTES_PER_SECOND,
    SCRUB_SECONDS,
)
from vecdb.errors import (
    ClosedError,
    CollectionExistsError,
    DataLossError,
    DimensionMismatchError,
    InvalidArgumentError,
    NewerFormatError,
    NotFoundError,
    ReadOnlyError,
    ResourceExhaustedError,
    StorageAccessError,
    VecdbError,
    shown,
)
from vecdb.housekeeping import Housekeeping, Scrubber
from vecdb.index import as_metric
from vecdb.interrupts import whole
from vecdb.models import Models
from vecdb.restoring import refuse_half_restored
from vecdb.storage import Durability, PosixStore, Store, allow_many_files
from vecdb.storage.backup import Step
from vecdb.storage.layout import CATALOG
from vecdb.types import BackupInfo, Metric, ServerInfo
from vecdb.version import VERSION

_EMPTY_COLLECTION_BYTES = 4_096
_NOT_PUBLISHED = (InvalidArgumentError, ReadOnlyError, ResourceExhaustedError)
"""What the catalog raises before it has changed anything; after others it may have."""

_log = logging.getLogger(__name__)


class Database:
    """An embedded database: one data directory, owned by this process while it is open.

    Parameters
    ----------
    path
        The directory; made if it is not there.
    durability
        ``disk``: an acknowledged write survives power loss. ``os``: it survives the process only.
    decoder
        Who writes answers: the name of a registered model, or the URL of an OpenAI-compatible
        endpoint.
    decoder_api_key
        Sent to that endpoint.
    device
        Where models run: auto, cpu or cuda.
    cache_dir
        Where model files are kept; by default, the user's cache directory.
    max_disk_bytes, max_memory_bytes
        When the files of the directory, or the points that are in no segment file yet, take more,
        upserts and new collections are refused; everything else goes on. None for no limit.
    min_free_bytes
        They are refused as well when less would be left free on the file system.
    scrub_seconds, scrub_bytes_per_second
        How often all files are read again in the background to find what the disk has changed (by
        default once a day, 0 for never), and how fast.
    store
        In place of `path`, for tests.

    Raises
    ------
    InvalidParameterError, StorageAccessError
        If `path` can be no directory.
    DirectoryLockedError
        If another process has the directory open; the message names it.
    NewerFormatError, CorruptFileError
        If the catalog cannot be read. A collection whose settings, manifest or log is damaged, or
        for which there is no room on the disk, does not keep the others from being opened;
        `collection` raises for it. One with a damaged segment is opened without that: see
        `Collection.info` and `vecdb.types.Quarantine`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: Durability = "disk",
        decoder: str = DEFAULT_DECODER,
        decoder_api_key: str | None = None,
        device: str = "auto",
        cache_dir: Path | None = None,
        max_disk_bytes: int | None = None,
        max_memory_bytes: int | None = None,
        min_free_bytes: int | None = None,
        scrub_seconds: int | None = None,
        scrub_bytes_per_second: int | None = None,
        store: Store | None = None,
    ) -> None:
        limits = SpaceLimits(max_disk_bytes, max_memory_bytes, MIN_FREE_BYTES.check(min_free_bytes))
        scrub_every = SCRUB_SECONDS.check(scrub_seconds)
        scrub_rate = SCRUB_BYTES_PER_SECOND.check(scrub_bytes_per_second)
        self._store = PosixStore.at(path, durability) if store is None else store
        self._budget = Budget(limits, self._store.free_bytes, self._footprints)
        self._models = Models(
            decoder=decoder, decoder_api_key=decoder_api_key, device=device, cache_dir=cache_dir
        )
        self._collections: dict[str, Collection] = {}
        self._unopened: dict[str, VecdbError] = {}
        self._changing = threading.RLock()  # protects the fields above, and the catalog
        self._closed = False
        allow_many_files()
        self._held = self._store.lock()
        try:
            self._store.discard_unfinished()
            self._catalog = Catalog.open(self._store)
            refuse_half_restored(self._store, self._catalog)
            self._catalog.tidy()
            for name in self._catalog.entries:
                self._open(name)
        except BaseException:
            with suppress(VecdbError):
                self._let_go()
            raise
        self._housekeeping = Housekeeping(self._here)
        self._scrubber = Scrubber(self._here, scrub_every, scrub_rate)
        self._inherited: Inherited | None = None
        self._process = os.getpid()
        _opened.add(self)

    def create_collection(
        self,
        name: str,
        *,
        dim: int | None = None,
        metric: Metric | str = Metric.COSINE,
        encoder: str | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
    ) -> Collection:
        """Make a collection.

        Parameters
        ----------
        name
            Up to 255 letters, digits, ``_``, ``-`` and ``.``, the first one a letter, digit or
            ``_``.
        dim
            The dimension of its vectors; with an encoder, that of the encoder.
        metric
            cosine, dot or l2; see `vecdb.types.Metric`.
        encoder
            The name of the model that makes vectors of texts; without one the collection takes
            vectors only.
        m, ef_construction
            Of its graph indexes; see `vecdb.index.HnswIndex`.

        Raises
        ------
        CollectionExistsError
            If there is one of that name.
        InvalidArgumentError
            One of its subclasses.
        DiskFullError
            There is no such collection then.
        StorageIOError
            If the disk failed. Whether there is such a collection shows at the next opening.
        """
        check_name(name)
        kind = as_metric(metric)
        if name in self._catalog.entries:
            raise CollectionExistsError(f"there is a collection {name!r} already")
        info = None if encoder is None else self._models.encoder(encoder).info
        length = dim if info is None else info.dim
        if length is None:
            raise InvalidArgumentError(
                "a collection needs dim= for vectors, or encoder= for texts: give one of them"
            )
        if info is not None and dim not in (None, info.dim):
            raise DimensionMismatchError(
                f"dim={shown(dim)}, but encoder {shown(encoder)} makes vectors of "
                f"dimension {info.dim}: leave dim out"
            )
        parameters: dict[str, Any] = {"m": m, "ef_construction": ef_construction}
        settings = CollectionSettings(
            DIM.check(length), kind, info,
            **{key: value for key, value in parameters.items() if value is not None},
        )  # fmt: skip
        return self._create(name, settings)

    @whole
    def _create(self, name: str, settings: CollectionSettings) -> Collection:
        with self._changing:
            self._check_open()
            if name in self._catalog.entries:
                raise CollectionExistsError(f"there is a collection {name!r} already")
            with self._budget.growth(Usage(disk_bytes=_EMPTY_COLLECTION_BYTES)):
                pass
            collection = self._make(name, settings)
            self._collections[name] = collection
            return collection

    def _make(self, name: str, settings: CollectionSettings) -> Collection:
        """Make the files of a collection, and then name it: until then it is not there.

        What a crash leaves before that is deleted at the next opening.
        """
        folder = self._catalog.new_folder()
        try:
            store = self._store.within(folder)
            collection = Collection(name, settings, store, self._models, self._budget)
        except BaseException:
            self._discard(folder)
            raise
        try:
            entry = CatalogEntry(folder, settings.to_json())
            self._catalog.publish({**self._catalog.entries, name: entry})
        except BaseException as error:
            with suppress(VecdbError):
                collection.close()
            if isinstance(error, _NOT_PUBLISHED):
                self._discard(folder)
            raise
        return collection

    def _discard(self, folder: str) -> None:
        """Delete what no catalog names, if possible: or else the next opening does."""
        with suppress(VecdbError):
            self._store.delete_tree(folder)

    def collection(self, name: str) -> Collection:
        """Return the collection of that name.

        Raises
        ------
        CollectionNotFoundError
            If there is none.
        CorruptFileError, NewerFormatError
            If its files cannot be read.
        DiskFullError
            If there is no room to open it.
        """
        with self._changing:
            self._check_open()
            if isinstance(name, str) and (found := self._collections.get(name)) is not None:
                return found
            check_name(name)
            if isinstance(self._unopened.get(name), ResourceExhaustedError):
                self._open(name)  # there may be room by now
                if name in self._collections:
                    return self._collections[name]
            if (reason := self._unopened.get(name)) is not None:
                raise type(reason)(str(reason))
            raise self._catalog.lacks(name)

    def list_collections(self) -> list[str]:
        """Return the names of all collections, sorted, damaged ones included."""
        with self._changing:
            self._check_open()
            return sorted(self._catalog.entries)

    @whole
    def drop_collection(self, name: str) -> None:
        """Delete a collection and everything in it.

        Raises
        ------
        CollectionNotFoundError
            If there is none of that name.
        StorageIOError
            If the disk failed. Whether it was dropped shows at the next opening.
        """
        check_name(name)
        with self._changing:
            self._check_open()
            if name not in self._catalog.entries:
                raise self._catalog.lacks(name)
            entries = dict(self._catalog.entries)
            folder = entries.pop(name).folder
            collection = self._collections.get(name)
            try:
                self._catalog.publish(entries)
            except VecdbError as error:
                if collection is not None and not isinstance(error, _NOT_PUBLISHED):
                    collection.stop_writing(error)  # it may be gone at the next opening
                raise
            self._collections.pop(name, None)
            self._unopened.pop(name, None)
            try:
                if collection is not None:
                    collection.close(dropped=True)
            finally:
                self._store.delete_tree(folder)

    def backup(self, directory: str | Path, *, keep: int | None = None) -> BackupInfo:
        """Add a backup of everything to a directory of backups, while reads and writes go on.

        Of each collection it holds one moment, after every write that was acknowledged before the
        call. What an earlier backup in the directory has is not copied again.

        Parameters
        ----------
        directory
            Made if it is not there; for the backups of this database only.
        keep
            Delete all but the newest `keep` backups afterwards; None keeps all.

        Raises
        ------
        InvalidArgumentError
            If it lies inside the data directory.
        DataLossError
            If a collection is damaged: a backup has all of them or none.
        DirectoryLockedError
            If it is being written to.
        DiskFullError, StorageIOError
            Earlier backups are as they were.
        """
        return self.backup_to(PosixStore.at(directory), keep=keep)

    @whole
    def backup_to(
        self, store: Store, *, keep: int | None = None, step: Step = lambda _: None
    ) -> BackupInfo:
        """Do what `backup` does, to any store; `step` is called with each count of bytes copied."""
        data = Path(self._store.location()).resolve()
        if Path(store.location()).resolve().is_relative_to(data):
            raise InvalidArgumentError(
                f"{store.location()} is in the data directory {data}: name one outside it, at best "
                "on another disk"
            )
        with self._changing:
            self._check_open()
            for name, reason in self._unopened.items():
                raise type(reason)(
                    f"collection {name!r} cannot be backed up: {reason}. Repair it or drop it: a "
                    "backup has all collections or none"
                )
            collections = dict(self._collections)

        def still_there(name: str) -> bool:
            return self._collections.get(name) is collections[name]

        return take_backup(store, collections, still_there, keep=keep, step=step)

    def list_backups(self, directory: str | Path) -> list[BackupInfo]:
        """Return the backups in a directory, oldest first; a damaged one says so."""
        return list_backups(directory)

    def ping(self) -> None:
        """Do nothing; raises as every call does when the database is closed."""
        self._check_open()

    def server_info(self) -> ServerInfo:
        """Return the version, and which models are in memory and what executes them."""
        return ServerInfo(VERSION, self._models.loaded_encoders(), self._models.loaded_decoder())

    @property
    def models(self) -> Models:
        """The encoders and the decoder."""
        return self._models

    @whole
    def close(self) -> None:
        """Finish what is being written and give the directory up; a second call does nothing.

        Raises
        ------
        StorageIOError
            If the disk failed. Everything is closed all the same.
        """
        with self._changing:
            if self._closed:
                return
            self._closed = True
            try:
                self._housekeeping.stop()
                self._scrubber.stop()
            finally:
                self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _let_go(self) -> None:
        """Close everything, whatever goes wrong; then raise what did first.

        The lock is last: while a handle still took writes, another process would not see them.
        """
        closing = [collection.close for collection in self._collections.values()]
        first: BaseException | None = None
        for close in (*closing, self._models.close, self._held.release):
            try:
                close()
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    first.add_note(f"then {error!r}")
        if first is not None:
            raise first

    def _open(self, name: str) -> None:
        """Open a collection; what keeps it from being opened does not concern the others."""
        entry = self._catalog.entries[name]
        where = f"collection {name!r} in {self._store.location(CATALOG)}"
        try:
            settings = CollectionSettings.from_json(entry.settings, where)
            store = self._store.within(entry.folder)
            refuse_if_gone(store)
            opened = Collection(name, settings, store, self._models, self._budget)
        except (
            DataLossError, NewerFormatError, NotFoundError, ResourceExhaustedError,
            StorageAccessError,
        ) as error:  # fmt: skip
            _log.error("collection %r is not opened: %s", name, error)
            self._unopened[name] = error
        else:
            self._unopened.pop(name, None)
            self._collections[name] = opened

    def _footprints(self) -> list[Footprint]:
        return [collection.footprint for collection in self._here()]

    def _here(self) -> list[Collection]:
        return list(self._collections.values())

    def _disown(self) -> None:
        """Refuse everything but `close`, which does nothing: this is a forked child."""
        inherited = Inherited(self._store.location(), self._process)
        for collection in self._collections.values():
            collection.disown(inherited)
        self._inherited = inherited
        self._models = cast("Models", inherited)
        self._changing = threading.RLock()  # that of the parent may be held
        self._closed = True

    def _check_open(self) -> None:
        if self._inherited is not None:
            self._inherited.refuse()
        if self._closed:
            raise ClosedError("the database was closed: connect again")


_opened: weakref.WeakSet[Database] = weakref.WeakSet()


def _disown_in_child() -> None:
    for database in list(_opened):
        database._disown()  # noqa: SLF001 - of this module's class


os.register_at_fork(after_in_child=_disown_in_child)
