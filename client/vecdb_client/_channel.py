"""How a client reaches its server: address, credentials, limits and the retry policy."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import grpc

from vecdb.config import DEFAULT_PORT, MESSAGE_BYTES
from vecdb.errors import InvalidParameterError, MessageTooLargeError
from vecdb_client._calls import Call
from vecdb_proto.v1 import vecdb_pb2 as pb

ConnectionT = TypeVar("ConnectionT")

SERVICE = pb.DESCRIPTOR.services_by_name["VecdbService"]

# A call is sent again only when a second execution leaves the same state and gives the same
# answer as one: reads, upsert and flush. A second create, drop or delete would report that there
# was nothing to do, a second backup would be one more, and a second answer may differ from the
# pieces already yielded.
RETRIED = (
    "Ping",
    "GetServerInfo",
    "GetCollection",
    "ListCollections",
    "ListBackups",
    "Upsert",
    "Search",
    "Get",
    "Count",
    "Flush",
)
_RETRY_POLICY = {
    "maxAttempts": 5,  # the most that grpc makes
    "initialBackoff": "0.5s",
    "maxBackoff": "1.2s",
    "backoffMultiplier": 1.5,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE.full_name, "method": method} for method in RETRIED],
            "retryPolicy": _RETRY_POLICY,
        }
    ]
}


# While the channel waits before it tries to connect again, every call fails at once: so it waits
# less than the retries of one call do.
_RECONNECT_MS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in truth, how long one attempt may take
)


_YEAR_SECONDS = 366 * 86_400
"""grpc takes moments that are centuries away for past ones."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a client was made with, in the form grpc takes."""

    target: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    timeout: float | None
    long_timeout: float | None
    message_bytes: int

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Return the options of a grpc channel."""
        return [
            ("grpc.max_send_message_length", self.message_bytes),
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.enable_retries", 1),
            *_RECONNECT_MS,
            # Else a new client would wait as long as older ones that found no server.
            ("grpc.use_local_subchannel_pool", 1),
            # A connection that died without a word is noticed while a call waits on it.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]

    def deadline(self, call: Call[object]) -> float | None:
        """Return the seconds that `call` may take; None for no limit.

        Raises
        ------
        InvalidParameterError
            If the call's own timeout is none.
        """
        if call.timeout is not None:
            return seconds("timeout", call.timeout)
        return self.long_timeout if call.long else self.timeout

    def packed(self, call: Call[object]) -> bytes:
        """Return the request as it is sent.

        Raises
        ------
        MessageTooLargeError
            If it is over the message limit.
        """
        packed = call.request.SerializeToString()
        if len(packed) > self.message_bytes:
            raise MessageTooLargeError(
                f"{call.rpc} takes a message of {len(packed)} bytes, over the limit of "
                f"{self.message_bytes}: split the batch, or raise message_bytes on both sides"
            )
        return packed


class ClientBase(ABC, Generic[ConnectionT]):
    """What the clients are made with."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        long_timeout: float = 600.0,
        tls_ca: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        message_bytes: int | None = None,
    ) -> None:
        """Make a client; nothing is sent before its first call.

        Parameters
        ----------
        url
            ``grpc://host:port``, or ``grpcs://host:port`` for TLS; without a port 7654.
        api_key
            Sent with every call.
        timeout
            Seconds a call may take unless it says otherwise; ``math.inf``, and any number over a
            year, for no limit. So for a call's own ``timeout=``.
        long_timeout
            The same for `create_collection`, `flush`, `backup` and `ask`, which may fetch a model,
            build an index, copy everything or write an answer.
        tls_ca
            A file of PEM certificates to trust instead of the system's.
        tls_cert, tls_key
            Files with the client's own certificate and key, when the server asks for them.
        message_bytes
            The largest message to send or take; the server has such a limit too.

        Raises
        ------
        InvalidParameterError
            If the URL has another form, a timeout is not above 0, a file cannot be read, or TLS
            files are given without TLS.
        """
        target, secure = _parse_url(url)
        if not secure and (tls_ca or tls_cert or tls_key):
            raise InvalidParameterError(f"TLS files are given for url={url!r}: use grpcs://")
        self._url = url
        self._connection = self._connect(
            Options(
                target=target,
                credentials=_credentials(tls_ca, tls_cert, tls_key) if secure else None,
                metadata=() if api_key is None else (_bearer(api_key),),
                timeout=seconds("timeout", timeout),
                long_timeout=seconds("long_timeout", long_timeout),
                message_bytes=MESSAGE_BYTES.check(message_bytes),
            )
        )

    def __repr__(self) -> str:
        return f"<vecdb_client.{type(self).__name__} {self._url!r}>"

    @abstractmethod
    def _connect(self, settings: Options) -> ConnectionT:
        """Return what sends this client's calls."""


def _parse_url(url: str) -> tuple[str, bool]:
    """Return grpc's name for the server, and whether it is reached over TLS."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    except ValueError:
        host = None
    if not host or extra or parts.scheme not in ("grpc", "grpcs"):
        raise InvalidParameterError(
            f"url={url!r}: must be grpc://host:port, or grpcs://host:port for TLS"
        )
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), parts.scheme == "grpcs"


def seconds(name: str, value: object) -> float | None:
    """Return a timeout as grpc takes it, None for no limit.

    Raises
    ------
    InvalidParameterError
        If it is not a number above 0.
    """
    number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    if not number > 0:
        raise InvalidParameterError(f"{name}={value!r}: must be a number of seconds above 0")
    return None if number > _YEAR_SECONDS else number


def wire_of(rpc: str) -> tuple[str, Callable[[bytes], Any]]:
    """Return a call's path, and what makes a response of bytes; `Options.packed` packs requests."""
    response = getattr(pb, SERVICE.methods_by_name[rpc].output_type.name)
    return f"/{SERVICE.full_name}/{rpc}", response.FromString


def _credentials(
    ca: str | Path | None, cert: str | Path | None, key: str | Path | None
) -> grpc.ChannelCredentials:
    if (cert is None) != (key is None):
        raise InvalidParameterError("tls_cert and tls_key: must be given together")
    return grpc.ssl_channel_credentials(_read(ca), _read(key), _read(cert))


def _read(file: str | Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidParameterError(f"{file}: cannot be read: {error.strerror}") from error


def _bearer(api_key: str) -> tuple[str, str]:
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise InvalidParameterError("api_key: must be printable ASCII characters")
    return "authorization", f"Bearer {api_key}"
