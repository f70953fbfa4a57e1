"""Payloads as bytes: what goes in comes back, and what would not is refused."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.config import PAYLOAD_BYTES
from vecdb.errors import InvalidPayloadError
from vecdb.payload import decode_payload, decode_payloads, encode_payload

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, json_values, max_size=5))
def test_round_trip(payload: dict[str, Any]) -> None:
    assert decode_payload(encode_payload(payload)) == payload


def test_order_of_keys_and_large_ints_are_kept() -> None:
    payload = {"b": 1, "a": 10**40, "ü": "é"}
    assert encode_payload(payload) == '{"b":1,"a":%d,"ü":"é"}'.encode() % 10**40
    assert list(decode_payload(encode_payload(payload))) == ["b", "a", "ü"]


class Colour(enum.StrEnum):
    RED = "red"


def test_subclasses_of_json_types_pass_as_their_base() -> None:
    payload = {"c": Colour.RED, "f": np.float64(0.5), "t": (1, 2)}
    assert decode_payload(encode_payload(payload)) == {"c": "red", "f": 0.5, "t": [1, 2]}


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (None, "NoneType: must be a JSON object"),
        ([1], "list: must be a JSON object"),
        ({1: 2}, "key 1"),
        ({"x": {None: 2}}, r"payload\['x'\] has the key None"),
        ({"x": float("nan")}, "nan"),
        ({"x": [float("inf")]}, r"payload\['x'\]\[0\] is inf"),
        ({"x": b"raw"}, "builtins.bytes"),
        ({"x": np.int64(3)}, r"numpy.int64.*int\(x\)"),
        ({"x": {1}}, "builtins.set"),
        ({"x": "\ud800"}, "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({"x": 10**5000}, "digits"),
    ],
)
def test_refusals(payload: Any, told: str) -> None:
    with pytest.raises(InvalidPayloadError, match=told):
        encode_payload(payload)


def test_limits_on_size_and_depth() -> None:
    overhead = len(b'{"x":""}')
    encode_payload({"x": "y" * (PAYLOAD_BYTES.greatest - overhead)})
    with pytest.raises(InvalidPayloadError, match="1048577 bytes"):
        encode_payload({"x": "y" * (PAYLOAD_BYTES.greatest - overhead + 1)})
    deep: Any = {}
    for _ in range(63):
        deep = {"x": deep}
    encode_payload(deep)
    with pytest.raises(InvalidPayloadError, match="deeper than 64"):
        encode_payload({"x": deep})
    cyclic: dict[str, Any] = {}
    cyclic["me"] = cyclic
    with pytest.raises(InvalidPayloadError, match="deeper than 64"):
        encode_payload(cyclic)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"[]", b"{", b'{"x":NaN}', b'{"x":-Infinity}', b'{"x":"\xff"}', b"[" * 100_000],
)
def test_damaged_bytes_are_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidPayloadError):
        decode_payload(encoded)


@pytest.mark.parametrize(
    "encoded",
    [[b'{"a":1},{"b":2}'], [b"{}", b""], [b"{}", b"null"], [b"[]"], [b'{"a":NaN}'], [b"\xff"]],
)
def test_together_as_alone_what_is_no_payload_is_refused(encoded: list[bytes]) -> None:
    with pytest.raises(InvalidPayloadError):
        decode_payloads(encoded)
