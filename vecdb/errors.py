"""The exceptions of vecdb, the same classes in the engine and in the client.

::

    VecdbError
    ├── InvalidArgumentError (ValueError)
    │   ├── DimensionMismatchError      a vector is not of the collection's dimension
    │   ├── InvalidVectorError          dtype, shape, NaN, infinity, or zero under cosine
    │   ├── EmptyBatchError             nothing to write or to search for
    │   ├── LengthMismatchError         ids, vectors, texts or payloads differ in length
    │   ├── InvalidIdError              not an int in [0, 2**64) nor a str
    │   ├── DuplicateIdError            one id twice in a batch
    │   ├── InvalidNameError            a collection name that cannot be one
    │   ├── InvalidParameterError       a parameter outside its range (k, ef, m, ...)
    │   ├── InvalidPayloadError         a payload that is not a JSON object
    │   ├── InvalidFilterError          a filter that is not of the documented form
    │   ├── InvalidTextError            empty, too long, or not a str
    │   └── UnreadableDocumentError     a file that is damaged, locked or not what its name says
    ├── NotFoundError (LookupError)
    │   ├── CollectionNotFoundError
    │   ├── ModelNotFoundError          unknown to the registry, or found nowhere
    │   └── StoredFileNotFoundError     a file that should be in the data directory
    ├── AlreadyExistsError
    │   └── CollectionExistsError
    ├── FailedPreconditionError
    │   ├── DirectoryLockedError        another process owns the data directory
    │   ├── NewerFormatError            written by a newer vecdb
    │   ├── EncoderMismatchError        the model is not the one the vectors came from
    │   ├── ReadOnlyError               no writes now: the disk failed, or points are damaged
    │   ├── StorageAccessError          the operating system refuses access to the data
    │   ├── DeviceUnavailableError      device="cuda" without CUDA
    │   └── MissingDependencyError      an extra of the package is not installed
    ├── DataLossError
    │   ├── CorruptFileError            a file of the data directory is damaged
    │   │   └── QuarantinedError        the answer would need points that are damaged
    │   ├── StorageIOError              the disk failed a read, a write or a sync
    │   └── ModelDigestError            a model file with the wrong SHA-256
    ├── ResourceExhaustedError
    │   ├── DiskFullError
    │   │   └── DiskLimitError          over max_disk_bytes, or into min_free_bytes
    │   ├── MemoryLimitError            over max_memory_bytes
    │   ├── MessageTooLargeError
    │   └── OverloadedError
    ├── UnauthenticatedError            no API key, or a wrong one
    ├── UnavailableError                the server cannot be reached or is stopping
    ├── DeadlineExceededError (TimeoutError)
    ├── CancelledError
    ├── ClosedError                     used after close()
    ├── DecoderError                    the answering model failed
    └── InternalError                   a defect in vecdb; please report it

A message names the value that was wrong and says what would be right. What callers gave goes into
it by `shown` or `readable`, so that it can be made, printed and sent whatever they gave.
"""

from __future__ import annotations

_SHOWN_CHARS = 100


def shown(value: object, chars: int = _SHOWN_CHARS) -> str:
    """Return a value as messages show it: its repr, cut, or its type where it has none."""
    try:
        return readable(repr(value), chars)
    except Exception:  # an int of too many digits, nesting too deep, a class of the caller's own
        return f"<{type(value).__name__} that cannot be shown>"


def readable(text: str, chars: int = _SHOWN_CHARS) -> str:
    """Return text as messages show it without quotes: cut, and lone surrogates escaped."""
    cut = text if len(text) <= chars else text[: chars - 3] + "..."
    return cut.encode("utf-8", "backslashreplace").decode()


class VecdbError(Exception):
    """Base of every exception raised by vecdb."""


class InvalidArgumentError(VecdbError, ValueError):
    """The caller passed something that can never work."""


class DimensionMismatchError(InvalidArgumentError):
    """A vector does not have the dimension of its collection or index."""


class InvalidVectorError(InvalidArgumentError):
    """A vector has the wrong dtype or shape, holds NaN or infinity, or is zero under cosine."""


