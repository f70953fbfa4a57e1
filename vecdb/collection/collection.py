"""A collection: points under ids, searched by vector or text, filtered, answered from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from vecdb.answer import Answer
from vecdb.collection.batch import Batch, check_ids, check_text
from vecdb.collection.budget import Budget, Usage, unlimited
from vecdb.collection.bulk import BulkLoad
from vecdb.collection.chunks import still_stale
from vecdb.collection.claims import Claims
from vecdb.collection.commit import CommitQueue, Write
from vecdb.collection.draft import Draft
from vecdb.collection.footprint import Footprint
from vecdb.collection.growing import ROW_BYTES
from vecdb.collection.holds import StoppedError
from vecdb.collection.inherited import Inherited
from vecdb.collection.intake import Intake, Prepared
from vecdb.collection.maintenance import Maintenance
from vecdb.collection.recovery import open_collection
from vecdb.collection.scrub import Scrub, ScrubReport, Throttle
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.snapshot import Condition, hits_of
from vecdb.collection.stored import StoredSegment
from vecdb.collection.turns import Turns
from vecdb.collection.versions import Versions
from vecdb.config import ANSWER_K, ANSWER_TOKENS, COLLECTION_EF, K
from vecdb.decode import GenerationParams
from vecdb.errors import (
    ClosedError,
    CollectionNotFoundError,
    InvalidArgumentError,
    MessageTooLargeError,
    StorageIOError,
    VecdbError,
)
from vecdb.interrupts import unless_interrupted, whole
from vecdb.models import Models
from vecdb.rag import AnswerOptions, CollectionRetriever, answer
from vecdb.storage import (
    RECORD_BYTES_LIMIT,
    Delete,
    Store,
    Upsert,
    encode_operation,
)
from vecdb.types import (
    CollectionInfo,
    Filter,
    Hit,
    HitColumns,
    LongText,
    Matrix,
    MatrixLike,
    Payload,
    PointId,
    Record,
    UpsertResult,
    VectorLike,
)

_CORES = os.cpu_count() or 1


class Collection:
    """One collection of an embedded database; made by `Database`.

    Every method may be called from several threads at once. A read sees every write that was
    acknowledged before it began, and nothing that happens after that.

    Parameters
    ----------
    name
        What it is called.
    settings
        What was fixed when it was made.
    store
        Where its files lie; locked by the caller.
    models
        Where encoder and decoder come from.
    budget
        What it may take of disk and memory, together with others; None for no limits.
    """

    def __init__(
        self, name: str, settings: CollectionSettings, store: Store, models: Models,
        budget: Budget | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.settings = settings
        self._models = models
        self._budget = budget or unlimited()
        self._store = store
        self._gone: VecdbError | None = None  # why it answers no more; its files may be another's
        opened = open_collection(store, settings)
        self._segments, self._wal = opened.segments, opened.wal
        turns = Turns()
        self._commits = CommitQueue(self._wal, turns)
        self._claims = Claims()
        versions = Versions(
            store, opened.manifests, self._wal, self._segments, opened.stored, opened.on_disk,
            settings,
        )  # fmt: skip
        self._footprint = Footprint(self._segments, self._wal, versions, settings)
        self._maintenance = Maintenance(
            store, versions, self._segments, self._wal, turns, settings, index_threads=_CORES,
            is_full=self._budget.is_full,
        )  # fmt: skip
        self._intake = Intake(name, settings, models, self._segments, self._budget)

    @property
    def maintenance(self) -> Maintenance:
        """What keeps its segments few, indexed and on disk."""
        return self._maintenance

    @property
    def footprint(self) -> Footprint:
        """What it takes of disk and memory."""
        return self._footprint

    def seal_if_due(self) -> bool:
        """Write what is in memory to a segment, gently, if it is time to; return whether it was."""
        if not self._maintenance.seal_is_due() and not self._seal_gives_room():
            return False
        self._maintenance.seal(gently=True)
        return True

    def _seal_gives_room(self) -> bool:
        """Return whether little is left of what may be taken, and a seal would give some back."""
        if self._budget.is_tight(self._segments.memory_bytes):
            return True
        # Rows that live take as much in a segment as in the log.
        return self._segments.growing_dead > 0 and self._budget.is_filled_by(self._wal.size_bytes)

    def info(self) -> CollectionInfo:
        """Return its settings and size, and what runs in its background."""
        self._check_there()
        snapshot, memory_bytes = self._segments.snapshot, self._footprint.memory_bytes
        return CollectionInfo(
            name=self.name,
            dim=self.settings.dim,
            metric=self.settings.metric,
            encoder=self.settings.encoder,
            count=snapshot.live,
            segments=sum(part.rows.count > 0 for part in snapshot.parts),
            indexed=sum(part.live for part in snapshot.parts if part.rows.is_indexed),
            disk_bytes=self._footprint.disk_bytes,
            quarantined=(*self._maintenance.stored.quarantined, *snapshot.damaged),
            closed_segments=self._maintenance.versions.segment_infos(snapshot),
            growing_rows=snapshot.growing.rows.count,
            log_bytes=self._wal.size_bytes,
            work=self._maintenance.progress.work,
            memory_bytes=memory_bytes,
        )

    # Writing

    def upsert(
        self,
        ids: Iterable[PointId],
        texts: Sequence[str | None] | None = None,
        vectors: MatrixLike | None = None,
        payloads: Sequence[Payload | None] | None = None,
        *,
        long_text: LongText | str = LongText.TRUNCATE,
    ) -> UpsertResult:
        """Write points, in place of those that have the same ids; durable when this returns.

        Parameters
        ----------
        ids
            Ints from 0 to 2**64 - 1, or str; none of them twice.
        texts
            One for each id. Without `vectors` they are embedded, by the collection's encoder;
            with `vectors` they are only kept, and may be None.
        vectors
            float32 (n, dim).
        payloads
            A JSON object or None for each id.
        long_text
            What to do with a text over the encoder's token limit: ``truncate`` (the default)
            embeds what fits and names the id in the result; ``chunk`` writes each text as one or
            more points ``"<id>#<n>"``, whose payload tells in ``chunk`` where it was cut, a field
            that `payloads` must not have then; ``error`` refuses the batch. An embedded text takes
            the place of the earlier one of its id, whether that is one point or chunks; points
            with `vectors` leave chunks alone.

        Returns
        -------
        UpsertResult
            The ids written, and those whose text was truncated.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses, naming what is wrong; nothing of the batch is applied.
        DiskLimitError, MemoryLimitError
            If the data directory may not grow; likewise.
        DiskFullError
            Likewise.
        ReadOnlyError, StorageIOError
            If the disk failed, now or earlier.
        """
        prepared = self._intake.prepare(ids, texts, vectors, payloads, long_text)
        return self._write_texts(prepared) if prepared.embedded else self._write(prepared)

    @whole
    def _write_texts(self, prepared: Prepared) -> UpsertResult:
        with self._claims.on(prepared.embedded):
            return self._write(prepared, self._intake.stale(prepared))

    @whole
    def _write(self, prepared: Prepared, stale: Sequence[PointId] = ()) -> UpsertResult:
        """Write a batch and delete `stale` points, in one step."""
        batch = prepared.batch
        texts = batch.texts if batch.has_texts else None
        payloads = batch.payloads if batch.has_payloads else None
        upsert = Upsert(batch.ids, batch.vectors, texts, payloads, stale)
        record = encode_operation(upsert)
        if len(record[1]) > RECORD_BYTES_LIMIT:  # alone, not with the group it would be written in
            raise MessageTooLargeError(
                f"the batch takes {len(record[1])} bytes in the log, at most {RECORD_BYTES_LIMIT} "
                "are possible: split it"
            )

        def encode() -> tuple[int, bytes]:
            nonlocal stale
            if not stale:
                return record
            # Runs when no other write can come between this look and the deletion.
            found, stale = stale, still_stale(self._segments, prepared.embedded, stale)
            if len(stale) == len(found):
                return record
            return encode_operation(replace(upsert, deleted=stale))

        def apply(sequence: int) -> int:
            self._segments.upsert(batch, sequence, stale)
            return len(batch.ids)

        size, rows = len(record[1]), len(batch.ids)
        with self._budget.growth(Usage(size, size + ROW_BYTES * rows), self._footprint, rows):
            self._commit(Write(encode, apply, alone=bool(stale)))
        return UpsertResult(batch.ids, prepared.truncated)

    def bulk(self) -> BulkLoad:
        """Begin to load many points at once, without the log: faster, and all or nothing.

        Returns
        -------
        BulkLoad
            Takes points inside a ``with`` block; they appear together when that ends without an
            error, durably, in place of those that have the same ids.

        Raises
        ------
        DiskLimitError, MemoryLimitError, DiskFullError, ReadOnlyError, StorageIOError
            As `upsert`, when points are added or the block ends; nothing of the load stays then.

        Examples
        --------
        >>> with points.bulk() as load:                     # doctest: +SKIP
        ...     for ids, vectors in batches:
        ...         load.add(ids, vectors=vectors)
        """
        self._check_there()
        return BulkLoad(
            self.settings, self._maintenance.versions, self._maintenance.sealing, self._budget,
            self._footprint, self._bulk_batch, self._adopt, self._saying_why,
        )  # fmt: skip

    @whole
    def _adopt(self, draft: Draft, loaded: Sequence[StoredSegment]) -> None:
        self._commits.refuse_if_stopped()
        try:
            with self._saying_why():
                self._maintenance.sealing.adopt(draft, loaded)
        except StorageIOError as error:
            self.stop_writing(error)
            raise

    def _bulk_batch(
        self,
        ids: Iterable[PointId],
        texts: Sequence[str | None] | None,
        vectors: MatrixLike | None,
        payloads: Sequence[Payload | None] | None,
    ) -> Batch:
        self._commits.refuse_if_stopped()
        return self._intake.prepare(ids, texts, vectors, payloads, LongText.TRUNCATE).batch

    def delete(self, ids: Iterable[PointId] | None = None, filter: Filter | None = None) -> int:
        """Delete points by id, or all those that match a filter; durable when this returns.

        The chunks of a long text are points of their own: ``filter={"chunk.of": id}`` deletes them.

        Returns
        -------
        int
            How many points there were to delete.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses; nothing is deleted.
        DiskFullError, ReadOnlyError, StorageIOError
            As for `upsert`.
        """
        if (ids is None) == (filter is None):
            raise InvalidArgumentError("delete takes either ids or a filter: give one of them")
        if filter is not None:
            return self._delete_matching(Condition.of(filter))
        assert ids is not None  # for the type checker
        return self._delete(check_ids(ids))

    def _delete(self, ids: list[PointId]) -> int:
        record = encode_operation(Delete(ids))
        return self._commit(
            Write(lambda: record, lambda sequence: self._segments.delete(ids, sequence))
        )

    def _delete_matching(self, condition: Condition) -> int:
        matching: list[PointId] = []

        def encode() -> tuple[int, bytes] | None:
            # Runs when no other write can come between the look and the deletion.
            matching.extend(self._segments.snapshot.matching_ids(condition))
            return encode_operation(Delete(matching)) if matching else None

        return self._commit(
            Write(encode, lambda sequence: self._segments.delete(matching, sequence), alone=True)
        )

    @whole
    def _commit(self, write: Write) -> int:
        self._maintenance.versions.check_whole()
        result = self._commits.run(write)
        self._maintenance.note_write()
        return result

    def flush(self) -> None:
        """Seal what has been written and wait until every segment is merged and indexed.

        Nothing needs this to be safe or found; it makes the next searches as fast as they get.
        """
        with self._saying_why():
            unless_interrupted(self._maintenance.finish)

    # Reading

    def _check_there(self) -> None:
        """Refuse to answer from files that are not ours any more.

        Raises
        ------
        ClosedError, CollectionNotFoundError
        """
        gone = self._gone
        if gone is not None:
            raise type(gone)(str(gone))

    @contextmanager
    def _saying_why(self) -> Iterator[None]:
        """Say of a step that was given up whether the collection was closed or dropped."""
        try:
            yield
        except StoppedError:
            self._check_there()
            raise

    def search(
        self,
        query: str | None = None,
        *,
        vector: VectorLike | None = None,
        k: int = K.default,
        filter: Filter | None = None,
        ef: int | None = None,
    ) -> list[Hit]:
        """Find the points nearest to a text or a vector.

        Parameters
        ----------
        query
            A text, embedded by the collection's encoder, or
        vector
            float32 (dim,).
        k
            How many points to return; fewer come only when fewer match.
        filter
            Conditions on the payload; see `vecdb.payload.filter`.
        ef
            How widely the graph is searched: more finds more of the true nearest, slower.

        Returns
        -------
        list of Hit
            Best first.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses, naming what is wrong.
        """
        self._check_there()
        matrix = self._intake.query(query, vector)
        return hits_of(self._search(matrix, k, filter, ef)[0])

    def search_batch(
        self,
        queries: Sequence[str] | None = None,
        *,
        vectors: MatrixLike | None = None,
        k: int = K.default,
        filter: Filter | None = None,
        ef: int | None = None,
    ) -> list[list[Hit]]:
        """Find the points nearest to each of several texts or vectors; see `search`."""
        columns = self.search_columns(queries, vectors=vectors, k=k, filter=filter, ef=ef)
        return [hits_of(each) for each in columns]

    def search_columns(
        self,
        queries: Sequence[str] | None = None,
        *,
        vectors: MatrixLike | None = None,
        k: int = K.default,
        filter: Filter | None = None,
        ef: int | None = None,
    ) -> list[HitColumns]:
        """Do what `search_batch` does, and leave the results in the form a server sends."""
        self._check_there()
        return self._search(self._intake.queries(queries, vectors), k, filter, ef)

    def _search(
        self, queries: Matrix, k: int, filter: Filter | None, ef: int | None
    ) -> list[HitColumns]:
        k = K.check(k)
        COLLECTION_EF.check(ef)
        condition = None if filter is None else Condition.of(filter)
        threads = min(_CORES, len(queries))
        self._maintenance.note_search()
        return self._segments.snapshot.search(queries, k, condition, ef, threads)

    def get(self, ids: Iterable[PointId]) -> list[Record]:
        """Return the points of those ids that there are, in that order, vectors as written."""
        self._check_there()
        return self._segments.get(check_ids(ids))

    def count(self, filter: Filter | None = None) -> int:
        """Return how many points there are, or how many match a filter."""
        self._check_there()
        condition = None if filter is None else Condition.of(filter)
        return self._segments.snapshot.count(condition)

    def ask(
        self,
        question: str,
        *,
        k: int = ANSWER_K.default,
        filter: Filter | None = None,
        max_tokens: int = ANSWER_TOKENS.default,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Answer:
        """Answer a question from the collection's texts, citing them.

        Parameters
        ----------
        question
            In words.
        k
            How many passages to look at.
        filter
            Which points may be used.
        max_tokens
            How long the answer may become.
        temperature
            0 for the likeliest words; more for more variety.
        seed
            Makes a varied answer repeatable.

        Returns
        -------
        Answer
            Iterate over it for the text as it is written; then read `citations`.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        MissingDependencyError, DecoderError, UnavailableError
            If the decoder cannot be had.
        """
        self._check_there()
        check_text(question, "question")
        self._intake.encoder()
        params = GenerationParams(
            max_tokens=ANSWER_TOKENS.check(max_tokens), temperature=temperature, seed=seed
        )
        options = AnswerOptions(k=ANSWER_K.check(k), filter=filter)
        retriever = CollectionRetriever(self, self.settings.metric)
        return Answer(answer(question, retriever, self._models.chat(), params, options))

    def scrub(self, throttle: Throttle) -> ScrubReport:
        """Read every file again, as fast as `throttle` lets it, and put right what can be."""
        self._check_there()
        with self._saying_why():
            return Scrub(self._store, self._maintenance, self._wal, throttle).run()

    @property
    def is_read_only(self) -> bool:
        """Whether writes are refused: data is damaged, the disk failed, or it was closed."""
        return self._commits.refusal is not None or bool(self._segments.snapshot.damaged)

    def stop_writing(self, error: VecdbError) -> None:
        """Take no more writes, because background work found that the disk fails."""
        self._commits.stop(error)

    def disown(self, inherited: Inherited) -> None:
        """Refuse everything from now on: this process was forked from the one that opened it."""
        for part in vars(self).keys() - {"name", "settings", "_gone"}:
            setattr(self, part, inherited)
        self._gone = inherited.refusal

    @whole
    def close(self, *, dropped: bool = False) -> None:
        """Stop answering; background work is given up, and done again when next opened."""
        gone: VecdbError = ClosedError("the database was closed: connect again")
        if dropped:
            gone = CollectionNotFoundError(f"collection {self.name!r} was dropped")
        self._gone = gone
        self._commits.close(gone)
        self._maintenance.stop()
        self._wal.close()
