"""Every call of the API, defined once: what is sent, and what is made of the response.

A function here takes what the caller of `Client` or `AsyncClient` gave and returns a `Call`. The
two clients differ only in how they send it and wait for it.

Arguments are checked here only as far as the message needs; the server's engine judges the rest,
so that both doors refuse with the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from vecdb.config import ANSWER_K, ANSWER_TOKENS, K
from vecdb.errors import InvalidArgumentError, InvalidNameError, InvalidParameterError
from vecdb.types import (
    AnswerEnd,
    BackupInfo,
    CollectionInfo,
    Filter,
    Hit,
    LongText,
    Matrix,
    MatrixLike,
    Metric,
    Payload,
    PointId,
    Record,
    ServerInfo,
    UpsertResult,
    VectorLike,
)
from vecdb_client import _arguments as arguments
from vecdb_proto import admin_codec, codec
from vecdb_proto.v1 import vecdb_pb2 as pb

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One remote call, ready to be sent.

    Attributes
    ----------
    rpc
        The call's name in the service.
    request, parse
        The message to send, and what turns the message (each message of a stream) that comes
        back into the result.
    timeout
        Seconds until the deadline; None for the client's default.
    long
        Whether the client's `long_timeout` is that default: the call may build an index, fetch
        a model or write an answer.
    """

    rpc: str
    request: Message
    parse: Callable[[Any], T_co]
    timeout: float | None = None
    long: bool = False


def ping(*, timeout: float | None = None) -> Call[None]:
    """Do nothing on the server; raises as every call does when it cannot be reached."""
    return Call("Ping", pb.PingRequest(), _nothing, timeout)


def server_info(*, timeout: float | None = None) -> Call[ServerInfo]:
    """Return the server's version, and which models it has loaded on which device."""
    return Call("GetServerInfo", pb.GetServerInfoRequest(), admin_codec.server_info_value, timeout)


def create_collection(
    name: str,
    *,
    dim: int | None = None,
    metric: Metric | str = Metric.COSINE,
    encoder: str | None = None,
    m: int | None = None,
    ef_construction: int | None = None,
    timeout: float | None = None,
) -> Call[str]:
    """Create a collection and return it.

    Parameters
    ----------
    name
        Its name.
    dim
        The vectors' dimension; the encoder's when one is given.
    metric
        ``"cosine"``, ``"dot"`` or ``"l2"``.
    encoder
        The model that embeds texts; without one the collection takes vectors only.
    m, ef_construction
        Of its graph indexes; see `vecdb.index.HnswIndex`.
    timeout
        Seconds until `vecdb.errors.DeadlineExceededError`.

    Raises
    ------
    CollectionExistsError, InvalidNameError, InvalidParameterError, ModelNotFoundError
    """
    request = pb.CreateCollectionRequest(
        name=arguments.collection_name(name),
        dim=arguments.integer("dim", dim),
        metric=codec.METRICS[arguments.member(Metric, metric, "metric")],
        encoder=None
        if encoder is None
        else arguments.text(encoder, "an encoder's name", InvalidParameterError),
        m=arguments.integer("m", m),
        ef_construction=arguments.integer("ef_construction", ef_construction),
    )
    return Call("CreateCollection", request, lambda _: name, timeout, long=True)


def collection(name: str, *, timeout: float | None = None) -> Call[str]:
    """Return the collection of that name.

    Raises
    ------
    CollectionNotFoundError
    """
    request = pb.GetCollectionRequest(name=arguments.collection_name(name))
    return Call("GetCollection", request, lambda _: name, timeout)


def list_collections(*, timeout: float | None = None) -> Call[list[str]]:
    """Return the names of all collections, in alphabetical order."""
    return Call("ListCollections", pb.ListCollectionsRequest(), lambda r: list(r.names), timeout)


def drop_collection(name: str, *, timeout: float | None = None) -> Call[None]:
    """Delete a collection and everything in it.

    Raises
    ------
    CollectionNotFoundError
    """
    request = pb.DropCollectionRequest(name=arguments.collection_name(name))
    return Call("DropCollection", request, _nothing, timeout)


