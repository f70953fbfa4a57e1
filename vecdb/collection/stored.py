"""Which files a collection consists of, as its manifest names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vecdb.errors import CorruptFileError, shown
from vecdb.storage import FileRef
from vecdb.storage.layout import QUARANTINED_FILE, SEGMENT_FILE
from vecdb.storage.manifest import as_count
from vecdb.types import Quarantine


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """The files of one segment.

    Attributes
    ----------
    number
        Never used twice in a collection.
    data
        Ids, vectors, texts and payloads: what was written.
    index
        The graph, derived from `data`; None until it has been built.
    tombstones
        Which rows are dead as of the manifest's `applied_sequence`; None when all live.
    dead
        How many rows that are.
    """

    number: int
    data: FileRef
    index: FileRef | None = None
    tombstones: FileRef | None = None
    dead: int = 0

    @property
    def files(self) -> list[FileRef]:
        """All files of the segment."""
        return [ref for ref in (self.data, self.index, self.tombstones) if ref is not None]


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """The contents of a collection's manifest.

    Attributes
    ----------
    next_number
        The number of the next segment.
    applied_sequence
        Writes up to this sequence number are in the segments; later ones are in the WAL.
    segments
        Oldest first.
    quarantined
        What was damaged and is given up.
    """

    next_number: int = 1
    applied_sequence: int = 0
    segments: tuple[StoredSegment, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()

    def with_segments(
        self, segments: list[StoredSegment], applied_sequence: int | None = None
    ) -> StoredCollection:
        """Return this with other segments, and a next number above all of theirs."""
        highest = max((s.number for s in segments), default=0)
        return replace(
            self,
            segments=tuple(segments),
            next_number=max(self.next_number, highest + 1),
            applied_sequence=(
                self.applied_sequence if applied_sequence is None else applied_sequence
            ),
        )

    @property
    def files(self) -> set[str]:
        """The names of all files."""
        return set(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file, by name."""
        return {ref.name: ref.size for segment in self.segments for ref in segment.files}

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.sizes.values())

    def to_body(self) -> dict[str, Any]:
        """Return the manifest's JSON object."""
        body: dict[str, Any] = {
            "next_segment": self.next_number,
            "applied_seq": self.applied_sequence,
            "segments": [
                {
                    "id": s.number,
                    "data": s.data.to_json(),
                    "index": None if s.index is None else s.index.to_json(),
                    "tombstones": None if s.tombstones is None else s.tombstones.to_json(),
                    "dead": s.dead,
                }
                for s in self.segments
            ],
        }
        if self.quarantined:
            body["quarantined"] = [
                {"part": q.part, "files": list(q.files), "reason": q.reason, "points": q.points}
                for q in self.quarantined
            ]
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any], where: str) -> StoredCollection:
        """Read a manifest's JSON object.

        Raises
        ------
        CorruptFileError
            If it is not of the form that `to_body` writes.
        """
        try:
            found = cls(
                as_count(body["next_segment"]),
                as_count(body["applied_seq"]),
                tuple(_segment(entry) for entry in body["segments"]),
                tuple(_quarantine(entry) for entry in body.get("quarantined", [])),
            )
            found._check()
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{where}: the manifest does not describe a collection ({error!r})"
            ) from error
        return found

    def _check(self) -> None:
        """Raise ValueError for what no collection writes, although each part could be so."""
        numbers = [segment.number for segment in self.segments]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"two segments have one number: {numbers}")
        if self.next_number < 1 or not all(0 < n < self.next_number for n in numbers):
            raise ValueError(f"segments {numbers} are there, and {self.next_number} comes next")
        names = [ref.name for segment in self.segments for ref in segment.files]
        if len(set(names)) < len(names):
            raise ValueError("two files have one name")
        for name in names:
            if not SEGMENT_FILE.fullmatch(name):
                raise ValueError(f"a segment's file is called {shown(name)}")
        for segment in self.segments:
            if segment.dead and segment.tombstones is None:
                raise ValueError(f"segment {segment.number} has dead rows and no tombstones")


def _segment(entry: Mapping[str, Any]) -> StoredSegment:
    return StoredSegment(
        as_count(entry["id"]),
        FileRef.from_json(entry["data"]),
        _optional(entry["index"]),
        _optional(entry["tombstones"]),
        as_count(entry["dead"]),
    )


def _quarantine(entry: Mapping[str, Any]) -> Quarantine:
    points = entry["points"]
    for name in entry["files"]:
        if not QUARANTINED_FILE.fullmatch(name):
            raise ValueError(f"a file that was set aside is called {shown(name)}")
    return Quarantine(
        str(entry["part"]),
        tuple(entry["files"]),
        str(entry["reason"]),
        None if points is None else as_count(points),
        accepted=True,
    )


def _optional(entry: Mapping[str, Any] | None) -> FileRef | None:
    return None if entry is None else FileRef.from_json(entry)
