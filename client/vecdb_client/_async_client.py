"""The asyncio client."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import grpc.aio

from vecdb.errors import ClosedError, FailedPreconditionError
from vecdb.types import AnswerEnd, Citation, FinishReason, Source
from vecdb_client import _calls
from vecdb_client._calls import Call
from vecdb_client._channel import ClientBase, Options, wire_of
from vecdb_proto.status import error_of

P = ParamSpec("P")
T = TypeVar("T")


class AsyncConnection:
    """A channel and how calls go over it, opened by the first call in that call's event loop."""

    def __init__(self, settings: Options) -> None:
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the channel's
        self._senders: dict[str, Callable[..., Any]] = {}
        self._closed = False

    async def run(self, call: Call[T]) -> T:
        """Send a call and wait for its result."""
        packed = self._settings.packed(call)
        try:
            response = await self._sender(call.rpc)(
                packed,
                timeout=self._settings.deadline(call),
                metadata=self._settings.metadata,
            )
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self.failure(call.rpc, error) from None
        return call.parse(response)

    def failure(
        self, rpc: str, error: grpc.aio.AioRpcError | asyncio.CancelledError
    ) -> BaseException:
        """Return what to raise for a call that ended with `error`.

        grpc raises `asyncio.CancelledError` also in tasks that nobody has cancelled, when the
        channel is closed under them; that would end a TaskGroup as if all had gone well.
        """
        broken_off = ClosedError(f"{rpc} was broken off by close()")
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            ours = self._closed and not (task is not None and task.cancelling())
            return broken_off if ours else error
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return broken_off
        return error_of(error)

    def stream(self, call: Call[str | AnswerEnd]) -> AsyncAnswer:
        """Send a call that is answered by several messages."""
        packed = self._settings.packed(call)
        return AsyncAnswer(
            self._sender(call.rpc)(
                packed,
                timeout=self._settings.deadline(call),
                metadata=self._settings.metadata,
            ),
            call.parse,
            functools.partial(self.failure, call.rpc),
        )

    async def close(self) -> None:
        """Break off what is running, and refuse every further call."""
        self._closed = True
        # Of a loop that has ended nothing is left to close.
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            await self._channel.close()

    def _sender(self, rpc: str) -> Callable[..., Any]:
        if self._closed:
            raise ClosedError(f"{rpc} was called after close(): make a new AsyncClient")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel, self._loop = self._open(), loop
        elif self._loop is not loop:
            raise FailedPreconditionError(
                f"{rpc} was called in another event loop than the first call of this AsyncClient, "
                "to which it belongs: make one in each asyncio.run()"
            )
        sender = self._senders.get(rpc)
        if sender is None:
            kind = self._channel.unary_stream if rpc == "Ask" else self._channel.unary_unary
            path, unpack = wire_of(rpc)
            sender = kind(path, response_deserializer=unpack)
            self._senders[rpc] = sender
        return sender

    def _open(self) -> grpc.aio.Channel:
        settings = self._settings
        if settings.credentials is None:
            return grpc.aio.insecure_channel(settings.target, settings.channel_options())
        return grpc.aio.secure_channel(
            settings.target, settings.credentials, settings.channel_options()
        )


