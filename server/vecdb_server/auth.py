"""API keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from vecdb.errors import UnauthenticatedError
from vecdb_server.failures import fail

_OPEN_SERVICE = "/grpc.health.v1.Health/"


class ApiKeys(grpc.ServerInterceptor):
    """Turns away calls without one of the keys; health can be asked by everybody."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the call's handler, or one that refuses it."""
        if details.method.startswith(_OPEN_SERVICE):
            return continuation(details)
        given = next(
            (value for key, value in details.invocation_metadata if key == "authorization"), ""
        )
        scheme, _, key = str(given).partition(" ")
        if scheme.lower() == "bearer" and self._knows(key.strip()):
            return continuation(details)
        return _refuse_missing if not given else _refuse_wrong

    def _knows(self, key: str) -> bool:
        # Digests are of one length, and every one is compared: the time tells nothing.
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _refusal(message: str) -> grpc.RpcMethodHandler[Any, Any]:
    def refuse(_: object, context: grpc.ServicerContext) -> None:
        fail(context, UnauthenticatedError(message))

    # A stream of requests is refused without waiting for a first one.
    return grpc.stream_unary_rpc_method_handler(refuse)


_refuse_missing = _refusal("no API key: send the metadata authorization: Bearer KEY (api_key=)")
_refuse_wrong = _refusal("the API key is not one of this server's")
