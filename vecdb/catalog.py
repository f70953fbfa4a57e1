"""The catalog of a data directory: which collections there are, and the folder of each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vecdb.errors import CollectionNotFoundError, CorruptFileError, VecdbError, shown
from vecdb.storage import ManifestLog, Store
from vecdb.storage.layout import (
    CATALOG,
    RESTORING,
    collection_folder,
    folder_number,
    top_folder,
)
from vecdb.storage.manifest import manifest_numbers, read_manifest
from vecdb.storage.os_errors import reported

_log = logging.getLogger(__name__)


def is_data_directory(directory: Path) -> bool:
    """Return whether a directory holds collections, or what is left of them.

    Raises
    ------
    StorageAccessError, StorageIOError
        If it cannot be looked at.
    """
    with reported("look at", directory):
        names = [path.name for path in directory.iterdir()]
    return any(name in (CATALOG, RESTORING) or folder_number(name) is not None for name in names)


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What the catalog has of a collection.

    Attributes
    ----------
    folder
        Where its files lie.
    settings
        As JSON, as it was found: if it is damaged, that is the damage of one collection.
    """

    folder: str
    settings: Any


class Catalog:
    """The newest catalog of a data directory, and the one way to publish another.

    Attributes
    ----------
    entries
        The collections by their names.
    """

    def __init__(
        self, store: Store, manifests: ManifestLog, entries: dict[str, CatalogEntry], number: int
    ) -> None:
        self._store = store
        self._manifests = manifests
        self._number = number  # of the next folder
        self.entries = entries

    @classmethod
    def open(cls, store: Store) -> Self:
        """Read the catalog of a data directory; an empty directory has an empty one.

        Raises
        ------
        CorruptFileError, NewerFormatError
            If it cannot be read.
        """
        manifests = ManifestLog.open(store.within(CATALOG))
        if manifests.latest is None:
            return cls(store, manifests, {}, 1)
        body = manifests.latest.body
        try:
            found = body["collections"].items()
            entries = {name: CatalogEntry(e["dir"], e.get("settings")) for name, e in found}
            numbers = {folder_number(entry.folder) for entry in entries.values()}
            if len(numbers) < len(entries) or None in numbers:
                raise ValueError(f"they lie in {[entry.folder for entry in entries.values()]}")
            number = int(body["next_dir"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            where = store.location(CATALOG)
            raise CorruptFileError(f"{where} does not list collections ({error!r})") from error
        return cls(store, manifests, entries, number)

    @classmethod
    def replacing(cls, store: Store) -> Self:
        """Return an empty catalog; when published, it replaces what is there, damaged or not."""
        there = (folder_number(top_folder(name)) for name in store.list())
        number = 1 + max((n for n in there if n is not None), default=0)
        manifests = ManifestLog.replacing(store.within(CATALOG))
        return cls(store, manifests, {}, max(number, _last_known_number(store)))

    @property
    def is_new(self) -> bool:
        """Whether there is none yet."""
        return self._manifests.latest is None

    def lacks(self, name: str) -> CollectionNotFoundError:
        """Return the error that says that there is no such collection, and which there are."""
        names = sorted(self.entries)
        first = ", ".join(repr(each) for each in names[:10])
        known = f"there are {first}{', ...' if len(names) > 10 else ''}" if names else ""
        return CollectionNotFoundError(
            f"there is no collection {shown(name, 300)}; {known or 'there are none yet'}"
        )

    def new_folder(self) -> str:
        """Return the name of a folder that no collection has or had."""
        self._number += 1
        return collection_folder(self._number - 1)

    def publish(self, entries: Mapping[str, CatalogEntry]) -> None:
        """Make these the collections there are, durably.

        Raises
        ------
        DiskFullError
            If there is no room; those there were are there still.
        StorageIOError, ReadOnlyError
            See `ManifestLog.publish`.
        """
        collections = {
            name: {"dir": entry.folder, "settings": entry.settings}
            for name, entry in entries.items()
        }
        self._manifests.publish({"collections": collections, "next_dir": self._number})
        self.entries = dict(entries)
        self._prune()

    def tidy(self) -> None:
        """Write again what is damaged of it, and delete older ones and folders that it lacks."""
        self._manifests.heal()
        self._prune()
        listed = {entry.folder for entry in self.entries.values()}
        there = {top_folder(name) for name in self._store.list()}
        for folder in sorted(there - listed):
            if folder_number(folder) is not None:
                self._store.delete_tree(folder)

    def _prune(self) -> None:
        try:
            self._manifests.prune(keep=1)
        except VecdbError as error:  # the newest counts, whether or not older ones are there
            _log.warning("older catalogs are not deleted yet: %s", error)


def _last_known_number(store: Store) -> int:
    """Return the number of the next folder, as far as a catalog can be read that says so."""
    catalogs = store.within(CATALOG)
    for number in reversed(manifest_numbers(catalogs)):
        with suppress(VecdbError, KeyError, TypeError, ValueError):
            return int(read_manifest(catalogs, number).body["next_dir"])
    return 1
