"""A payload as bytes: one JSON object in UTF-8, without spaces, keys in the order given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from types import NoneType

from vecdb.config import PAYLOAD_BYTES
from vecdb.errors import InvalidPayloadError
from vecdb.payload.json_value import NotJsonError, check_json, decode_json
from vecdb.types import Payload


def encode_payload(payload: object, where: str = "payload") -> bytes:
    """Return `payload` as compact UTF-8 JSON.

    Parameters
    ----------
    payload
        A dict with str keys whose values are None, bool, int, finite float, str, list or dict.
    where
        What it is called in messages, such as ``"payload of id 7"``.

    Raises
    ------
    InvalidPayloadError
        If it is not such a dict, nests deeper than 64 levels, or is larger than
        `vecdb.config.PAYLOAD_BYTES`.
    """
    if not isinstance(payload, dict):
        raise InvalidPayloadError(
            f"{where} is a {type(payload).__name__}: must be a JSON object (a dict with str keys)"
        )
    try:
        if not _is_plain(payload):
            check_json(payload, where)
        encoded = _ENCODER.encode(payload).encode("utf-8")
    except NotJsonError as error:
        raise InvalidPayloadError(str(error)) from None
    except ValueError as error:  # an int with more digits than Python converts
        raise InvalidPayloadError(f"{where}: {error}") from error
    if len(encoded) > PAYLOAD_BYTES.greatest:
        raise InvalidPayloadError(
            f"{where} takes {len(encoded)} bytes as JSON: must be at most {PAYLOAD_BYTES.greatest}"
        )
    return encoded


def _is_plain(payload: dict[object, object]) -> bool:
    """Tell, at a fraction of the time of `check_json`, that there is nothing to refuse.

    False says nothing.
    """
    for key, value in payload.items():
        if type(key) is not str or not key.isascii():
            return False
        kind = type(value)
        if kind is str:
            if not value.isascii():  # type: ignore[attr-defined]
                return False
        elif kind is float:
            if not isfinite(value):  # type: ignore[arg-type]
                return False
        elif kind is not int and kind is not bool and value is not None:
            return False
    return True


def decode_payload(encoded: bytes, where: str = "payload") -> Payload:
    """Return the object that `encode_payload` wrote, or that a client sent.

    Raises
    ------
    InvalidPayloadError
        If `encoded` is not one JSON object in UTF-8, or holds NaN or Infinity.
    """
    try:
        payload = decode_json(encoded.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(f"{where} is not UTF-8: {error}") from None
    except NotJsonError as error:
        raise InvalidPayloadError(f"{where} is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise InvalidPayloadError(
            f"{where} is a JSON {type(payload).__name__}: must be a JSON object"
        )
    return payload


def decode_payloads(encoded: Sequence[bytes | None]) -> list[Payload | None]:
    """Return the objects that `encode_payload` wrote, None for None.

    Raises
    ------
    InvalidPayloadError
        As `decode_payload` does.
    """
    if all(each is None for each in encoded):
        return [None] * len(encoded)
    joined = b",".join(b"null" if each is None else each for each in encoded)
    try:  # one array takes a fraction of the time of its elements
        decoded = decode_json(f"[{joined.decode()}]")
        kinds = [NoneType if each is None else dict for each in encoded]
        if list(map(type, decoded)) == kinds:  # else one was "{},{}", or no object
            return list(decoded)
    except ValueError:  # NotJsonError and UnicodeDecodeError are such
        pass
    return [None if each is None else decode_payload(each) for each in encoded]


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""Made once: `json.dumps` would make one for each payload."""
