"""The values that cross vecdb's public surface, shared by the engine and the client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One vector, shape (dim,)."""

Matrix = NDArray[np.float32]
"""Vectors as rows, shape (n, dim), C-contiguous."""

PointId = int | str
"""An int in [0, 2**64) or a non-empty str; ``1`` and ``"1"`` are different ids."""

Payload = dict[str, Any]
"""A JSON object."""

Filter = Mapping[str, Any]
"""Conditions on payload fields, as described in `vecdb.payload.filter`."""


def is_single(value: object) -> bool:
    """Return whether this is one value where several are due: a str is one, and no sequence."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return True
    return isinstance(value, np.ndarray) and value.ndim == 0


class Metric(StrEnum):
    """How two vectors are compared, and what a hit's score is.

    ======== ============================ ==============
    metric   score                        best hits have
    ======== ============================ ==============
    cosine   cosine of the angle, [-1, 1] the highest
    dot      inner product                the highest
    l2       Euclidean distance           the lowest
    ======== ============================ ==============

    Products and squared differences are float32: under dot and l2, those below about 1e-38 lose
    digits and are hardly told apart. So vectors with coordinates below 1e-18 are to be scaled up.
    """

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class LongText(StrEnum):
    """What to do with a text that is longer than the encoder's token limit."""

    TRUNCATE = "truncate"
    CHUNK = "chunk"
    ERROR = "error"


class Hit(NamedTuple):
    """One result of a search; hits come best first."""

    id: PointId
    score: float
    text: str | None = None
    payload: Payload | None = None


class HitColumns(NamedTuple):
    """The hits of one query, best first, as columns: entry i of each belongs to the i-th hit.

    Payloads are JSON in UTF-8, as they are stored: the engine makes objects of them for a caller
    in its process, and the server sends them on as they are.
    """

    ids: list[PointId]
    scores: list[float]
    texts: list[str | None]
    payloads: list[bytes | None]


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One stored point as `get` returns it; `vector` is the one written, unnormalised."""

    id: PointId
    vector: Vector
    text: str | None = None
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What an acknowledged upsert did.

    Attributes
    ----------
    ids
        The ids written: those given, or, for texts that were chunked, ``"<id>#<n>"``.
    truncated
        The ids whose text was over the encoder's limit and was embedded only up to it.
    """

    ids: list[PointId]
    truncated: list[PointId] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Everything that decides which vector a text gets; stored with a collection and compared."""

    model: str
    weights_sha256: str
    tokenizer_sha256: str
    pooling: str
    prefix: str
    normalized: bool
    dim: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A part of a collection that is damaged, and therefore not served.

    Attributes
    ----------
    part
        ``segment 3`` or ``log``.
    files
        Its files, relative to the data directory's folder of the collection.
    reason
        What is wrong with it.
    points
        How many points (of a log: how many writes) it held; None when that cannot be told.
    accepted
        Whether its loss was accepted with `vecdb check --repair`. Until then a search raises
        `vecdb.errors.QuarantinedError` and nothing is written.
    """

    part: str
    files: tuple[str, ...]
    reason: str
    points: int | None = None
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment that takes no more rows.

    Attributes
    ----------
    rows, live_rows
        How many it has, and how many of them were neither deleted nor written again.
    disk_bytes
        Of its files; 0 while it is being written.
    indexed
        Whether its graph index is searched, and not every row.
    """

    rows: int
    live_rows: int
    disk_bytes: int
    indexed: bool


class WorkKind(StrEnum):
    """What is done in the background of a collection."""

    SEAL = "seal"
    """Writing the growing segment to disk."""
    MERGE = "merge"
    """Making one segment of several, or of one with many dead rows, and indexing it."""
    INDEX = "index"
    """Building the graph index of a segment that has none."""


@dataclass(frozen=True, slots=True)
class Work:
    """Background work that runs now: on how many rows, and which share of it is done."""

    kind: WorkKind
    rows: int
    done: float


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection's settings and size."""

    name: str
    dim: int
    metric: Metric
    encoder: EncoderInfo | None
    count: int
    segments: int
    indexed: int
    """How many points lie in segments whose graph index is ready; the rest are searched exactly."""
    disk_bytes: int
    quarantined: tuple[Quarantine, ...] = ()
    """What is damaged and not served, its loss accepted or not."""
    closed_segments: tuple[SegmentInfo, ...] = ()
    """The segments that take no more rows, oldest first; `segments` counts the growing one too."""
    growing_rows: int = 0
    """Rows written since, deleted ones included: in memory and in the log."""
    log_bytes: int = 0
    """The length of the write-ahead log; a part of `disk_bytes`."""
    work: tuple[Work, ...] = ()
    """What runs in the background now."""
    memory_bytes: int = 0
    """About what the points take that are in no segment file yet; mapped files are not counted."""


@dataclass(frozen=True, slots=True)
class Source:
    """A passage put before the decoder, with the number it has in the prompt (from 1)."""

    number: int
    id: PointId
    score: float
    text: str
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """What one stretch of an answer rests on.

    Attributes
    ----------
    source
        The cited source's number in the prompt, from 1.
    id
        The id of the cited point.
    start, end
        The span of the answer's text that the citation stands behind, in characters.
    chunk_start, chunk_end
        The span of the point's text that supports it best, in characters.
    score
        How well that span supports it, from 0 to 1: the weighted share of the answer span's
        content words that it holds; see `vecdb.rag.cite`.
    """

    source: int
    id: PointId
    start: int
    end: int
    chunk_start: int
    chunk_end: int
    score: float


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    NO_SOURCE = "no_source"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """What is known once an answer's text is complete."""

    citations: list[Citation]
    sources: list[Source]
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in a server's memory, and what really executes it."""

    name: str
    provider: str


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """One backup of a directory of backups.

    Attributes
    ----------
    number
        Counted from 1 in its directory, and never used twice there.
    taken
        When it was complete, in UTC; None when that cannot be read.
    points
        How many points each collection has in it.
    files, bytes
        What all of it takes, shared with other backups of the directory.
    new_files, new_bytes
        What had to be copied for it, because no earlier backup had it.
    damage
        Why it cannot be restored; None for a sound one.
    """

    number: int
    taken: datetime | None
    points: dict[str, int]
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself; `decoder` is None until one is loaded."""

    version: str
    encoders: list[LoadedModel]
    decoder: LoadedModel | None


VectorLike = NDArray[Any] | Sequence[float]
"""What a caller may pass as one vector: float32, or anything exactly convertible to it by value."""

MatrixLike = NDArray[Any] | Sequence[Sequence[float]]
"""What a caller may pass as several vectors."""
