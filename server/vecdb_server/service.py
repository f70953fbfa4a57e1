"""The calls of the service: each turns a message into a call of the engine and back.

Every call runs in a thread of the server's pool, so the engine may block and compute there. It
passes the gate of its class first, and its errors leave through `vecdb_server.failures`. What it
returns are the bytes of the response, whose size has been looked at.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import Message

from vecdb.caller import checking_caller
from vecdb.errors import (
    FailedPreconditionError,
    InvalidFilterError,
    InvalidNameError,
    InvalidPayloadError,
    MessageTooLargeError,
    VecdbError,
)
from vecdb.payload.json_value import NotJsonError, decode_json
from vecdb.registry.models import find_model
from vecdb.storage import PosixStore
from vecdb.types import Payload
from vecdb_proto import admin_codec, codec
from vecdb_proto.status import wire_error
from vecdb_proto.v1 import vecdb_pb2 as pb
from vecdb_server.admission import CallClass, Gate, refuse_if_gone
from vecdb_server.failures import defect, fail

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database

_BACKUP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)

_LOG = logging.getLogger(__name__)

RequestT = TypeVar("RequestT", bound=Message)


def _gated(
    kind: CallClass,
) -> Callable[
    [Callable[[VecdbService, RequestT], Message]],
    Callable[[VecdbService, RequestT, grpc.ServicerContext], bytes],
]:
    """Make a handler of grpc's from a function of the request: gate, errors, size of the answer.

    What takes long in the function asks `check_caller` whether anybody still waits for it.
    """

    def decorate(
        handler: Callable[[VecdbService, RequestT], Message],
    ) -> Callable[[VecdbService, RequestT, grpc.ServicerContext], bytes]:
        @functools.wraps(handler)
        def call(self: VecdbService, request: RequestT, context: grpc.ServicerContext) -> bytes:
            started = time.perf_counter()
            try:
                gate = self._gates[kind]
                gate.enter(context)
                try:
                    with checking_caller(lambda: refuse_if_gone(context)):
                        response = handler(self, request)
                finally:
                    gate.leave()
                packed = self.packed(response)
            except Exception as error:  # the boundary: whatever it is, the caller gets a status
                failure = _failure(handler.__name__, error)
                _log_call(handler.__name__, started, wire_error(failure)[1])
                fail(context, failure)
            _log_call(handler.__name__, started, "OK")
            return packed

        return call

    return decorate


class VecdbService:
    """Serves one database."""

    def __init__(
        self,
        database: Database,
        gates: dict[CallClass, Gate],
        message_bytes: int,
        own_encoder: str | None = None,
        backup_dir: Path | None = None,
    ) -> None:
        self._database = database
        self._own_encoder = own_encoder  # the one the server was started with, even from a path
        self._backup_dir = backup_dir
        self._gates = gates
        self._message_bytes = message_bytes

    def packed(self, response: Message) -> bytes:
        """Return an answer as it is sent.

        Raises
        ------
        MessageTooLargeError
            If the client could not take it.
        """
        packed = response.SerializeToString()
        if len(packed) > self._message_bytes:
            raise MessageTooLargeError(
                f"the answer takes a message of {len(packed)} bytes, over the limit of "
                f"{self._message_bytes}: ask for less at once, or raise message_bytes on both sides"
            )
        return packed

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> bytes:
        """Do nothing."""
        return pb.PingResponse().SerializeToString()

    @_gated(CallClass.ADMIN)
    def GetServerInfo(self, request: pb.GetServerInfoRequest) -> pb.GetServerInfoResponse:
        """Tell the version and the models."""
        return admin_codec.server_info_message(self._database.server_info())

    @_gated(CallClass.ADMIN)
    def CreateCollection(self, request: pb.CreateCollectionRequest) -> pb.CreateCollectionResponse:
        """Create a collection.

        Raises
        ------
        ModelNotFoundError
            If the encoder is a path: a caller from outside has no say in which files are read.
        """
        if "/" in request.encoder and request.encoder != self._own_encoder:
            find_model(request.encoder, "encoder")  # some registered names have a slash too
        given = _given(request, "dim", "encoder", "m", "ef_construction")
        self._database.create_collection(
            request.name, metric=codec.metric_value(request.metric), **given
        )
        return pb.CreateCollectionResponse()

    @_gated(CallClass.SEARCH)
    def GetCollection(self, request: pb.GetCollectionRequest) -> pb.GetCollectionResponse:
        """Tell a collection's settings and size."""
        info = self._database.collection(request.name).info()
        return pb.GetCollectionResponse(info=admin_codec.info_message(info))

    @_gated(CallClass.SEARCH)
    def ListCollections(self, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Name the collections."""
        return pb.ListCollectionsResponse(names=self._database.list_collections())

    @_gated(CallClass.ADMIN)
    def DropCollection(self, request: pb.DropCollectionRequest) -> pb.DropCollectionResponse:
        """Delete a collection."""
        self._database.drop_collection(request.name)
        return pb.DropCollectionResponse()

    @_gated(CallClass.WRITE)
    def Upsert(self, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Write points."""
        result = self._collection(request).upsert(
            codec.ids_value(request.ids),
            texts=codec.texts_value(request.texts) if request.HasField("texts") else None,
            vectors=codec.vectors_value(request.vectors) if request.HasField("vectors") else None,
            payloads=_payloads(request.payloads) if request.HasField("payloads") else None,
            long_text=codec.long_text_value(request.long_text),
        )
        return codec.upsert_result_message(result)

    @_gated(CallClass.SEARCH)
    def Search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Search for one or more queries."""
        results = self._collection(request).search_columns(
            list(request.texts.values) if request.HasField("texts") else None,
            vectors=codec.vectors_value(request.vectors) if request.HasField("vectors") else None,
            filter=_filter(request),
            **_given(request, "k", "ef"),
        )
        response = pb.SearchResponse()
        for hits in results:
            codec.write_hits(hits, response.results.add())
        return response

    @_gated(CallClass.SEARCH)
    def Get(self, request: pb.GetRequest) -> pb.GetResponse:
        """Return stored points."""
        return codec.record_messages(self._collection(request).get(codec.ids_value(request.ids)))

    @_gated(CallClass.WRITE)
    def Delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Delete points by ids or by a filter."""
        ids = codec.ids_value(request.ids) if request.HasField("ids") else None
        return pb.DeleteResponse(
            deleted=self._collection(request).delete(ids, filter=_filter(request))
        )

    @_gated(CallClass.SEARCH)
    def Count(self, request: pb.CountRequest) -> pb.CountResponse:
        """Count points."""
        return pb.CountResponse(count=self._collection(request).count(_filter(request)))

    @_gated(CallClass.ADMIN)
    def Flush(self, request: pb.FlushRequest) -> pb.FlushResponse:
        """Wait until every point is in an index."""
        self._collection(request).flush()
        return pb.FlushResponse()

    @_gated(CallClass.ADMIN)
    def Backup(self, request: pb.BackupRequest) -> pb.BackupResponse:
        """Add a backup to a directory below the operator's; given up when the caller goes away."""
        store = PosixStore(backup_directory(self._backup_dir, request.name))
        taken = self._database.backup_to(store, **_given(request, "keep"))
        return pb.BackupResponse(backup=admin_codec.backup_message(taken))

    @_gated(CallClass.ADMIN)
    def ListBackups(self, request: pb.ListBackupsRequest) -> pb.ListBackupsResponse:
        """List the backups of such a directory."""
        found = self._database.list_backups(backup_directory(self._backup_dir, request.name))
        return pb.ListBackupsResponse(backups=[admin_codec.backup_message(one) for one in found])

    def Ask(self, request: pb.AskRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answer a question piece by piece; stops generating when the caller goes away."""
        started = time.perf_counter()
        try:
            gate = self._gates[CallClass.GENERATE]
            gate.enter(context)
            try:
                yield from self._answer(request, context)
            finally:
                gate.leave()
        except Exception as error:  # the boundary: whatever it is, the caller gets a status
            failure = _failure("Ask", error)
            _log_call("Ask", started, wire_error(failure)[1])
            fail(context, failure)
        _log_call("Ask", started, "OK" if context.is_active() else "CANCELLED")

    def _answer(self, request: pb.AskRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        given = _given(request, "k", "max_tokens", "temperature", "seed")
        with checking_caller(lambda: refuse_if_gone(context)):
            answer = self._collection(request).ask(
                request.question, filter=_filter(request), **given
            )
        # At the end of the call, however it comes: this thread may be waiting for the model then.
        if not context.add_callback(answer.cancel):
            refuse_if_gone(context)
        try:
            for piece in answer:
                yield pb.AskResponse(text=piece).SerializeToString()
                if not context.is_active():
                    return
            yield pb.AskResponse(end=codec.answer_end_message(answer.end)).SerializeToString()
        finally:
            answer.cancel()  # nothing is left to cancel after the end

    def _collection(self, request: Any) -> Collection:
        return self._database.collection(request.collection)


def backup_directory(root: Path | None, name: str) -> Path:
    """Return where a caller's backups lie.

    Raises
    ------
    FailedPreconditionError
        If the operator named no directory for backups.
    InvalidNameError
        If the name could be any place but one directly below it.
    """
    if root is None:
        raise FailedPreconditionError(
            "this server takes no backups: its operator has to start it with --backup-dir DIR"
        )
    directory = root / name
    if not _BACKUP_NAME.fullmatch(name) or directory.is_symlink():
        raise InvalidNameError(
            f"backup name {name!r:.200}: must be 1 to 100 ASCII letters, digits, '_', '-' or '.', "
            "beginning with a letter, a digit or '_', and not be a link"
        )
    return directory


def _given(request: Any, *names: str) -> dict[str, Any]:
    """Return those optional fields that the caller sent; the engine's defaults stand for others."""
    return {name: getattr(request, name) for name in names if request.HasField(name)}


def _failure(rpc: str, error: Exception) -> VecdbError:
    return error if isinstance(error, VecdbError) else defect(rpc, error)


def _log_call(rpc: str, started: float, outcome: str) -> None:
    level = logging.DEBUG if outcome == "OK" else logging.INFO
    if _LOG.isEnabledFor(level):
        milliseconds = round((time.perf_counter() - started) * 1e3, 3)
        _LOG.log(level, "call", extra={"rpc": rpc, "outcome": outcome, "ms": milliseconds})


def _payloads(message: pb.Payloads) -> list[Payload | None]:
    """Return the entries of the array; the engine judges what each of them is."""
    payloads = _decoded(message.json, "payloads", InvalidPayloadError)
    if not isinstance(payloads, list):
        raise InvalidPayloadError("payloads is not a JSON array of objects and nulls")
    return payloads


def _filter(request: Any) -> Any:
    """Return a request's filter, or None without one; the engine judges what it is."""
    if not request.HasField("filter_json"):
        return None
    return _decoded(request.filter_json, "filter", InvalidFilterError)


def _decoded(text: str, name: str, refusal: type[VecdbError]) -> Any:
    try:
        return decode_json(text)
    except NotJsonError as error:
        raise refusal(f"{name} is not JSON: {error}") from None
