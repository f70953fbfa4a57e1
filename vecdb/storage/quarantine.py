"""Setting damaged files of a collection aside: moved to ``quarantine/``, never deleted.

Every step leaves a directory that opens as it did before, or as it will afterwards, and doing it
all again finishes what a crash interrupted: files are moved under names that follow from their
own, and the manifest that says what was given up is published once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vecdb.errors import VecdbError
from vecdb.storage.base import Store
from vecdb.storage.fileref import FileRef
from vecdb.storage.manifest import ManifestLog
from vecdb.storage.sections import open_sections
from vecdb.storage.segment import read_tombstones, stored_ids
from vecdb.types import PointId

QUARANTINE = "quarantine"
QUARANTINED = "quarantined"
"""The key of a collection's manifest under which stands what was given up."""


def quarantine_name(name: str) -> str:
    """Return where a file of a collection is set aside."""
    return f"{QUARANTINE}/{name.rpartition('/')[2]}"


def free_name(store: Store, name: str) -> str:
    """Return a name in the quarantine for a file of which there may be an earlier one."""
    target, number = quarantine_name(name), 1
    while store.exists(target):
        number += 1
        target = f"{quarantine_name(name)}.{number}"
    return target


def set_aside(store: Store, name: str) -> str | None:
    """Move a file of a collection to its quarantine; return its name there, None if it is gone."""
    target = quarantine_name(name)
    if not store.exists(name):
        return target if store.exists(target) else None
    if store.exists(target) and store.size(target) == store.size(name):
        store.delete(name)  # a move that was interrupted: both are names of one file
        return target
    target = free_name(store, name)
    store.move(name, target)
    return target


def keep_ids(store: Store, name: str, ids: Sequence[PointId]) -> str:
    """Write down which points were lost, as a JSON array; return the file's name."""
    target = quarantine_name(name)
    store.put(target, json.dumps(ids, ensure_ascii=False).encode(), overwrite=True)
    return target


def give_up(
    manifests: ManifestLog,
    lost: Sequence[Mapping[str, Any]],
    segments: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Publish that parts of a collection are no longer part of it.

    Parameters
    ----------
    lost
        ``{"part", "files", "reason", "points"}`` of each; one that stands there already is left.
    segments
        The segments that remain, None for those there are.
    """
    if manifests.latest is None:
        return
    body = dict(manifests.latest.body)
    before = list(body.get(QUARANTINED, []))
    known = {(entry["part"], entry["reason"]) for entry in before}
    new = [entry for entry in lost if (entry["part"], entry["reason"]) not in known]
    body[QUARANTINED] = before + new
    if not body[QUARANTINED]:
        del body[QUARANTINED]
    if segments is not None:
        body["segments"] = list(segments)
    if body != manifests.latest.body:
        manifests.publish(body)
        manifests.prune(keep=1)


def lost_ids(store: Store, data: FileRef, tombstones: FileRef | None) -> list[PointId] | None:
    """Return the ids of a damaged segment's live points, None when they cannot be told for sure."""
    try:
        store.fault_in(data.name, store.map(data.name))
        sections = open_sections(store, data.name, kind=None, verify=False)
        rows = sections.meta.get("rows")
        if not isinstance(rows, int):
            return None
        ids = stored_ids(sections, rows, store.location(data.name))
        if tombstones is None:
            return ids
        gone = read_tombstones(store, tombstones, rows)
        return [point for point, dead in zip(ids, gone, strict=True) if not dead]
    except (VecdbError, KeyError, ValueError):
        return None
