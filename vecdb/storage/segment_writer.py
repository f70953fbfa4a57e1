"""Writing a segment file from rows that need not fit in memory.

Rows come from `RowSource`s, one after the other: rows of a growing segment (`ListedRows`) or those
of other segment files that are to be kept (`FileRows`). What is held at once is a few numbers for
each row; vectors, texts and payloads pass through in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import LengthMismatchError
from vecdb.storage.base import Store
from vecdb.storage.fileref import FileRef
from vecdb.storage.ids import IdBatch
from vecdb.storage.sections import Pieces, write_sections
from vecdb.storage.segment import PAYLOAD, SEGMENT_KIND, STR_ID, TEXT, SegmentFile
from vecdb.types import Matrix, PointId

Step = Callable[[], None]
"""Called between pieces: it may rest, and what it raises ends the writing without a trace."""

_ROWS_AT_A_TIME = 1_024
_BYTES_AT_A_TIME = 1 << 20


@dataclass(frozen=True, slots=True)
class IdColumns:
    """Ids as numbers.

    Attributes
    ----------
    is_str
        bool (n,): which ids are str.
    keys
        uint64 (n,): what they are looked up by, an int itself or the hash of a str.
    """

    is_str: NDArray[np.bool_]
    keys: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Blobs:
    """A column of byte strings, of which a row may have none.

    Attributes
    ----------
    present
        bool (n,): which rows have one.
    lengths
        uint64 (n,): of how many bytes, 0 where there is none.
    pieces
        Returns all bytes in order, in uint8 arrays of any length.
    """

    present: NDArray[np.bool_]
    lengths: NDArray[np.uint64]
    pieces: Callable[[], Iterator[NDArray[np.uint8]]]


class RowSource(Protocol):
    """Rows to be written, in their order."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def vectors(self) -> Iterator[Matrix]:
        """Yield the vectors, some rows at a time."""

    def ids(self) -> IdColumns:
        """Return the ids as numbers."""

    def blobs(self, column: str) -> Blobs | None:
        """Return the column `STR_ID`, `TEXT` or `PAYLOAD`; None when no row has anything in it."""


@dataclass(slots=True)
class ListedRows:
    """Rows given as lists; `rows` are those to write of them, int64, ascending.

    Attributes
    ----------
    texts, payloads
        As UTF-8.
    step
        Called now and then while the lists are gone through.
    """

    id_list: Sequence[PointId]
    matrix: Matrix
    texts: Sequence[bytes | None]
    payloads: Sequence[bytes | None]
    rows: NDArray[np.int64]
    step: Step = lambda: None
    _strings: list[bytes | None] = field(default_factory=list)

    def __len__(self) -> int:
        """See `RowSource.__len__`."""
        return len(self.rows)

    def vectors(self) -> Iterator[Matrix]:
        """See `RowSource.vectors`."""
        return _vector_pieces(self.matrix, self.rows)

    def ids(self) -> IdColumns:
        """See `RowSource.ids`."""
        is_str = np.zeros(len(self.rows), np.bool_)
        keys = np.zeros(len(self.rows), np.uint64)
        self._strings = [None] * len(self.rows)
        for first, stretch in self._stretches():
            batch = IdBatch([self.id_list[row] for row in stretch])
            keys[first + batch.int_rows] = batch.int_keys
            keys[first + batch.str_rows] = batch.str_keys
            is_str[first + batch.str_rows] = True
            for row, string in zip(batch.str_rows.tolist(), batch.strings, strict=True):
                self._strings[first + row] = string
        return IdColumns(is_str, keys)

    def blobs(self, column: str) -> Blobs | None:
        """See `RowSource.blobs`; that of the ids is known once `ids` was called."""
        if column == STR_ID:
            kept: Sequence[bytes | None] = self._strings
            chosen = np.arange(len(kept))
        else:
            kept = self.texts if column == TEXT else self.payloads
            chosen = self.rows
        present = np.zeros(len(chosen), np.bool_)
        lengths = np.zeros(len(chosen), np.uint64)
        for first, stretch in self._stretches(chosen):
            items = [kept[row] for row in stretch]
            last = first + len(items)
            present[first:last] = [item is not None for item in items]
            lengths[first:last] = [0 if item is None else len(item) for item in items]

        def pieces() -> Iterator[NDArray[np.uint8]]:
            for _, stretch in self._stretches(chosen):
                found = [item for row in stretch if (item := kept[row])]
                yield np.frombuffer(b"".join(found), np.uint8)

        return Blobs(present, lengths, pieces) if present.any() else None

    def _stretches(self, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[int, list[int]]]:
        rows = self.rows if rows is None else rows
        for first in range(0, len(rows), _ROWS_AT_A_TIME):
            self.step()
            yield first, rows[first : first + _ROWS_AT_A_TIME].tolist()


@dataclass(slots=True)
class FileRows:
    """Rows of a segment file; `rows` are those to write of them, int64, ascending."""

    file: SegmentFile
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """See `RowSource.__len__`."""
        return len(self.rows)

    def vectors(self) -> Iterator[Matrix]:
        """See `RowSource.vectors`."""
        return _vector_pieces(self.file.vectors, self.rows)

    def ids(self) -> IdColumns:
        """See `RowSource.ids`."""
        is_str, keys = self.file.id_keys()
        return IdColumns(is_str[self.rows], keys[self.rows])

    def blobs(self, column: str) -> Blobs | None:
        """See `RowSource.blobs`."""
        found = self.file.column(column)
        if found is None:
            return None
        present = found.present(self.rows)
        starts, lengths = found.extents(self.rows)

        def pieces() -> Iterator[NDArray[np.uint8]]:
            yield from _gathered(found.data, starts, lengths)

        return Blobs(present, lengths, pieces) if present.any() else None


