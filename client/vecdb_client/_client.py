"""The blocking client."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from vecdb.answer import Answer
from vecdb.errors import ClosedError, VecdbError
from vecdb.types import AnswerEnd
from vecdb_client import _calls
from vecdb_client._calls import Call
from vecdb_client._channel import ClientBase, Options, wire_of
from vecdb_proto.status import error_of

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """A channel and how calls go over it; may be used by several threads."""

    def __init__(self, settings: Options) -> None:
        self._settings = settings
        arguments = settings.target, settings.channel_options()
        self._channel = (
            grpc.insecure_channel(*arguments)
            if settings.credentials is None
            else grpc.secure_channel(arguments[0], settings.credentials, arguments[1])
        )
        self._senders: dict[str, Callable[..., Any]] = {}
        self._closed = False

    def run(self, call: Call[T]) -> T:
        """Send a call and wait for its result."""
        try:
            response = self._send(call)
        except grpc.RpcError as error:
            raise self.failure(call.rpc, error) from None
        return call.parse(response)

    def stream(self, call: Call[str | AnswerEnd]) -> AnswerEvents:
        """Send a call that is answered by several messages."""
        return AnswerEvents(self._send(call), call.parse, functools.partial(self.failure, call.rpc))

    def failure(self, rpc: str, error: Any) -> VecdbError:
        """Return what to raise for a call that ended with grpc's `error`."""
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return ClosedError(f"{rpc} was broken off by close()")
        return error_of(error)

    def close(self) -> None:
        """Break off what is running, and refuse every further call."""
        self._closed = True
        self._channel.close()

    def _send(self, call: Call[Any]) -> Any:
        packed = self._settings.packed(call)
        sender = self._sender(call.rpc)
        try:
            return sender(
                packed,
                timeout=self._settings.deadline(call),
                metadata=self._settings.metadata,
            )
        except ValueError:  # grpc's word for a channel that another thread has closed since
            if not self._closed:
                raise
            raise ClosedError(f"{call.rpc} was called while close() ran") from None

    def _sender(self, rpc: str) -> Callable[..., Any]:
        if self._closed:
            raise ClosedError(f"{rpc} was called after close(): make a new Client")
        sender = self._senders.get(rpc)
        if sender is None:
            kind = self._channel.unary_stream if rpc == "Ask" else self._channel.unary_unary
            path, unpack = wire_of(rpc)
            sender = kind(path, response_deserializer=unpack)
            self._senders[rpc] = sender
        return sender


class AnswerEvents:
    """The pieces of an answer as they come, then its end."""

    def __init__(
        self,
        call: Any,
        parse: Callable[[Any], str | AnswerEnd],
        failure: Callable[[Any], VecdbError],
    ) -> None:
        self._call = call
        self._parse = parse
        self._failure = failure

    def __iter__(self) -> Iterator[str | AnswerEnd]:
        return self

    def __next__(self) -> str | AnswerEnd:
        try:
            event = self._parse(next(self._call))
            if isinstance(event, AnswerEnd):
                next(self._call, None)  # reads the status, so that the call ends as done
        except grpc.RpcError as error:
            raise self._failure(error) from None
        return event

    def close(self) -> None:
        """Cancel the call; the server stops generating."""
        self._call.cancel()


def _on_database(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[Client, P], T]:
    """Make a method of `Client` from the function that builds its call."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._connection.run(build(*args, **kwargs))

    functools.update_wrapper(method, build)
    return method


def _opening(
    build: Callable[P, Call[str]],
) -> Callable[Concatenate[Client, P], Collection]:
    """Make a method of `Client` that returns the collection its call names."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Collection:
        return Collection(self._connection, self._connection.run(build(*args, **kwargs)))

    functools.update_wrapper(method, build)
    return method


def _on_collection(
    build: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate[Collection, P], T]:
    """Make a method of `Collection` from the function that builds its call."""

    def method(self: Collection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._connection.run(build(self.name, *args, **kwargs))

    functools.update_wrapper(method, build)
    return method


def _answering(
    build: Callable[Concatenate[str, P], Call[str | AnswerEnd]],
) -> Callable[Concatenate[Collection, P], Answer]:
    """Make a method of `Collection` that returns an answer being written."""

    def method(self: Collection, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return Answer(self._connection.stream(build(self.name, *args, **kwargs)))

    functools.update_wrapper(method, build)
    return method


class Collection:
    """A collection of the server."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name

    def __repr__(self) -> str:
        return f"<vecdb_client.Collection {self.name!r}>"

    info = _on_collection(_calls.info)
    upsert = _on_collection(_calls.upsert)
    search = _on_collection(_calls.search)
    search_batch = _on_collection(_calls.search_batch)
    get = _on_collection(_calls.get)
    delete = _on_collection(_calls.delete)
    count = _on_collection(_calls.count)
    flush = _on_collection(_calls.flush)
    ask = _answering(_calls.ask)


class Client(ClientBase[Connection]):
    """A database of the server; its methods are those of the embedded one.

    It may be used by several threads, and as a context manager.
    """

    def _connect(self, settings: Options) -> Connection:
        return Connection(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; every later call raises `vecdb.errors.ClosedError`."""
        self._connection.close()

    create_collection = _opening(_calls.create_collection)
    collection = _opening(_calls.collection)
    list_collections = _on_database(_calls.list_collections)
    drop_collection = _on_database(_calls.drop_collection)
    backup = _on_database(_calls.backup)
    list_backups = _on_database(_calls.list_backups)
    ping = _on_database(_calls.ping)
    server_info = _on_database(_calls.server_info)
