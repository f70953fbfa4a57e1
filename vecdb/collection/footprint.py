"""What one collection takes of disk and memory, and will take."""

from __future__ import annotations

from vecdb.collection import policy
from vecdb.collection.budget import Usage
from vecdb.collection.segments import Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.versions import Versions
from vecdb.index.coded_graph import coded_row_bytes
from vecdb.storage import Wal


class Footprint:
    """What the files and the memory of a collection add up to; a `Taker` of the budget."""

    def __init__(
        self, segments: Segments, wal: Wal, versions: Versions, settings: CollectionSettings
    ) -> None:
        self._segments = segments
        self._wal = wal
        self._versions = versions
        self._graph_row_bytes = coded_row_bytes(settings.dim, settings.m)

    @property
    def usage(self) -> Usage:
        """What it takes now, with the graphs that are still to be built."""
        to_index = policy.rows_to_index(self._waiting_rows)
        return Usage(self.disk_bytes + to_index * self._graph_row_bytes, self.memory_bytes)

    @property
    def disk_bytes(self) -> int:
        """The files there are."""
        return self._versions.bytes + self._wal.size_bytes

    @property
    def memory_bytes(self) -> int:
        """Points that are in no segment file yet, those of bulk loads included."""
        return self._segments.memory_bytes + self._versions.loading_bytes

    def graph_bytes(self, rows: int) -> int:
        """Return about how much more graphs will take when so many rows come."""
        waiting = self._waiting_rows
        more = policy.rows_to_index(waiting + rows) - policy.rows_to_index(waiting)
        return more * self._graph_row_bytes

    @property
    def _waiting_rows(self) -> int:
        return self._segments.unindexed_rows + self._versions.loaded_rows
