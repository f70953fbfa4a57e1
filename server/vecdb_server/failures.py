"""How an exception ends a call."""

from __future__ import annotations

import logging
import secrets
from typing import NoReturn

import grpc

from vecdb.errors import InternalError, VecdbError
from vecdb_proto.status import WIRE_KEY, wire_details, wire_error

_LOG = logging.getLogger(__name__)


def fail(context: grpc.ServicerContext, error: VecdbError) -> NoReturn:
    """End a call with the status of `error`."""
    code, name = wire_error(error)
    context.set_trailing_metadata(((WIRE_KEY, name),))
    context.abort(code, wire_details(error))


def defect(rpc: str, error: Exception) -> InternalError:
    """Log an exception that is not of vecdb, and return what its caller gets to see."""
    number = secrets.token_hex(4)
    _LOG.error("defect", extra={"rpc": rpc, "defect": number}, exc_info=error)
    return InternalError(
        f"a defect in the server, logged there as {number} ({type(error).__name__}): "
        "please report it"
    )