def backup(
    directory: str, *, keep: int | None = None, timeout: float | None = None
) -> Call[BackupInfo]:
    """Add a backup of everything to a directory of backups, while reads and writes go on.

    Of each collection it holds one moment, after every write that was acknowledged before the
    call. What an earlier backup in the directory has is not copied again.

    Parameters
    ----------
    directory
        A name below the directory that the server was started with for backups: 1 to 100 ASCII
        letters, digits, ``_``, ``-`` or ``.``, beginning with a letter, a digit or ``_``.
    keep
        Delete all but the newest `keep` backups afterwards; None keeps all.
    timeout
        Seconds until `vecdb.errors.DeadlineExceededError`; the backup is then given up, and what
        was copied is not copied again.

    Raises
    ------
    FailedPreconditionError
        If the server was started without a directory for backups.
    InvalidNameError, DataLossError, DirectoryLockedError, DiskFullError
    """
    request = pb.BackupRequest(
        name=arguments.text(directory, "a backup's name", InvalidNameError),
        keep=arguments.integer("keep", keep),
    )
    return Call("Backup", request, lambda r: admin_codec.backup_value(r.backup), timeout, long=True)


def list_backups(directory: str, *, timeout: float | None = None) -> Call[list[BackupInfo]]:
    """Return the backups in a directory, oldest first; a damaged one says so."""
    request = pb.ListBackupsRequest(
        name=arguments.text(directory, "a backup's name", InvalidNameError)
    )
    return Call(
        "ListBackups",
        request,
        lambda r: [admin_codec.backup_value(one) for one in r.backups],
        timeout,
    )


def info(collection: str, *, timeout: float | None = None) -> Call[CollectionInfo]:
    """Return the collection's settings and size, and what runs in its background."""
    request = pb.GetCollectionRequest(name=collection)
    return Call("GetCollection", request, lambda r: admin_codec.info_value(r.info), timeout)


def upsert(
    collection: str,
    ids: Iterable[PointId],
    texts: Sequence[str | None] | None = None,
    vectors: MatrixLike | None = None,
    payloads: Sequence[Payload | None] | None = None,
    *,
    long_text: LongText | str = LongText.TRUNCATE,
    timeout: float | None = None,
) -> Call[UpsertResult]:
    """Write points, replacing those with the same ids: all of them, or, on an error, none.

    Parameters
    ----------
    ids
        One int in [0, 2**64) or str for each point, none twice.
    texts
        One for each id; a collection with an encoder embeds them. Where points come with vectors
        a text may be None.
    vectors
        float32, shape (n, dim).
    payloads
        One JSON object, or None, for each id.
    long_text
        What to do with a text over the encoder's limit: ``"truncate"``, ``"chunk"`` (each text is
        written as points ``"<id>#<n>"``; no payload may have a field ``chunk`` then) or
        ``"error"``. An embedded text takes the place of the earlier one of its id, whether that
        is one point or chunks.
    timeout
        Seconds until `vecdb.errors.DeadlineExceededError`.

    Raises
    ------
    InvalidArgumentError
        A subclass for each thing that can be wrong with the batch.
    MessageTooLargeError
        If the batch is over the message limit: split it.
    """
    request = pb.UpsertRequest(
        collection=collection,
        ids=codec.ids_message(ids),
        texts=None if texts is None else arguments.texts_message(texts),
        vectors=None if vectors is None else codec.vectors_message(arguments.matrix(vectors)),
        payloads=None if payloads is None else arguments.payloads_message(payloads),
        long_text=codec.LONG_TEXTS[arguments.member(LongText, long_text, "long_text")],
    )
    return Call("Upsert", request, codec.upsert_result_value, timeout)


def search(
    collection: str,
    query: str | None = None,
    *,
    vector: VectorLike | None = None,
    k: int = K.default,
    filter: Filter | None = None,
    ef: int | None = None,
    timeout: float | None = None,
) -> Call[list[Hit]]:
    """Return the `k` points nearest to a text or a vector, best first.

    Parameters
    ----------
    query
        A text, for a collection with an encoder.
    vector
        float32, shape (dim,); instead of `query`.
    k
        How many. Fewer come back only when fewer points match.
    filter
        Conditions on the payloads, as `vecdb.payload.filter` describes them.
    ef
        How widely the graph is searched: higher finds more of the true nearest, slower.
    timeout
        Seconds until `vecdb.errors.DeadlineExceededError`.
    """
    if (query is None) == (vector is None):
        raise InvalidArgumentError("search takes either a query text or a vector=: give one")
    request = _search_request(
        collection,
        None if query is None else [arguments.text(query, "query")],
        None if vector is None else arguments.one_row(vector),
        k,
        filter,
        ef,
    )
    return Call("Search", request, _first_hits, timeout)