def _vector_pieces(matrix: Matrix, rows: NDArray[np.int64]) -> Iterator[Matrix]:
    """Yield copies: what follows reads them with the GIL held and must not wait for a disk."""
    height = max(1, _BYTES_AT_A_TIME // max(1, 4 * matrix.shape[1]))
    for first in range(0, len(rows), height):
        yield matrix[rows[first : first + height]]


def _gathered(
    data: NDArray[np.uint8], starts: NDArray[np.uint64], lengths: NDArray[np.uint64]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the stretches of `data`, one behind the other, about a megabyte at a time."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = int(np.searchsorted(ends, before + np.uint64(_BYTES_AT_A_TIME), "right"))
        last = max(last, first + 1)  # one alone may be longer
        run = slice(first, last)
        if starts[last - 1] - starts[first] == ends[last - 1] - lengths[last - 1] - before:
            begin = int(starts[first])  # they stand behind each other as they are
            yield data[begin : begin + int(ends[last - 1] - before)].copy()
        else:
            shift = starts[run] - (ends[run] - lengths[run] - before)
            total = int(ends[last - 1] - before)
            where = np.repeat(shift, lengths[run].astype(np.int64))
            where += np.arange(total, dtype=np.uint64)
            yield data[where]
        first = last


def write_rows(
    store: Store, name: str, sources: Sequence[RowSource], dim: int, *, step: Step = lambda: None
) -> FileRef:
    """Write the rows of all sources as one segment file, durably.

    No two rows may have one id.

    Raises
    ------
    AlreadyExistsError
        If there is a file of that name.
    DiskFullError
        If there is no room.
    """
    rows = sum(len(source) for source in sources)
    columns = [source.ids() for source in sources]
    is_str = _joined([c.is_str for c in columns], np.bool_)
    keys = _joined([c.keys for c in columns], np.uint64)
    step()

    def vectors() -> Iterator[NDArray[Any]]:
        for source in sources:
            for piece in source.vectors():
                step()
                yield piece

    sections: dict[str, NDArray[Any] | Pieces] = {
        "vectors": Pieces(np.dtype(np.float32), (rows, dim), vectors()),
        "id_values": np.where(is_str, np.uint64(0), keys),
    }
    for kind, chosen in (("int", ~is_str), ("str", is_str)):
        places = np.flatnonzero(chosen)
        places = places[np.argsort(keys[places], kind="stable")]
        sections[f"{kind}_keys"] = keys[places]
        sections[f"{kind}_rows"] = places.astype(np.uint32)
        step()
    for column in (STR_ID, TEXT, PAYLOAD):
        sections.update(_blob_sections(column, sources, step))
    return write_sections(store, name, sections, kind=SEGMENT_KIND, meta={"rows": rows})


def _blob_sections(
    column: str, sources: Sequence[RowSource], step: Step
) -> dict[str, NDArray[Any] | Pieces]:
    parts = [source.blobs(column) for source in sources]
    if all(part is None for part in parts):
        return {}
    counts = [len(source) for source in sources]
    present, offsets = [], [np.zeros(1, np.uint64)]
    total = 0
    for part, count in zip(parts, counts, strict=True):
        present.append(np.zeros(count, np.bool_) if part is None else part.present)
        lengths = np.zeros(count, np.uint64) if part is None else part.lengths
        offsets.append(np.cumsum(lengths) + np.uint64(total))
        total += int(lengths.sum())

    def data() -> Iterator[NDArray[Any]]:
        for part in parts:
            for piece in part.pieces() if part is not None else ():
                step()
                yield piece

    return {
        f"{column}_present": np.packbits(_joined(present, np.bool_), bitorder="little"),
        f"{column}_offsets": np.concatenate(offsets),
        f"{column}_bytes": Pieces(np.dtype(np.uint8), (total,), data()),
    }


def _joined(parts: list[NDArray[Any]], dtype: type[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def write_segment(
    store: Store,
    name: str,
    ids: Sequence[PointId],
    vectors: Matrix,
    texts: Sequence[str | None] | None = None,
    payloads: Sequence[bytes | None] | None = None,
) -> FileRef:
    """Write rows that are at hand as a segment file, durably.

    Parameters
    ----------
    ids
        Distinct ids.
    vectors
        float32 (n, dim).
    texts, payloads
        Parallel to `ids`; payloads as the UTF-8 of JSON objects.

    Raises
    ------
    LengthMismatchError
        If the columns differ in length.
    AlreadyExistsError
        If there is a file of that name.
    DiskFullError
        If there is no room.
    """
    rows = len(ids)
    if vectors.ndim != 2 or len(vectors) != rows:
        raise LengthMismatchError(f"{rows} ids with vectors of shape {vectors.shape}")
    nothing = [None] * rows
    encoded = None if texts is None else [None if t is None else t.encode() for t in texts]
    for what, given in (("texts", texts), ("payloads", payloads)):
        if given is not None and len(given) != rows:
            raise LengthMismatchError(f"{rows} ids with {len(given)} {what}")
    matrix = np.asarray(vectors, np.float32)
    source = ListedRows(ids, matrix, encoded or nothing, payloads or nothing, np.arange(rows))
    return write_rows(store, name, [source], matrix.shape[1])