class AsyncAnswer:
    """An answer being written: iterate for its text, then read the rest.

    `text` is what was generated so far; `citations`, `sources`, `finish_reason` and `end` are
    there once the iteration has ended, or after ``await answer.finish()``.
    """

    def __init__(
        self,
        call: Any,
        parse: Callable[[Any], str | AnswerEnd],
        failure: Callable[[Any], BaseException],
    ) -> None:
        self._call = call
        self._parse = parse
        self._failure = failure
        self._pieces: list[str] = []
        self._end: AnswerEnd | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces of text that were not yielded before, as they are generated."""
        try:
            while self._end is None:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    await self._raise_for_status()
                event = self._parse(response)
                if isinstance(event, AnswerEnd):
                    self._end = event
                    await self._call.read()  # reads the status, so that the call ends as done
                else:
                    self._pieces.append(event)
                    yield event
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        except asyncio.CancelledError as error:
            # grpc raises this where another task has cancelled the call; this task then goes on.
            task = asyncio.current_task()
            if self._end is None or (task is not None and task.cancelling()):
                raise self._failure(error) from None

    async def _raise_for_status(self) -> None:
        if await self._call.code() is grpc.StatusCode.OK:
            raise FailedPreconditionError("the server ended the answer without an end message")
        raise grpc.aio.AioRpcError(
            await self._call.code(),
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            await self._call.details(),
        )

    def cancel(self) -> None:
        """Stop the generation; what was generated so far stays readable."""
        if self._end is None:
            self._call.cancel()
            self._end = AnswerEnd([], [], FinishReason.CANCELLED, 0, len(self._pieces))

    async def finish(self) -> AnswerEnd:
        """Wait for the end of the answer and return it."""
        async for _ in self:
            pass
        return self.end

    @property
    def text(self) -> str:
        """What was generated so far."""
        return "".join(self._pieces)

    @property
    def citations(self) -> list[Citation]:
        """What the answer rests on, in the order of its text."""
        return self.end.citations

    @property
    def sources(self) -> list[Source]:
        """The passages that were put before the decoder."""
        return self.end.sources

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended."""
        return self.end.finish_reason

    @property
    def end(self) -> AnswerEnd:
        """Everything known at the end of the answer, token counts included."""
        if self._end is None:
            raise FailedPreconditionError(
                "the answer is not complete: iterate to its end, or await answer.finish()"
            )
        return self._end


def _on_database(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Make a method of `AsyncClient` from the function that builds its call."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._connection.run(build(*args, **kwargs))

    functools.update_wrapper(method, build)
    return method


def _opening(
    build: Callable[P, Call[str]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncCollection]]:
    """Make a method of `AsyncClient` that returns the collection its call names."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncCollection:
        return AsyncCollection(self._connection, await self._connection.run(build(*args, **kwargs)))

    functools.update_wrapper(method, build)
    return method


def _on_collection(
    build: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, T]]:
    """Make a method of `AsyncCollection` from the function that builds its call."""

    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._connection.run(build(self.name, *args, **kwargs))

    functools.update_wrapper(method, build)
    return method


def _answering(
    build: Callable[Concatenate[str, P], Call[str | AnswerEnd]],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, AsyncAnswer]]:
    """Make a method of `AsyncCollection` that returns an answer being written."""

    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> AsyncAnswer:
        return self._connection.stream(build(self.name, *args, **kwargs))

    functools.update_wrapper(method, build)
    return method


class AsyncCollection:
    """A collection of the server; its methods are awaited."""

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self._connection = connection
        self.name = name

    def __repr__(self) -> str:
        return f"<vecdb_client.AsyncCollection {self.name!r}>"

    info = _on_collection(_calls.info)
    upsert = _on_collection(_calls.upsert)
    search = _on_collection(_calls.search)
    search_batch = _on_collection(_calls.search_batch)
    get = _on_collection(_calls.get)
    delete = _on_collection(_calls.delete)
    count = _on_collection(_calls.count)
    flush = _on_collection(_calls.flush)
    ask = _answering(_calls.ask)


class AsyncClient(ClientBase[AsyncConnection]):
    """A database of the server; its methods are those of `Client`, awaited.

    It belongs to the event loop of its first call; in another one its calls raise
    `vecdb.errors.FailedPreconditionError`.
    """

    def _connect(self, settings: Options) -> AsyncConnection:
        return AsyncConnection(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; every later call raises `vecdb.errors.ClosedError`."""
        await self._connection.close()

    create_collection = _opening(_calls.create_collection)
    collection = _opening(_calls.collection)
    list_collections = _on_database(_calls.list_collections)
    drop_collection = _on_database(_calls.drop_collection)
    backup = _on_database(_calls.backup)
    list_backups = _on_database(_calls.list_backups)
    ping = _on_database(_calls.ping)
    server_info = _on_database(_calls.server_info)
