"""Opening a collection: its segments as the manifest names them, then the WAL over them."""

from __future__ import annotations

import logging

import numpy as np

from vecdb.collection.batch import Batch
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.stored import StoredCollection, StoredSegment
from vecdb.errors import CorruptFileError, NewerFormatError, StoredFileNotFoundError
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
)

INDEX_KIND = "hnsw"

_log = logging.getLogger(__name__)


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
    reachable = manifests.reachable()
    for name in store.list("segments"):
        if name not in reachable:
            store.delete(name)
    return stored


def open_segments(
    store: Store, stored: StoredCollection, settings: CollectionSettings
) -> dict[Segment, StoredSegment]:
    """Map every segment; one whose index is damaged comes without, to be built again.

    Raises
    ------
    CorruptFileError, NewerFormatError, StoredFileNotFoundError
        If a data file or tombstones cannot be read.
    """
    opened: dict[Segment, StoredSegment] = {}
    for entry in stored.segments:
        file = SegmentFile.open(store, entry.data)
        alive = np.ones(len(file), np.bool_)
        if entry.tombstones is not None:
            alive = ~read_tombstones(store, entry.tombstones, len(file))
        index = None if entry.index is None else _open_or_lose(store, entry.index, len(file))
        opened[Segment(SealedRows(settings.metric, file, index), alive)] = entry
    return opened


def _open_or_lose(store: Store, ref: FileRef, rows: int) -> HnswIndex | None:
    try:
        index = open_index(store, ref)
    except (CorruptFileError, NewerFormatError, StoredFileNotFoundError) as error:
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


def replay(wal: Wal, segments: Segments, after: int) -> None:
    """Apply the writes that are not in the segments yet.

    Raises
    ------
    CorruptFileError
        If the WAL is damaged anywhere but in a last record that was never acknowledged.
    """
    for record in wal.replay(after):
        operation = decode_operation(record.kind, record.body, record.where)
        match operation:
            case Upsert(ids, vectors, texts, payloads):
                nothing = [None] * len(ids)
                batch = Batch(list(ids), vectors, list(texts or nothing), list(payloads or nothing))
                segments.upsert(batch, record.seq)
            case Delete(ids):
                segments.delete(ids, record.seq)
