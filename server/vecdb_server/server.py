"""The server: a grpc server around one database, from its first connection to its last.

It is grpc's threaded server, not grpc.aio. Each call already arrives in a pool's thread, where
the engine may compute; under grpc.aio it would arrive in the event loop and need a hop to a
thread and back, which costs a sixth of an empty call (bench/notes/grpc.md).
"""

from __future__ import annotations

import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vecdb.errors import FailedPreconditionError, InvalidParameterError
from vecdb_proto.v1 import vecdb_pb2 as pb
from vecdb_server.admission import gates
from vecdb_server.auth import ApiKeys
from vecdb_server.config import ServerConfig, split_address
from vecdb_server.service import VecdbService

if TYPE_CHECKING:
    from vecdb.database import Database

_SERVICE = pb.DESCRIPTOR.services_by_name["VecdbService"]

_UNGATED_THREADS = 16
"""Threads for calls that pass no gate: ping, health, reflection, and refusals on their way out."""
_LOOK_AGAIN = 0.1
_QUIET_SECONDS = 1.0
"""How long no call has worked before the rest is cut; answers are on their way meanwhile."""
_UNWIND_SECONDS = 3.0
"""How long calls that were cancelled may take to end: a write that has begun is finished."""


class Server:
    """Serves a database that the caller opened and closes.

    Raises
    ------
    InvalidParameterError
        If a TLS file cannot be read, or does not hold what it should.
    FailedPreconditionError
        If the address cannot be listened on.
    """

    def __init__(self, database: Database, config: ServerConfig) -> None:
        threads = config.limits.calls + _UNGATED_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vecdb-call")
        self._health = health.HealthServicer()
        self._grpc = grpc.server(
            self._pool,
            interceptors=[ApiKeys(config.api_keys)] if config.api_keys else [],
            # Without it, calls over the pool's size would wait where no gate counts them.
            maximum_concurrent_rpcs=threads,
            options=[
                ("grpc.max_receive_message_length", config.message_bytes),
                ("grpc.max_send_message_length", config.message_bytes),
                # Two servers on one port would each get some of the calls.
                ("grpc.so_reuseport", 0),
                # Ends the calls of clients that vanished, and lets clients do the same.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ],
        )
        self._gates = gates(config.limits)
        service = VecdbService(
            database, self._gates, config.message_bytes, config.encoder, config.backup_dir
        )
        _register(service, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        self._names = (_SERVICE.full_name, "")
        reflection.enable_server_reflection(
            (self._names[0], health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
        )
        self.address = self._bind(config)

    def start(self) -> None:
        """Take calls, and report SERVING."""
        self._grpc.start()
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float) -> bool:
        """Report NOT_SERVING, take no more calls, and return when none is running.

        Calls that are under way may go on for `grace_seconds`; what then still runs is cancelled.
        A search or a write that has begun is finished even so, if it takes no more than seconds.

        Returns
        -------
        bool
            Whether every call has ended; else its thread is still there, and would keep the
            interpreter from exiting.
        """
        self._health.enter_graceful_shutdown()
        stopped = self._grpc.stop(grace_seconds)
        quiet_since = time.monotonic()
        while not stopped.wait(_LOOK_AGAIN):
            if self._is_busy():
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _QUIET_SECONDS:
                # What is left are streams that never end: watchers of health, reflection.
                stopped = self._grpc.stop(0)
        cut = time.monotonic()
        while self._is_busy() and time.monotonic() - cut < _UNWIND_SECONDS:
            time.sleep(_LOOK_AGAIN)
        ended = not self._is_busy()
        self._pool.shutdown(wait=ended)
        return ended

    def _is_busy(self) -> bool:
        return any(gate.is_busy() for gate in self._gates.values())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0)

    def _bind(self, config: ServerConfig) -> str:
        host, port = split_address(config.listen)
        address = f"[{host}]" if ":" in host else host
        try:
            if config.tls_cert is None or config.tls_key is None:
                bound = self._grpc.add_insecure_port(f"{address}:{port}")
            else:
                credentials = _credentials(config.tls_cert, config.tls_key, config.tls_client_ca)
                bound = self._grpc.add_secure_port(f"{address}:{port}", credentials)
        except RuntimeError as error:
            raise FailedPreconditionError(
                f"cannot listen on {config.listen}: is the port taken, is the address this "
                f"machine's? ({error})"
            ) from error
        return f"{address}:{bound}"


def _register(service: VecdbService, server: grpc.Server) -> None:
    """Let a service take the calls; unlike what is generated, responses are bytes already."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in _SERVICE.methods:
        handler_of = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        request = getattr(pb, method.input_type.name)
        handlers[method.name] = handler_of(getattr(service, method.name), request.FromString)
    server.add_registered_method_handlers(_SERVICE.full_name, handlers)
    generic = grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))


def _credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    pairs = [(_read(key), _read(cert))]
    trusted = None if client_ca is None else _read(client_ca)
    _check_tls(cert, key, client_ca)
    return grpc.ssl_server_credentials(
        pairs, root_certificates=trusted, require_client_auth=trusted is not None
    )


def _check_tls(cert: Path, key: Path, client_ca: Path | None) -> None:
    """Refuse files that grpc would refuse without saying why, or take and then let nobody in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # the strength of a key is its owner's choice
    try:
        context.load_cert_chain(cert, key, password="")  # grpc takes no encrypted keys
    except (ssl.SSLError, ValueError) as error:
        raise InvalidParameterError(
            f"tls_cert={str(cert)!r}, tls_key={str(key)!r}: must be a PEM certificate and its own "
            f"key, not encrypted ({error})"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise InvalidParameterError(
                f"tls_client_ca={str(client_ca)!r}: must hold PEM certificates ({error})"
            ) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidParameterError(f"{file}: cannot be read: {error.strerror}") from error