def search_batch(
    collection: str,
    queries: Sequence[str] | None = None,
    *,
    vectors: MatrixLike | None = None,
    k: int = K.default,
    filter: Filter | None = None,
    ef: int | None = None,
    timeout: float | None = None,
) -> Call[list[list[Hit]]]:
    """Return what `search` returns, for each of several texts or rows of `vectors`."""
    rows = None if vectors is None else arguments.matrix(vectors)
    request = _search_request(collection, queries, rows, k, filter, ef)
    return Call("Search", request, _all_hits, timeout)


def get(
    collection: str, ids: Iterable[PointId], *, timeout: float | None = None
) -> Call[list[Record]]:
    """Return the points with these ids, in their order; unknown ids are left out."""
    request = pb.GetRequest(collection=collection, ids=codec.ids_message(ids))
    return Call("Get", request, codec.record_values, timeout)


def delete(
    collection: str,
    ids: Iterable[PointId] | None = None,
    filter: Filter | None = None,
    *,
    timeout: float | None = None,
) -> Call[int]:
    """Delete points by their ids or by a filter, and return how many there were.

    The chunks of a long text are points of their own: ``filter={"chunk.of": id}`` deletes them.
    """
    request = pb.DeleteRequest(
        collection=collection,
        ids=None if ids is None else codec.ids_message(ids),
        filter_json=arguments.filter_text(filter),
    )
    return Call("Delete", request, lambda r: int(r.deleted), timeout)


def count(
    collection: str, filter: Filter | None = None, *, timeout: float | None = None
) -> Call[int]:
    """Return how many points there are, or how many match a filter."""
    request = pb.CountRequest(collection=collection, filter_json=arguments.filter_text(filter))
    return Call("Count", request, lambda r: int(r.count), timeout)


def flush(collection: str, *, timeout: float | None = None) -> Call[None]:
    """Seal the growing segment, and return once every point is in an index."""
    return Call("Flush", pb.FlushRequest(collection=collection), _nothing, timeout, long=True)


def ask(
    collection: str,
    question: str,
    *,
    k: int = ANSWER_K.default,
    filter: Filter | None = None,
    max_tokens: int = ANSWER_TOKENS.default,
    temperature: float = 0.0,
    seed: int | None = None,
    timeout: float | None = None,
) -> Call[str | AnswerEnd]:
    """Answer a question from the collection.

    Iterate over the answer for its text as it is generated; its citations are there at the end.

    Parameters
    ----------
    question
        What is asked.
    k
        How many passages to retrieve.
    filter
        Conditions on the passages' payloads.
    max_tokens
        How much to generate at most.
    temperature
        0, the default, always takes the likeliest token.
    seed
        Makes a varied answer repeatable.
    timeout
        Seconds until `vecdb.errors.DeadlineExceededError`, for the whole answer.
    """
    request = pb.AskRequest(
        collection=collection,
        question=arguments.text(question, "the question"),
        k=arguments.integer("k", k),
        filter_json=arguments.filter_text(filter),
        max_tokens=arguments.integer("max_tokens", max_tokens),
        temperature=arguments.number("temperature", temperature),
        seed=arguments.integer("seed", seed),
    )
    return Call("Ask", request, _answer_event, timeout, long=True)


def _search_request(
    collection: str,
    texts: Sequence[str] | None,
    vectors: Matrix | None,
    k: int,
    filter: Filter | None,
    ef: int | None,
) -> pb.SearchRequest:
    return pb.SearchRequest(
        collection=collection,
        texts=None if texts is None else arguments.queries_message(texts),
        vectors=None if vectors is None else codec.vectors_message(vectors),
        k=arguments.integer("k", k),
        filter_json=arguments.filter_text(filter),
        ef=arguments.integer("ef", ef),
    )


def _nothing(_: Message) -> None:
    return None


def _all_hits(message: pb.SearchResponse) -> list[list[Hit]]:
    return [codec.hits_value(hits) for hits in message.results]


def _first_hits(message: pb.SearchResponse) -> list[Hit]:
    return codec.hits_value(message.results[0])


def _answer_event(message: pb.AskResponse) -> str | AnswerEnd:
    if message.HasField("end"):
        return codec.answer_end_value(message.end)
    return message.text
