"""Every parameter with its least, default and greatest value, in one place.

They are checked with `Limits.check`, or `Bounds.check` where there is no default, so that every
layer refuses a value with the same words.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import SupportsIndex

from vecdb.errors import InvalidParameterError, shown


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of one integer parameter that has no default."""

    name: str
    least: int
    greatest: int

    def check(self, value: SupportsIndex) -> int:
        """Return `value`.

        Raises
        ------
        InvalidParameterError
            If `value` is not an integer of the range.
        """
        try:
            number = operator.index(value)
        except TypeError:
            number = None
        if number is None or isinstance(value, bool) or not self.least <= number <= self.greatest:
            raise InvalidParameterError(
                f"{self.name}={shown(value)}: must be an integer from {self.least} to "
                f"{self.greatest}"
            )
        return number


@dataclass(frozen=True, slots=True)
class Limits:
    """The range and default of one integer parameter."""

    name: str
    least: int
    default: int
    greatest: int

    def check(self, value: SupportsIndex | None) -> int:
        """Return `value`, or the default for None.

        Raises
        ------
        InvalidParameterError
            If `value` is not an integer of the range.
        """
        if value is None:
            return self.default
        return Bounds(self.name, self.least, self.greatest).check(value)


K = Limits("k", 1, 10, 10_000)
DIM = Bounds("dim", 1, 65_536)
BATCH_ROWS = Limits("batch rows", 1, 64, 65_536)
THREADS = Limits("threads", 1, 1, 1_024)

HNSW_M = Limits("m", 2, 16, 512)
HNSW_EF_CONSTRUCTION = Limits("ef_construction", 4, 200, 10_000)
CODED_EF_CONSTRUCTION = Limits("ef_construction", 4, 128, 10_000)
"""Of a graph that is built at once: bench/notes/graph.md."""
HNSW_EF = Limits("ef", 1, 64, 100_000)
COLLECTION_EF = Limits("ef", 1, 64, 100_000)
"""The least, beside `COLLECTION_RECALL`: queries may be less like the rows than these are."""
COLLECTION_RECALL = 0.98
"""What searches of a collection aim at where ef is not given, by the calibration of its graphs."""
SEED = Limits("seed", 0, 0, (1 << 63) - 1)
IVF_NLIST = Limits("nlist", 1, 1_024, 1_000_000)
IVF_NPROBE = Limits("nprobe", 1, 16, 1_000_000)
IVF_BITS = Limits("bits", 1, 4, 8)
"""Of a code, for each dimension."""

TEXT_BYTES = Bounds("text bytes", 1, 1 << 20)
PAYLOAD_BYTES = Bounds("payload bytes", 2, 1 << 20)
FILTER_DEPTH = Bounds("filter depth", 1, 64)
FILTER_CONDITIONS = Bounds("filter conditions", 0, 1_024)
FILTER_VALUES = Bounds("filter values", 0, 65_536)
STR_ID_BYTES = Bounds("id bytes", 1, 1_024)
COLLECTION_NAME_CHARS = Bounds("collection name characters", 1, 255)

CHUNK_TOKENS = Limits("chunk tokens", 16, 200, 8_192)
CHUNK_OVERLAP_TOKENS = Limits("chunk overlap tokens", 0, 0, 4_096)
ENCODER_QUEUE_TOKENS = Limits("queue_tokens", 1, 1 << 18, 1 << 30)
"""Tokens that may wait for the encoder: half a minute of work for two slow processors."""

INGEST_FILE_BYTES = Bounds("file bytes", 0, 64 << 20)

ANSWER_K = Limits("k", 1, 3, 100)
"""More sources made the default decoder's answers worse: bench/notes/answering.md."""
ANSWER_TOKENS = Limits("max_tokens", 1, 160, 8_192)
GENERATED_TOKENS = Limits("max_tokens", 1, 256, 131_072)
TOP_K = Limits("top_k", 0, 0, 1_000_000)
CONTEXT_TOKENS = Limits("context_tokens", 16, 4_096, 100_000_000)

SEGMENT_ROWS = Limits("segment_rows", 1_000, 100_000, 100_000_000)
WAL_BYTES = Limits("wal_bytes", 1 << 20, 256 << 20, 1 << 40)
MAX_DISK_BYTES = Bounds("max_disk_bytes", 1 << 20, 1 << 60)
MAX_MEMORY_BYTES = Bounds("max_memory_bytes", 1 << 20, 1 << 60)
MIN_FREE_BYTES = Limits("min_free_bytes", 0, 64 << 20, 1 << 60)
SCRUB_SECONDS = Limits("scrub_seconds", 0, 86_400, 366 * 86_400)
"""From one reading of all files at rest to the next; 0 for never."""
SCRUB_BYTES_PER_SECOND = Limits("scrub_bytes_per_second", 1 << 16, 16 << 20, 1 << 40)
MESSAGE_BYTES = Limits("message bytes", 1 << 16, 64 << 20, 1 << 30)

BACKUPS_KEPT = Bounds("keep", 1, 1_000_000)

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
DEFAULT_DECODER = "SmolLM2-135M-Instruct"

DEFAULT_PORT = 7654
"""Where a server listens, and where a client looks, when no port is given."""
