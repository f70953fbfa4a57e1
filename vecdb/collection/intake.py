"""What callers give, checked, embedded where it is text, and made batches and query vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.collection.batch import Batch, check_ids, check_payloads, check_text, check_texts
from vecdb.collection.budget import Budget
from vecdb.collection.chunks import chunk_batch, chunked_ids, stale_points
from vecdb.collection.segments import Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.config import BATCH_ROWS
from vecdb.encode import Encoder
from vecdb.errors import (
    EmptyBatchError,
    InvalidArgumentError,
    InvalidParameterError,
    InvalidTextError,
    LengthMismatchError,
    shown,
)
from vecdb.index import as_matrix
from vecdb.models import Models
from vecdb.types import LongText, Matrix, MatrixLike, Payload, PointId, VectorLike, is_single


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A batch ready to be written.

    Attributes
    ----------
    batch
        What is written.
    truncated
        The ids of texts of which only the first tokens were embedded.
    embedded
        The ids under which texts were given to be embedded: what earlier texts left under them has
        to go.
    chunked
        Whether these were written as chunks.
    """

    batch: Batch
    truncated: list[PointId] = field(default_factory=list)
    embedded: list[PointId] = field(default_factory=list)
    chunked: bool = False


class Intake:
    """Checks what is given to one collection.

    Parameters
    ----------
    name, settings, models, segments, budget
        Those of the collection.
    """

    def __init__(
        self, name: str, settings: CollectionSettings, models: Models, segments: Segments,
        budget: Budget,
    ) -> None:  # fmt: skip
        self._name = name
        self._settings = settings
        self._models = models
        self._segments = segments
        self._budget = budget

    def encoder(self) -> Encoder:
        """Return the collection's encoder.

        Raises
        ------
        InvalidArgumentError
            If the collection has none.
        """
        if self._settings.encoder is None:
            raise InvalidArgumentError(
                f"collection {self._name!r} has no encoder, so it takes vectors and no texts: pass "
                "vectors, or create a collection with encoder='all-MiniLM-L6-v2'"
            )
        return self._models.encoder_of(self._settings.encoder)

    # Points

    def prepare(
        self,
        ids: Iterable[PointId],
        texts: Sequence[str | None] | None,
        vectors: MatrixLike | None,
        payloads: Sequence[Payload | None] | None,
        long_text: LongText | str,
    ) -> Prepared:
        """Return what `Collection.upsert` is to write.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        DiskLimitError, MemoryLimitError
            If the data directory may not grow; looked at before any text is embedded.
        """
        chosen = _long_text(long_text)
        checked = check_ids(ids)
        encoded = check_payloads(payloads, checked)
        if vectors is not None:
            kept_texts = check_texts(texts, len(checked), required=False)
            matrix = self._vectors(vectors, len(checked))
            return Prepared(Batch(checked, matrix, kept_texts, encoded))
        required = _required(texts, len(checked))
        return self._prepare_texts(checked, required, encoded, chosen)

    def _prepare_texts(
        self,
        ids: list[PointId],
        texts: list[str],
        payloads: list[bytes | None],
        long_text: LongText,
    ) -> Prepared:
        encoder = self.encoder()
        self._budget.check()
        embedded, chunked = ids, long_text is LongText.CHUNK
        if chunked:
            ids, texts, payloads = chunk_batch(ids, texts, payloads, encoder.split)
        encoded = encoder.encode(texts)
        truncated = [ids[i] for i in np.flatnonzero(encoded.truncated).tolist()]
        if truncated and long_text is LongText.ERROR:
            raise InvalidTextError(
                f"the text of id {truncated[0]!r:.100} is longer than the {encoder.max_tokens} "
                "tokens of the encoder: shorten it, or pass long_text='truncate' or 'chunk'"
            )
        batch = Batch(ids, encoded.vectors, list(texts), payloads)
        return Prepared(batch, truncated, embedded, chunked)

    def stale(self, prepared: Prepared) -> list[PointId]:
        """Return the ids of points that earlier texts left and that are not written again."""
        ids = prepared.embedded
        if not prepared.chunked:
            ids = chunked_ids(self._segments, ids)
        return stale_points(self._segments, ids, prepared.batch.ids)

    # Queries

    def query(self, text: str | None, vector: VectorLike | None) -> Matrix:
        """Return the query vector (1, dim) that a text or a vector is.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        """
        if (text is None) == (vector is None):
            raise InvalidArgumentError("search takes either a query text or a vector=: give one")
        if text is not None:
            return self._embed([text])
        matrix = self._matrix(vector, "vector")
        if len(matrix) != 1:
            raise InvalidArgumentError(
                f"vector has {len(matrix)} rows: must be one vector; search_batch takes more"
            )
        return matrix

    def queries(self, texts: Sequence[str] | None, vectors: MatrixLike | None) -> Matrix:
        """Return the query vectors (n, dim) that texts or vectors are.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        """
        if (texts is None) == (vectors is None):
            raise InvalidArgumentError("search_batch takes either queries or vectors=: give one")
        if texts is None:
            matrix = self._matrix(vectors, "vectors")
        else:
            if is_single(texts):
                raise InvalidTextError(
                    f"queries is a {type(texts).__name__}: must be a sequence of str"
                )
            given = list(texts)
            if not given:
                raise EmptyBatchError("queries is empty: give at least one")
            matrix = self._embed(given)
        if len(matrix) > BATCH_ROWS.greatest:
            raise InvalidParameterError(
                f"{len(matrix)} queries: at most {BATCH_ROWS.greatest} in one batch"
            )
        return matrix

    def _embed(self, texts: Sequence[Any]) -> Matrix:
        checked = [check_text(text, f"queries[{i}]") for i, text in enumerate(texts)]
        return self.encoder().encode(checked).vectors

    def _matrix(self, vectors: Any, name: str) -> Matrix:
        return as_matrix(vectors, self._settings.dim, self._settings.metric, name=name)

    def _vectors(self, vectors: Any, count: int) -> Matrix:
        matrix = self._matrix(vectors, "vectors")
        if len(matrix) != count:
            raise LengthMismatchError(
                f"vectors has {len(matrix)} rows and ids has {count}: must be as many"
            )
        return matrix


def _required(texts: Sequence[str | None] | None, count: int) -> list[str]:
    if texts is None:
        raise EmptyBatchError("neither texts nor vectors were given: give one of them")
    return [str(text) for text in check_texts(texts, count, required=True)]


def _long_text(value: LongText | str) -> LongText:
    try:
        return LongText(value)
    except ValueError:
        names = ", ".join(LongText)
        raise InvalidParameterError(f"long_text={shown(value)}: must be one of {names}") from None
