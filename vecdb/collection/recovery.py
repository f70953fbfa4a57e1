"""Opening a collection: its segments as the manifest names them, then the WAL over them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from vecdb.collection.batch import Batch
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.stored import StoredCollection, StoredSegment
from vecdb.errors import (
    CorruptFileError,
    NewerFormatError,
    StorageIOError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.index import HnswIndex
from vecdb.storage import (
    Delete,
    FileRef,
    ManifestLog,
    SegmentFile,
    Store,
    Upsert,
    Wal,
    decode_operation,
    open_sections,
    read_tombstones,
    rows_if_known,
)
from vecdb.storage.manifest import manifest_numbers
from vecdb.types import Quarantine

INDEX_KIND = "hnsw"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The parts of a collection, as its files tell them.

    Attributes
    ----------
    manifests, wal
        Open, to be added to.
    stored
        What the newest manifest names.
    on_disk
        The segments that it names, without those that are damaged.
    segments
        These, and the writes since, as the log has them.
    """

    manifests: ManifestLog
    wal: Wal
    stored: StoredCollection
    on_disk: dict[Segment, StoredSegment]
    segments: Segments


def open_collection(store: Store, settings: CollectionSettings) -> Opened:
    """Open what the newest manifest names, and replay the WAL over it.

    Raises
    ------
    CorruptFileError
        If a manifest or the WAL is damaged; a damaged segment is quarantined.
    NewerFormatError
        If something was written by a newer vecdb.
    StorageIOError
    """
    manifests = ManifestLog.open(store.within("manifest"))
    manifests.heal()
    stored = read_stored(store, manifests)
    on_disk, damaged = open_segments(store, stored, settings)
    segments = Segments(
        settings.dim, settings.metric, list(on_disk), stored.applied_sequence, damaged
    )
    wal = Wal.open(store.within("wal"), after_seq=stored.applied_sequence)
    try:
        replay(wal, segments, stored.applied_sequence, settings.dim)
    except BaseException:
        wal.release()
        raise
    return Opened(manifests, wal, stored, on_disk, segments)


def refuse_if_gone(store: Store) -> None:
    """Refuse a collection that was made and of which no manifest is left.

    Nothing would tell what else is missing: it would open with what the log has, or empty.

    Raises
    ------
    CorruptFileError
    """
    if not manifest_numbers(store.within("manifest")):
        raise CorruptFileError(
            f"{store.location()} has no manifest, which every collection has from the moment that "
            "it is there: restore its files from a backup, or drop the collection"
        )


def read_stored(store: Store, manifests: ManifestLog) -> StoredCollection:
    """Return what the newest manifest names, and delete files that a crash left unnamed.

    Raises
    ------
    CorruptFileError
        If there is no manifest although there are segments, or it is damaged.
    """
    latest = manifests.latest
    if latest is None:
        if store.list("segments"):
            raise CorruptFileError(
                f"{store.location()} has segments and no manifest that names them: run "
                "`vecdb check`"
            )
        # From now on segments without a manifest are damage, and no crash between the two.
        manifests.publish(StoredCollection().to_body())
        return StoredCollection()
    stored = StoredCollection.from_body(latest.body, store.location("manifest"))
    try:
        reachable = manifests.reachable()
    except (CorruptFileError, StoredFileNotFoundError) as error:
        _log.warning("files that nothing names are left alone, since an old manifest is: %s", error)
        return stored
    for name in store.list("segments"):
        if name not in reachable:
            store.delete(name)
    return stored


def open_segments(
    store: Store, stored: StoredCollection, settings: CollectionSettings
) -> tuple[dict[Segment, StoredSegment], list[Quarantine]]:
    """Map every segment; one whose index is damaged comes without, to be built again.

    Returns
    -------
    opened, damaged
        The segments, and in their place what says why they are not served.

    Raises
    ------
    NewerFormatError
        If a data file or tombstones were written by a newer vecdb.
    """
    opened: dict[Segment, StoredSegment] = {}
    damaged: list[Quarantine] = []
    for entry in stored.segments:
        try:
            opened[_open_segment(store, entry, settings)] = entry
        except (CorruptFileError, StoredFileNotFoundError, StorageIOError) as error:
            _log.error("segment %d is not served: %s", entry.number, error)
            damaged.append(quarantine_of(store, entry, error))
    return opened, damaged


def _open_segment(store: Store, entry: StoredSegment, settings: CollectionSettings) -> Segment:
    file = SegmentFile.open(store, entry.data)
    if file.vectors.shape[1] != settings.dim:
        raise CorruptFileError(
            f"{store.location(entry.data.name)} has vectors of dimension {file.vectors.shape[1]}; "
            f"those of its collection have {settings.dim}"
        )
    alive = np.ones(len(file), np.bool_)
    if entry.tombstones is not None:
        alive = ~read_tombstones(store, entry.tombstones, len(file))
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead != entry.dead:  # a later delete would seem to be written down already
            raise CorruptFileError(
                f"{store.location(entry.tombstones.name)} has {dead} dead rows; its manifest says "
                f"{entry.dead}"
            )
    index = None if entry.index is None else _open_or_lose(store, entry.index, len(file))
    return Segment(SealedRows(settings.metric, file, index), alive)


def quarantine_of(store: Store, entry: StoredSegment, error: VecdbError) -> Quarantine:
    """Return what is told of a damaged segment."""
    rows = rows_if_known(store, entry.data)
    return Quarantine(
        f"segment {entry.number}",
        tuple(ref.name for ref in (entry.data, entry.tombstones) if ref is not None),
        str(error),
        None if rows is None else rows - entry.dead,
    )


def _open_or_lose(store: Store, ref: FileRef, rows: int) -> HnswIndex | None:
    try:
        index = open_index(store, ref)
    except (CorruptFileError, NewerFormatError, StoredFileNotFoundError, StorageIOError) as error:
        _log.warning("searching exactly until an index is built again: %s", error)
        return None
    if index.row_count != rows:
        _log.warning("%s has %d rows, its segment %d", ref.name, index.row_count, rows)
        return None
    return index


def open_index(store: Store, ref: FileRef, *, verify: bool = True) -> HnswIndex:
    """Map a stored index.

    Raises
    ------
    CorruptFileError, NewerFormatError, StoredFileNotFoundError
    """
    return HnswIndex.from_arrays(open_sections(store, ref.name, kind=INDEX_KIND, verify=verify))


def replay(wal: Wal, segments: Segments, after: int, dim: int) -> None:
    """Apply the writes that are not in the segments yet.

    Raises
    ------
    CorruptFileError
        If the WAL is damaged anywhere but in a last record that was never acknowledged.
    """
    for record in wal.replay(after):
        operation = decode_operation(record.kind, record.body, record.where)
        match operation:
            case Upsert(ids, vectors, texts, payloads, deleted):
                if vectors.shape[1] != dim:
                    raise CorruptFileError(
                        f"{record.where} has vectors of dimension {vectors.shape[1]}; those of "
                        f"its collection have {dim}"
                    )
                nothing = [None] * len(ids)
                batch = Batch(list(ids), vectors, list(texts or nothing), list(payloads or nothing))
                segments.upsert(batch, record.seq, deleted)
            case Delete(ids):
                segments.delete(ids, record.seq)
