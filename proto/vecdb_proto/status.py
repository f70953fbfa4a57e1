"""One table of how every exception crosses the wire, read by the server and by the client.

A failed call carries its class's gRPC status code, its message as the status's details, and in the
trailing metadata `WIRE_KEY` the class's stable name. The name decides the class on the other side;
the code is for callers that know gRPC and not vecdb.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import quote

from grpc import StatusCode

from vecdb import errors

WIRE_KEY = "vecdb-error"
MAX_DETAILS = 6_000
"""Bytes that a message may take as it is sent; gRPC limits all metadata together to 8 KiB."""

_SENT_AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""Every other character takes three bytes for each one of its UTF-8."""

WIRE_ERRORS: dict[type[errors.VecdbError], tuple[StatusCode, str]] = {
    errors.VecdbError: (StatusCode.UNKNOWN, "ERROR"),
    errors.InvalidArgumentError: (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    errors.DimensionMismatchError: (StatusCode.INVALID_ARGUMENT, "DIMENSION_MISMATCH"),
    errors.InvalidVectorError: (StatusCode.INVALID_ARGUMENT, "INVALID_VECTOR"),
    errors.EmptyBatchError: (StatusCode.INVALID_ARGUMENT, "EMPTY_BATCH"),
    errors.LengthMismatchError: (StatusCode.INVALID_ARGUMENT, "LENGTH_MISMATCH"),
    errors.InvalidIdError: (StatusCode.INVALID_ARGUMENT, "INVALID_ID"),
    errors.DuplicateIdError: (StatusCode.INVALID_ARGUMENT, "DUPLICATE_ID"),
    errors.InvalidNameError: (StatusCode.INVALID_ARGUMENT, "INVALID_NAME"),
    errors.InvalidParameterError: (StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETER"),
    errors.InvalidPayloadError: (StatusCode.INVALID_ARGUMENT, "INVALID_PAYLOAD"),
    errors.InvalidFilterError: (StatusCode.INVALID_ARGUMENT, "INVALID_FILTER"),
    errors.InvalidTextError: (StatusCode.INVALID_ARGUMENT, "INVALID_TEXT"),
    errors.UnreadableDocumentError: (StatusCode.INVALID_ARGUMENT, "UNREADABLE_DOCUMENT"),
    errors.NotFoundError: (StatusCode.NOT_FOUND, "NOT_FOUND"),
    errors.CollectionNotFoundError: (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND"),
    errors.ModelNotFoundError: (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    errors.AlreadyExistsError: (StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    errors.CollectionExistsError: (StatusCode.ALREADY_EXISTS, "COLLECTION_EXISTS"),
    errors.FailedPreconditionError: (StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
    errors.DirectoryLockedError: (StatusCode.FAILED_PRECONDITION, "DIRECTORY_LOCKED"),
    errors.NewerFormatError: (StatusCode.FAILED_PRECONDITION, "NEWER_FORMAT"),
    errors.EncoderMismatchError: (StatusCode.FAILED_PRECONDITION, "ENCODER_MISMATCH"),
    errors.ReadOnlyError: (StatusCode.FAILED_PRECONDITION, "READ_ONLY"),
    errors.StorageAccessError: (StatusCode.FAILED_PRECONDITION, "STORAGE_ACCESS"),
    errors.DeviceUnavailableError: (StatusCode.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE"),
    errors.MissingDependencyError: (StatusCode.FAILED_PRECONDITION, "MISSING_DEPENDENCY"),
    errors.ClosedError: (StatusCode.FAILED_PRECONDITION, "CLOSED"),
    errors.DataLossError: (StatusCode.DATA_LOSS, "DATA_LOSS"),
    errors.CorruptFileError: (StatusCode.DATA_LOSS, "CORRUPT_FILE"),
    errors.QuarantinedError: (StatusCode.DATA_LOSS, "QUARANTINED"),
    errors.StorageIOError: (StatusCode.DATA_LOSS, "STORAGE_IO"),
    # What is missing is the server's own file, not anything the caller named.
    errors.StoredFileNotFoundError: (StatusCode.DATA_LOSS, "STORED_FILE_NOT_FOUND"),
    errors.ModelDigestError: (StatusCode.DATA_LOSS, "MODEL_DIGEST"),
    errors.ResourceExhaustedError: (StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    errors.DiskFullError: (StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"),
    errors.DiskLimitError: (StatusCode.RESOURCE_EXHAUSTED, "DISK_LIMIT"),
    errors.MemoryLimitError: (StatusCode.RESOURCE_EXHAUSTED, "MEMORY_LIMIT"),
    errors.MessageTooLargeError: (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
    errors.OverloadedError: (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.UnauthenticatedError: (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.UnavailableError: (StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    errors.DeadlineExceededError: (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    errors.CancelledError: (StatusCode.CANCELLED, "CANCELLED"),
    # The decoder may be another machine's; its failures are an error space of their own.
    errors.DecoderError: (StatusCode.UNKNOWN, "DECODER"),
    errors.InternalError: (StatusCode.INTERNAL, "INTERNAL"),
}

_CLASSES = {name: kind for kind, (_, name) in WIRE_ERRORS.items()}

# What gRPC itself answers, where no code of vecdb has run.
_TRANSPORT_CLASSES: dict[StatusCode, type[errors.VecdbError]] = {
    StatusCode.CANCELLED: errors.CancelledError,
    StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    StatusCode.UNAVAILABLE: errors.UnavailableError,
    StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    StatusCode.PERMISSION_DENIED: errors.UnauthenticatedError,
    StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    StatusCode.OUT_OF_RANGE: errors.InvalidArgumentError,
    StatusCode.NOT_FOUND: errors.NotFoundError,
    StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    StatusCode.FAILED_PRECONDITION: errors.FailedPreconditionError,
    StatusCode.UNIMPLEMENTED: errors.FailedPreconditionError,
    StatusCode.DATA_LOSS: errors.DataLossError,
    StatusCode.INTERNAL: errors.InternalError,
}


def wire_error(error: errors.VecdbError) -> tuple[StatusCode, str]:
    """Return the status code and stable name of `error`; a subclass goes as its nearest base."""
    return next(WIRE_ERRORS[kind] for kind in type(error).__mro__ if kind in WIRE_ERRORS)


def wire_details(error: errors.VecdbError) -> str:
    """Return the message of `error`, shortened to what metadata can carry."""
    message = str(error)
    if _sent_bytes(message) <= MAX_DETAILS:
        return message
    kept = bisect_right(
        range(1, len(message)), MAX_DETAILS - 3, key=lambda end: _sent_bytes(message[:end])
    )
    return message[:kept] + "..."


def _sent_bytes(text: str) -> int:
    return len(quote(text, safe=_SENT_AS_IT_IS, errors="replace"))


class FailedCall(Protocol):
    """What grpc's blocking and asyncio errors have in common."""

    def code(self) -> StatusCode:
        """Return the status code."""

    def details(self) -> str | None:
        """Return the message."""

    def trailing_metadata(self) -> Iterable[Any] | None:
        """Return pairs of a key and a value."""


def error_of(call: FailedCall) -> errors.VecdbError:
    """Return the exception that a failed call stands for."""
    code, message = call.code(), call.details() or ""
    for key, value in call.trailing_metadata() or ():
        if key == WIRE_KEY and value in _CLASSES:
            return _CLASSES[str(value)](message)
    if code is StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in message:
        return errors.MessageTooLargeError(
            f"{message}: send or ask for less at once, or raise message_bytes on both sides"
        )
    if code is StatusCode.UNAVAILABLE:
        message = f"the server cannot be reached, or is stopping: {message}"
    if code is StatusCode.DEADLINE_EXCEEDED:
        message = f"the call was not done in the time given by timeout= ({message})"
    if code is StatusCode.UNIMPLEMENTED:
        message = f"the server does not know this call; is it an older vecdb? ({message})"
    return _TRANSPORT_CLASSES.get(code, errors.VecdbError)(message)
