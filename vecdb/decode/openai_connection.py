"""The connection that an answer comes over: hung up from any thread, and watched for silence."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from vecdb.decode.openai_url import shown_url
from vecdb.errors import DeadlineExceededError, DecoderError
from vecdb.registry.extras import needs_extra

with needs_extra():
    import httpx

_MOST_BYTES = 4 << 20


class OpenConnection:
    """The socket of one request, from the moment it is connected.

    Closing a response does not wake the thread that reads it, and before the status line there is
    no response; shutting the socket down ends both waits.
    """

    def __init__(self, request: httpx.Request) -> None:
        self._lock = threading.Lock()  # protects the two fields below
        self._socket: socket.socket | None = None
        self._hung_up = False
        request.extensions["trace"] = self._trace

    def hang_up(self) -> None:
        """End the connection, and every later one of the request."""
        with self._lock:
            self._hung_up = True
            self._shut_down()

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Take note of the socket when httpcore says that it is connected, and again under TLS."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
                if self._hung_up:
                    self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                # Not the method of an SSLSocket, which takes its state from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Heard:
    """Ends a response that goes on without saying anything.

    Comments and empty pieces keep a connection alive and are no part of an answer, so a limit on
    each read, which they satisfy, does not end it.
    """

    def __init__(self, response: httpx.Response, seconds: float | None) -> None:
        self._url = shown_url(response.request)
        self._seconds = seconds
        self.now()
        response.stream = _Watched(response.stream, self)  # type: ignore[arg-type]

    def now(self) -> None:
        """Take note that something was said."""
        self._last = time.monotonic()
        self._bytes = 0

    def check(self, size: int) -> None:
        """Look at the clock, when `size` bytes more have come.

        Raises
        ------
        DeadlineExceededError
            If nothing was said for too long.
        DecoderError
            If nothing was said in too many bytes, which an event without an end keeps in memory.
        """
        self._bytes += size
        if self._bytes > _MOST_BYTES:
            raise DecoderError(f"{self._url}: {self._bytes} bytes came that say nothing")
        if self._seconds is not None and time.monotonic() - self._last > self._seconds:
            raise DeadlineExceededError(
                f"{self._url}: nothing but signs of life came within the timeout"
            )


class _Watched(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, heard: Heard) -> None:
        self._stream = stream
        self._heard = heard

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._heard.check(len(part))
            yield part

    def close(self) -> None:
        self._stream.close()
