"""Segment files: the rows of an immutable segment, and their tombstones.

A segment file holds what was written (ids, vectors, texts, payloads) and what finds a row by its
id. Which rows have died since is in separate, smaller files. Both are sections files; ``FORMAT.md``
has their sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError, VecdbError
from vecdb.storage.base import Store
from vecdb.storage.fileref import FileRef
from vecdb.storage.ids import IdBatch, find_first
from vecdb.storage.sections import Sections, open_sections, write_sections
from vecdb.types import Matrix, PointId

SEGMENT_KIND = "segment"
TOMBSTONES_KIND = "tombstones"

TEXT, PAYLOAD, STR_ID = "text", "payload", "id"
"""The columns of byte strings."""

_LOOKED_UP_AT_ONCE = 4_096


class SegmentFile:
    """An open segment file. Everything in it is memory-mapped; any thread may read it.

    Attributes
    ----------
    vectors
        float32 (n, dim), read-only.
    """

    def __init__(self, sections: Sections, where: str) -> None:
        self._where = where
        self._sections = sections
        try:
            self.vectors: Matrix = sections["vectors"]
            self._rows = len(self.vectors)
            self._values = sections["id_values"]
            self._int_keys, self._int_rows = sections["int_keys"], sections["int_rows"]
            self._str_keys, self._str_rows = sections["str_keys"], sections["str_rows"]
            self._strings = BlobColumn.of(sections, STR_ID, self._rows)
            self._texts = BlobColumn.of(sections, TEXT, self._rows)
            self._payloads = BlobColumn.of(sections, PAYLOAD, self._rows)
            self._check_shapes()
        except (KeyError, ValueError) as error:
            raise CorruptFileError(f"{where} is not a segment: {error!r}") from error

    @classmethod
    def open(cls, store: Store, ref: FileRef, *, verify: bool = True) -> Self:
        """Map a segment file.

        Parameters
        ----------
        ref
            The file, as its manifest names it. Its length is compared, its digest is not: that
            takes reading it twice as long as the checksums inside, and finds no more.
        verify
            Compare the checksum of every section, and check every row number and offset; without
            it the file is opened in constant time.

        Raises
        ------
        CorruptFileError
            If the file is damaged.
        NewerFormatError
            If it was written by a newer vecdb.
        StoredFileNotFoundError
            If it is not there.
        """
        where = store.location(ref.name)
        sections = open_sections(store, ref.name, kind=SEGMENT_KIND, verify=verify)
        if sections.file_bytes != ref.size:
            raise CorruptFileError(
                f"{where} has {sections.file_bytes} bytes; its manifest says {ref.size}"
            )
        opened = cls(sections, where)
        if verify:
            opened.check_values()
        return opened

    def verify(self) -> None:
        """Read every byte again and compare the checksums.

        Raises
        ------
        CorruptFileError
            If the file has been damaged since it was opened.
        """
        self._sections.verify()

    def _check_shapes(self) -> None:
        pairs = [(self._int_keys, self._int_rows), (self._str_keys, self._str_rows)]
        keys = sum(len(key) for key, _ in pairs)
        fits = (
            self.vectors.ndim == 2
            and self.vectors.dtype == np.float32
            and self._values.shape == (self._rows,)
            and all(key.shape == row.shape and key.ndim == 1 for key, row in pairs)
            and all(key.dtype == np.uint64 and row.dtype == np.uint32 for key, row in pairs)
            and self._values.dtype == np.uint64
            and keys == self._rows
            and (self._strings is not None or not len(self._str_keys))
        )
        if not fits:
            raise ValueError("its sections do not fit each other")

    def check_values(self) -> None:
        """Check that no row number and no offset leads out of the file.

        Raises
        ------
        CorruptFileError
            If one does.
        """
        rows = np.concatenate([self._int_rows, self._str_rows])
        fits = np.array_equal(np.sort(rows), np.arange(self._rows))
        columns = [c for c in (self._strings, self._texts, self._payloads) if c is not None]
        if not fits or not all(column.is_sound() for column in columns):
            raise CorruptFileError(f"{self._where} is damaged: a row number or offset leads out")

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def rows_of(self, ids: Sequence[PointId] | IdBatch) -> NDArray[np.int64]:
        """Return the row of each id as int64 (n,), -1 where there is none.

        Whoever looks the same ids up in several segments passes an `IdBatch`.
        """
        batch = ids if isinstance(ids, IdBatch) else IdBatch(ids)
        rows = np.full(len(batch.ids), -1, np.int64)
        places, there = find_first(self._int_keys, batch.int_keys)
        rows[batch.int_rows[there]] = self._int_rows[places[there]]
        places, there = find_first(self._str_keys, batch.str_keys)
        for n in np.flatnonzero(there).tolist():
            rows[batch.str_rows[n]] = self._row_of_string(int(places[n]), batch.strings[n])
        return rows

    def rows_shared_with(self, other: SegmentFile) -> NDArray[np.int64]:
        """Return the rows whose ids are in another file as well, int64, ascending."""
        _, there = find_first(other._int_keys, self._int_keys)
        shared = [self._int_rows[there].astype(np.int64)]
        _, there = find_first(other._str_keys, self._str_keys)
        likely = self._str_rows[there].astype(np.int64)  # their hashes are
        for first in range(0, len(likely), _LOOKED_UP_AT_ONCE):
            rows = likely[first : first + _LOOKED_UP_AT_ONCE]
            shared.append(rows[other.rows_of(self.ids_at(rows)) >= 0])
        return np.sort(np.concatenate(shared))

    def _row_of_string(self, place: int, string: bytes) -> int:
        """Return the row of `string` among those with the hash at `place`, -1 if it is none."""
        key = self._str_keys[place]
        while place < len(self._str_keys) and self._str_keys[place] == key:
            row = int(self._str_rows[place])
            if self._strings is not None and self._strings.at(row) == string:
                return row
            place += 1
        return -1

    def id_at(self, row: int) -> PointId:
        """Return the id of a row."""
        string = None if self._strings is None else self._strings.at(row)
        return int(self._values[row]) if string is None else self._decode(string, row)

    def ids_at(self, rows: NDArray[np.integer[Any]]) -> list[PointId]:
        """Return the ids of rows."""
        ids: list[PointId] = self._values[rows].tolist()
        if self._strings is not None:
            for n, string in enumerate(self._strings.take(rows)):
                if string is not None:
                    ids[n] = self._decode(string, int(rows[n]))
        return ids

    def text_at(self, row: int) -> str | None:
        """Return the text of a row."""
        encoded = None if self._texts is None else self._texts.at(row)
        return None if encoded is None else self._decode(encoded, row)

    def texts_at(self, rows: NDArray[np.integer[Any]]) -> list[str | None]:
        """Return the texts of rows."""
        if self._texts is None:
            return [None] * len(rows)
        found = self._texts.take(rows)
        try:
            return [None if encoded is None else encoded.decode() for encoded in found]
        except UnicodeDecodeError:  # say in which row
            return [self.text_at(row) for row in rows.tolist()]

    def payload_at(self, row: int) -> bytes | None:
        """Return the payload of a row, as JSON."""
        return None if self._payloads is None else self._payloads.at(row)

    def payloads_at(self, rows: NDArray[np.integer[Any]]) -> list[bytes | None]:
        """Return the payloads of rows, as JSON."""
        return [None] * len(rows) if self._payloads is None else self._payloads.take(rows)

    def id_keys(self) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """Return of each row whether its id is a str, and the key that the id is found by."""
        keys = np.empty(self._rows, np.uint64)
        is_str = np.zeros(self._rows, np.bool_)
        keys[self._int_rows] = self._int_keys
        keys[self._str_rows] = self._str_keys
        is_str[self._str_rows] = True
        return is_str, keys

    def column(self, name: str) -> BlobColumn | None:
        """Return the column `TEXT`, `PAYLOAD` or `STR_ID`, None when no row has anything in it."""
        return {TEXT: self._texts, PAYLOAD: self._payloads, STR_ID: self._strings}[name]

    def _decode(self, encoded: bytes, row: int) -> str:
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise CorruptFileError(
                f"{self._where} is damaged: row {row} is not UTF-8: {error}"
            ) from error


class BlobColumn:
    """Byte strings of different lengths, one per row, or none for a row.

    Attributes
    ----------
    data
        All their bytes, uint8.
    """

    def __init__(
        self, present: NDArray[np.uint8], offsets: NDArray[np.uint64], data: NDArray[np.uint8]
    ) -> None:
        self._present = present
        self._offsets = offsets
        self.data = data
        # One number at a time comes out of a view in a third of the time.
        self._views = present.data, offsets.data, data.data

    @classmethod
    def of(cls, sections: Sections, column: str, rows: int) -> BlobColumn | None:
        """Return a column of an open file, None when the file does not have it."""
        if f"{column}_offsets" not in sections:
            return None
        present, offsets = sections[f"{column}_present"], sections[f"{column}_offsets"]
        data = sections[f"{column}_bytes"]
        fits = present.shape == ((rows + 7) // 8,) and offsets.shape == (rows + 1,)
        if not fits or data.ndim != 1 or offsets.dtype != np.uint64:
            raise ValueError(f"column {column!r} does not have {rows} rows")
        if present.dtype != np.uint8 or data.dtype != np.uint8:
            raise ValueError(f"column {column!r} is not of bytes")
        return cls(present, offsets, data)

    @cached_property
    def _has_all(self) -> bool:
        """Whether every row has a string; looked at when it is first asked, not at opening."""
        return int.from_bytes(self._present.tobytes()).bit_count() == len(self._offsets) - 1

    def at(self, row: int) -> bytes | None:
        """Return the string of a row."""
        present, offsets, data = self._views
        if not present[row >> 3] >> (row & 7) & 1:
            return None
        return data[offsets[row] : offsets[row + 1]].tobytes()

    def present(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return which of `rows` have a string."""
        bits: NDArray[np.uint8] = self._present[rows >> 3] >> (rows & 7).astype(np.uint8) & 1
        return bits.astype(np.bool_)

    def extents(
        self, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return where the strings of `rows` start in `data`, and how long they are."""
        starts: NDArray[np.uint64] = self._offsets[rows]
        return starts, self._offsets[rows + 1] - starts

    def take(self, rows: NDArray[np.integer[Any]]) -> list[bytes | None]:
        """Return the strings of `rows`."""
        # As in `at`, without a call for each: mostly there are few, the hits of a search.
        present, offsets, data = self._views
        if self._has_all:
            return [data[offsets[row] : offsets[row + 1]].tobytes() for row in rows.tolist()]
        return [
            data[offsets[row] : offsets[row + 1]].tobytes()
            if present[row >> 3] >> (row & 7) & 1
            else None
            for row in rows.tolist()
        ]

    def is_sound(self) -> bool:
        """Return whether no offset leads out of the bytes."""
        offsets = self._offsets
        ends = int(offsets[0]) == 0 and int(offsets[-1]) == len(self.data)
        return ends and bool((offsets[1:] >= offsets[:-1]).all())


def stored_ids(sections: Sections, rows: int, where: str) -> list[PointId]:
    """Return the ids of a segment of which other sections may be damaged.

    Raises
    ------
    CorruptFileError
        If a section that the ids are in is damaged.
    KeyError, ValueError
        If one is missing or does not fit.
    """
    names = ["id_values", *(name for name in sections if name.startswith(f"{STR_ID}_"))]
    for name in names:
        sections.verify_section(name)
    values: list[PointId] = sections["id_values"].tolist()
    strings = BlobColumn.of(sections, STR_ID, rows)
    if len(values) != rows or (strings is not None and not strings.is_sound()):
        raise ValueError(f"{where} does not have {rows} ids")
    for row in range(rows) if strings is not None else ():
        string = strings.at(row) if strings is not None else None
        if string is not None:
            values[row] = string.decode()
    return values


def rows_if_known(store: Store, ref: FileRef) -> int | None:
    """Return how many rows a segment file has, damaged or not, or None when it does not tell."""
    try:
        store.fault_in(ref.name, store.map(ref.name))
        rows = open_sections(store, ref.name, kind=SEGMENT_KIND, verify=False).meta.get("rows")
    except VecdbError:
        return None
    return rows if isinstance(rows, int) else None


def write_tombstones(store: Store, name: str, dead: NDArray[np.bool_]) -> FileRef:
    """Write down which rows of a segment are dead, durably.

    A file of that name is replaced: an attempt that failed later on may have left one, which no
    manifest names.
    """
    return write_sections(
        store,
        name,
        {"dead": _pack(dead)},
        kind=TOMBSTONES_KIND,
        meta={"rows": len(dead)},
        overwrite=True,
    )


def read_tombstones(store: Store, ref: FileRef, rows: int) -> NDArray[np.bool_]:
    """Return which of a segment's `rows` rows are dead, as a bool array of its own.

    Raises
    ------
    CorruptFileError
        If the file is damaged, or is of a segment with another number of rows.
    NewerFormatError
        If it was written by a newer vecdb.
    StoredFileNotFoundError
        If it is not there.
    """
    where = store.location(ref.name)
    sections = open_sections(store, ref.name, kind=TOMBSTONES_KIND)
    packed = sections.get("dead")
    fits = packed is not None and packed.dtype == np.uint8 and packed.shape == ((rows + 7) // 8,)
    if packed is None or not fits or sections.meta.get("rows") != rows:
        raise CorruptFileError(
            f"{where} is damaged or of another segment: it is not of {rows} rows"
        )
    if sections.file_bytes != ref.size:
        raise CorruptFileError(
            f"{where} has {sections.file_bytes} bytes; its manifest says {ref.size}"
        )
    return np.unpackbits(packed, count=rows, bitorder="little").astype(np.bool_)


def _pack(flags: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(flags, bitorder="little")
