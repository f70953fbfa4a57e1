"""What is fixed when a collection is made."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vecdb.config import (
    CODED_EF_CONSTRUCTION,
    COLLECTION_NAME_CHARS,
    DIM,
    HNSW_M,
    SEGMENT_ROWS,
    WAL_BYTES,
)
from vecdb.errors import CorruptFileError, InvalidNameError, shown
from vecdb.types import EncoderInfo, Metric

_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """The settings of a collection, kept in the catalog.

    Attributes
    ----------
    dim, metric
        Of its vectors.
    encoder
        The fingerprint of the model that makes vectors of its texts; None when it takes vectors
        only.
    m, ef_construction
        Of its graph indexes.
    segment_rows, wal_bytes
        The growing segment is sealed when it has this many rows, or the WAL this many bytes.
    """

    dim: int
    metric: Metric
    encoder: EncoderInfo | None = None
    m: int = HNSW_M.default
    ef_construction: int = CODED_EF_CONSTRUCTION.default
    segment_rows: int = SEGMENT_ROWS.default
    wal_bytes: int = WAL_BYTES.default

    def __post_init__(self) -> None:
        DIM.check(self.dim)
        HNSW_M.check(self.m)
        CODED_EF_CONSTRUCTION.check(self.ef_construction)
        SEGMENT_ROWS.check(self.segment_rows)
        WAL_BYTES.check(self.wal_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], where: str) -> CollectionSettings:
        """Read what `to_json` returned.

        Raises
        ------
        CorruptFileError
            If it is not of that form.
        """
        try:
            values = dict(entry)
            encoder = values.pop("encoder")
            return cls(
                metric=Metric(values.pop("metric")),
                encoder=None if encoder is None else EncoderInfo(**encoder),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{where}: does not describe a collection's settings ({error!r})"
            ) from error


def check_name(name: object) -> str:
    """Return the name of a collection.

    Raises
    ------
    InvalidNameError
        If it cannot be one.
    """
    longest = COLLECTION_NAME_CHARS.greatest
    if not isinstance(name, str) or len(name) > longest or not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"collection name {shown(name)}: must be 1 to {longest} letters, digits, '_', '-' or "
            "'.', beginning with a letter, a digit or '_'"
        )
    return name