class EmptyBatchError(InvalidArgumentError):
    """A batch holds nothing."""


class LengthMismatchError(InvalidArgumentError):
    """Parallel arguments differ in length."""


class InvalidIdError(InvalidArgumentError):
    """An id is neither an int in [0, 2**64) nor a non-empty str within the length limit."""


class DuplicateIdError(InvalidArgumentError):
    """One id stands twice in a batch."""


class InvalidNameError(InvalidArgumentError):
    """A name of a collection, or of a file of the data directory, cannot be used."""


class InvalidParameterError(InvalidArgumentError):
    """A parameter lies outside its range."""


class InvalidPayloadError(InvalidArgumentError):
    """A payload is not a JSON object, is too large, or has a field that vecdb writes itself."""


class InvalidFilterError(InvalidArgumentError):
    """A filter does not have the documented form."""


class InvalidTextError(InvalidArgumentError):
    """A text is empty, too long, or not a str."""


class UnreadableDocumentError(InvalidArgumentError):
    """A file to be ingested is damaged, needs a password, or is not what its name says."""


class NotFoundError(VecdbError, LookupError):
    """Something named does not exist."""


class CollectionNotFoundError(NotFoundError):
    """There is no collection of that name."""


class ModelNotFoundError(NotFoundError):
    """A model is not registered, or its file was found in no source."""


class StoredFileNotFoundError(NotFoundError):
    """A file that was looked for in a data directory, or to load an index from, is not there."""


class AlreadyExistsError(VecdbError):
    """Something of that name exists already."""


class CollectionExistsError(AlreadyExistsError):
    """There is a collection of that name already."""


class FailedPreconditionError(VecdbError):
    """The call is well formed, but the system is not in a state to do it."""


class DirectoryLockedError(FailedPreconditionError):
    """Another process has the data directory open."""


class NewerFormatError(FailedPreconditionError):
    """A file was written by a newer vecdb than this one."""


class EncoderMismatchError(FailedPreconditionError):
    """The encoder at hand is not the one a collection's vectors were made with."""


class ReadOnlyError(FailedPreconditionError):
    """The collection takes no writes now: one to disk failed, or some of its points are damaged."""


class StorageAccessError(FailedPreconditionError):
    """The operating system refuses access: permissions, or a file system mounted read-only."""


class DeviceUnavailableError(FailedPreconditionError):
    """The device asked for by name is not there."""


class MissingDependencyError(FailedPreconditionError):
    """A feature needs an extra of the package that is not installed."""


class DataLossError(VecdbError):
    """Stored bytes are not what was written."""


class CorruptFileError(DataLossError):
    """A file in the data directory is damaged."""


class QuarantinedError(CorruptFileError):
    """A part of the collection is damaged and not served, and the answer would need it."""


class StorageIOError(DataLossError):
    """The disk failed a read, a write or a sync; a write that failed so is never repeated."""


class ModelDigestError(DataLossError):
    """A model file does not have the SHA-256 that its registry entry names."""


class ResourceExhaustedError(VecdbError):
    """A limit on disk, memory, message size or load was reached."""


class DiskFullError(ResourceExhaustedError):
    """There is no room on the disk for the write."""


class DiskLimitError(DiskFullError):
    """The data directory may not grow: its disk budget is spent, or the file system nearly full."""


class MemoryLimitError(ResourceExhaustedError):
    """The points that are not in segment files yet take all the memory that they may."""


class MessageTooLargeError(ResourceExhaustedError):
    """A request or response is over the message-size limit."""


class OverloadedError(ResourceExhaustedError):
    """Too much work of this class is waiting already."""


class UnauthenticatedError(VecdbError):
    """The API key is missing or wrong."""


class UnavailableError(VecdbError):
    """The server cannot be reached, or is stopping."""


class DeadlineExceededError(VecdbError, TimeoutError):
    """The call's deadline passed before it was done."""


class CancelledError(VecdbError):
    """The call was cancelled by its caller."""


class ClosedError(VecdbError):
    """The database was closed before this call, or the client under it."""


class DecoderError(VecdbError):
    """The model that writes answers failed."""


class InternalError(VecdbError):
    """A defect in vecdb itself."""
