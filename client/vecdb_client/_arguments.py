"""What callers pass, checked as far as a message needs it and brought into the message's form."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat, TypeVar

import numpy as np

from vecdb.errors import (
    InvalidArgumentError,
    InvalidFilterError,
    InvalidNameError,
    InvalidParameterError,
    InvalidTextError,
    InvalidVectorError,
    LengthMismatchError,
    VecdbError,
    shown,
)
from vecdb.payload.encoding import encode_payload
from vecdb.payload.json_value import NotJsonError, check_json
from vecdb.types import (
    Filter,
    LongText,
    Matrix,
    MatrixLike,
    Metric,
    Payload,
    VectorLike,
    is_single,
)
from vecdb_proto import codec
from vecdb_proto.v1 import vecdb_pb2 as pb

M = TypeVar("M", Metric, LongText)


def matrix(values: VectorLike | MatrixLike) -> Matrix:
    """Return vectors as float32 rows, shape (n, dim); one vector is one row."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidVectorError(f"vectors are not of one length: {error}") from None
    if array.ndim == 1:
        array = array.reshape(1, -1) if array.size else array.reshape(0, 0)
    if array.ndim != 2:
        raise InvalidVectorError(f"vectors have shape {array.shape}: must be (n, dim) or (dim,)")
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "fiu":
        raise InvalidVectorError(
            f"vectors have dtype {array.dtype}: must be float32, or floats or integers to convert"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which the engine refuses by its place
        return array.astype(np.float32)


def one_row(vector: VectorLike) -> Matrix:
    """Return one vector as a matrix of one row."""
    row = matrix(vector)
    if len(row) > 1:
        raise InvalidArgumentError(
            f"vector has shape {np.shape(vector)}: must be one vector; search_batch takes more"
        )
    return row


def collection_name(name: str) -> str:
    """Return the name; the engine judges whether it can be one."""
    return text(name, "a collection name", InvalidNameError)


def text(value: str, what: str, refusal: type[VecdbError] = InvalidTextError) -> str:
    """Return a str that is Unicode text, or raise `refusal`."""
    if not isinstance(value, str):
        raise refusal(f"{what} is a {type(value).__name__}: must be a str")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise refusal(
            f"{what} is not Unicode text: it holds a lone surrogate at character {error.start}"
        ) from None
    return value


def texts_message(texts: Sequence[str | None]) -> pb.Texts:
    """Return the texts of points as a message."""
    return codec.texts_message(
        [
            None if each is None else text(each, f"texts[{row}]")
            for row, each in enumerate(_entries(texts, "texts"))
        ]
    )


def queries_message(queries: Sequence[str]) -> pb.Texts:
    """Return query texts as a message."""
    if is_single(queries):
        raise InvalidTextError(f"queries is a {type(queries).__name__}: must be a sequence of str")
    return pb.Texts(values=[text(each, f"queries[{row}]") for row, each in enumerate(queries)])


def payloads_message(payloads: Sequence[Payload | None]) -> pb.Payloads:
    """Return the payloads of points as a message."""
    objects = (
        None if each is None else encode_payload(each, f"payloads[{row}]")
        for row, each in enumerate(_entries(payloads, "payloads"))
    )
    return pb.Payloads(json=codec.json_array(objects))


def _entries(values: Sequence[Any], name: str) -> Sequence[Any]:
    if isinstance(values, dict) or is_single(values):
        raise LengthMismatchError(
            f"{name} is a {type(values).__name__}: must be a sequence with one entry for each id"
        )
    return values


def filter_text(filter: Filter | None) -> str | None:
    """Return a filter as JSON; the engine judges what it says."""
    if filter is None:
        return None
    conditions = dict(filter) if hasattr(filter, "keys") else filter
    try:
        check_json(conditions, "filter")
    except NotJsonError as error:
        raise InvalidFilterError(str(error)) from None
    return codec.json_text(conditions)


def integer(name: str, value: int | None) -> int | None:
    """Return an integer that the message can carry; the engine judges its range."""
    if value is None or (type(value) is int and abs(value) < 1 << 63):
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or abs(number) >= 1 << 63:
        raise InvalidParameterError(f"{name}={shown(value)}: must be an integer of 64 bits")
    return number


def number(name: str, value: float) -> float:
    """Return a number; the engine judges its range."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise InvalidParameterError(f"{name}={shown(value)}: must be a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidParameterError(f"{name}={shown(value)}: too large for a float") from None


def member(kind: type[M], value: str, name: str) -> M:
    """Return the member of an enumeration that has this value."""
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(member.value for member in kind)
        raise InvalidParameterError(f"{name}={shown(value)}: must be one of {allowed}") from None
